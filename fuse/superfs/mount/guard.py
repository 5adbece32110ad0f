"""Whoever ends what the kernel believes when the mount cannot: a small process of its own.

What is told under a lease is good as long as the lease is renewed, every few seconds. The kernel
could be told to believe it for the rest of one lease only, and would ask again for every name and
inode each time. It is told to believe it for an hour instead, and the guard, who holds the
connection to the kernel as well, is told until when the leases are good. When that moment comes
and the mount has not said more, because it is stopped, or cut off, the guard makes the kernel ask
again: for every name (FUSE_NOTIFY_INC_EPOCH, Linux 6.16), and for the attributes of open files.

It also cuts the connection when the mount has been killed. Dropping a name waits for the lock of a
directory, and whoever holds that may wait for an answer of the mount. Killed at that moment, the
mount could not end: its thread waits for the lock, the lock for the answer, and the connection
stands for as long as the thread has it open.

Both share a page of memory: when the leases end (boot-time clock, ns; 0: there are none), how often
the guard had to act, and the numbers of open files, in slots. The guard ends with the mount: it
waits at a pipe whose other end only the mount holds.

This module is also the program of that process and therefore imports next to nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import re
import select
import signal
import struct
import subprocess
import sys
import time

SLOTS = 65_536
UNTIL, ACTED, FIRST = 0, 1, 2
"""Words of 64 bits: until when, how often, and where the slots begin."""
SHARED_BYTES = 8 * (FIRST + SLOTS)
GUARDED_S = 3600.0
"""How long the kernel may believe what the guard watches over."""
LOOK_S = 1.0
"""How often it looks at the clock, which goes on while the machine sleeps."""
PR_SET_PDEATHSIG = 1
MNT_FORCE = 1
DIED = signal.SIGUSR1
FORGET_NAMES = struct.pack("=IiQ", 16, 8, 0)
_INVAL_INODE = struct.Struct("=IiQQqq")


class Unguarded:
    """The kernel believes nothing beyond the rest of a lease."""

    is_on = False
    acted = 0

    def good_until(self, until_s: float) -> None:
        pass

    def opened(self, number: int) -> int:
        return -1

    def closed(self, slot: int) -> None:
        pass


class Guard(Unguarded):
    """In the mount. It is on from `start` to `close`, while there is a process that watches."""

    def __init__(self, device: int, mountpoint: str = "", number: str = "") -> None:
        """`device`: /dev/fuse, mounted at `mountpoint`, as device `number` (MAJOR:MINOR)."""
        self._device = device
        self._mount = mountpoint, number
        self._memory = os.memfd_create("superfs-guard")
        os.ftruncate(self._memory, SHARED_BYTES)
        self._map = mmap.mmap(self._memory, SHARED_BYTES)
        self._words = memoryview(self._map).cast("Q")  # one store each: never half of a number
        self._free = list(range(FIRST + SLOTS - 1, FIRST - 1, -1))
        self._process: subprocess.Popen[bytes] | None = None
        self._is_started = self._can_tell = self._has_failed = False
        self._theirs, self._ours = os.pipe()

    def start(self) -> bool:
        """Once the kernel has been greeted, in the main thread, which lives as long as the process.
        False: it is too old for more than one lease."""
        try:
            os.write(self._device, FORGET_NAMES)
            self._can_tell = True
        except OSError:
            self._can_tell = False
        self._is_started = True
        self._spawn()
        return self._can_tell

    def _spawn(self) -> None:
        """Without a process the mount goes on: the kernel is told nothing for more than one lease,
        and what it was told for longer is taken back."""
        theirs = self._device, self._memory, self._theirs
        mine = [*map(str, theirs), str(os.getpid()), *self._mount]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, *mine],
                pass_fds=theirs,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self._process = None
            if self.is_on:
                self.is_on = False
                forget(self._device, self._words)
            self._complain(error)
        else:
            self.is_on, self._has_failed = self._can_tell, False

    def _complain(self, error: OSError) -> None:
        from logging import getLogger  # the process itself does without

        if not self._has_failed:
            getLogger("superfs.mount").warning(
                "the guard of this mount cannot be started: until it can, the kernel keeps what it "
                "is told for one lease only: %s",
                error,
            )
        self._has_failed = True

    def good_until(self, until_s: float) -> None:
        """By the lease clock; 0: nothing is told under leases."""
        self._words[UNTIL] = int(until_s * 1e9)
        if self._is_started and (self._process is None or self._process.poll() is not None):
            self._spawn()  # somebody has killed it, or it could not be started

    @property
    def acted(self) -> int:  # type: ignore[override]
        """How often it had to."""
        return self._words[ACTED]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def opened(self, number: int) -> int:
        """A file is open: its slot, or -1 where there is none left."""
        if not self._free:
            return -1
        slot = self._free.pop()
        self._words[slot] = number
        return slot

    def closed(self, slot: int) -> None:
        if slot >= 0:
            self._words[slot] = 0
            self._free.append(slot)

    def close(self) -> None:
        self.is_on = False
        os.close(self._ours)
        os.close(self._theirs)
        if self._process is not None:
            self._process.wait()
        self._words.release()
        self._map.close()
        os.close(self._memory)


def watch(device: int, memory: int, pipe: int) -> None:
    """The other process: until the mount has ended."""
    with mmap.mmap(memory, SHARED_BYTES) as shared, memoryview(shared).cast("Q") as words:
        ended = select.poll()
        ended.register(pipe, select.POLLIN)
        acted_for = 0
        while True:
            until = words[UNTIL]
            left_s = (until - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) / 1e9
            if until and until != acted_for and left_s <= 0:
                acted_for = until
                forget(device, words)
                words[ACTED] += 1
            wait_s = min(left_s, LOOK_S) if left_s > 0 else LOOK_S
            if ended.poll(max(1, int(wait_s * 1000))):
                return


def forget(device: int, words: memoryview) -> None:
    messages = [FORGET_NAMES]
    for number in words[FIRST:]:
        if number:
            messages.append(_INVAL_INODE.pack(_INVAL_INODE.size, 2, 0, number, -1, 0))
    for message in messages:
        try:
            os.write(device, message)
        except OSError:
            continue  # ENOENT: it has nothing of that; ENODEV: nothing is mounted any more


def cut(mountpoint: str, number: str) -> None:
    """No request of this mount is waited for any more. The mount point stays as it is."""
    major, minor = map(int, number.split(":"))
    with contextlib.suppress(OSError):
        with open(f"/sys/fs/fuse/connections/{(major << 20) | minor}/abort", "w") as file:
            file.write("1\n")
        return
    if mounted_at(mountpoint) != number:
        return
    # Held open, it cannot be unmounted, and the connection is all that ends.
    held = os.open(mountpoint, os.O_PATH)
    try:
        ctypes.CDLL(None).umount2(os.fsencode(mountpoint), MNT_FORCE)
    finally:
        os.close(held)


def mounted_at(mountpoint: str) -> str:
    """As MAJOR:MINOR, from the kernel's table: a stat would be a request to the mount itself."""
    found = ""
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            fields = line.split(b" ")
            place = re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), fields[4])
            if place == os.fsencode(mountpoint):
                found = fields[2].decode()
    return found


def is_zombie(process: int) -> bool:
    """Dead, but for a thread that cannot end."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return False


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends after the mount, never before
    device, memory, pipe, parent = map(int, sys.argv[1:5])
    mountpoint, mounted = sys.argv[5:]

    def died(*_: object) -> None:
        """The pipe alone would not tell: a thread that cannot end has it open, too."""
        if mounted:
            cut(mountpoint, mounted)
        os._exit(0)

    signal.signal(DIED, died)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(DIED))
    if os.getppid() != parent or is_zombie(parent):
        died()  # before we could be told
    watch(device, memory, pipe)


if __name__ == "__main__":
    main()
