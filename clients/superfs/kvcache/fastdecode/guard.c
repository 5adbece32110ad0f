/* Mappings of files that somebody else may cut short while they are read.
 *
 * A page that is not there any more is SIGBUS to whoever touches it. Within a guarded mapping it
 * becomes a page of zeros instead, and the reader goes on: who reads such a file compares checksums.
 * Anywhere else the signal is what it was before.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define GUARDED_MAX 4096

static struct { uintptr_t start; size_t size; } guarded[GUARDED_MAX];
static struct sigaction before;
static uintptr_t page_size;

static void handle(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)context;
    const int kept = errno;
    const uintptr_t at = (uintptr_t)info->si_addr;
    for (int n = 0; n < GUARDED_MAX; n++) {
        const uintptr_t start = __atomic_load_n(&guarded[n].start, __ATOMIC_ACQUIRE);
        if (!start || at < start || at - start >= guarded[n].size) continue;
        void *page = (void *)(at & ~(page_size - 1));
        const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
        if (mmap(page, page_size, PROT_READ, flags, -1, 0) == MAP_FAILED) break;
        errno = kept;
        return;
    }
    errno = kept;
    sigaction(SIGBUS, &before, NULL);  /* touched once more, it is as if nobody guarded anything */
}

/* One thread at a time calls these two. A number for `superfs_unguard`; -1: there are too many. */
int superfs_guard(void *start, size_t size) {
    struct sigaction now = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_NODEFER}, found;
    sigemptyset(&now.sa_mask);
    page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (int n = 0; n < GUARDED_MAX; n++) {
        if (guarded[n].start) continue;
        if (sigaction(SIGBUS, NULL, &found)) return -1;
        if (!(found.sa_flags & SA_SIGINFO) || found.sa_sigaction != handle) {
            before = found;
            if (sigaction(SIGBUS, &now, NULL)) return -1;
        }
        guarded[n].size = size;
        __atomic_store_n(&guarded[n].start, (uintptr_t)start, __ATOMIC_RELEASE);
        return n;
    }
    return -1;
}

void superfs_unguard(int number) {
    __atomic_store_n(&guarded[number].start, 0, __ATOMIC_RELEASE);
}
