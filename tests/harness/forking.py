"""Children by fork(), beside threads that are at work in the parent."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING

from harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHILD_S = 20


def forked(run: Callable[[], bool]) -> int:
    """Exit status of a child that runs this: 0 where it was true. A child that hangs dies."""
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(CHILD_S)
            status = 0 if run() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextlib.contextmanager
def busy(work: Callable[[int, int], object], threads: int = 3) -> Iterator[Callable[[], None]]:
    """Threads that repeat (thread, round). Yields what waits for one more round of each."""
    over = threading.Event()
    rounds = [0] * threads
    errors: list[BaseException] = []

    def repeat(number: int) -> None:
        try:
            while not over.is_set():
                work(number, rounds[number])
                rounds[number] += 1
        except BaseException as error:
            errors.append(error)

    def all_go_on() -> None:
        seen = list(rounds)
        wait_until(lambda: all(map(int.__gt__, rounds, seen)) or bool(errors), "all go on")

    running = [threading.Thread(target=repeat, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield all_go_on
    finally:
        over.set()
        for thread in running:
            thread.join()
    assert not errors
