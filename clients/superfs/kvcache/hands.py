"""Copying many blocks at once: between a client's memory and a slab, and comparing them.

One thread copies from a tmpfs slower than memory is: the kernel goes page by page. System calls and
checksums leave the interpreter to others, so several threads do so much more. The caller is one of
them.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from superfs.core.limits import MIB

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
THREADS_MAX = 4
ALONE_BYTES = 4 * MIB
"""So little is copied sooner than others have woken up."""


class Hands:
    def __init__(self, threads: int = 0) -> None:
        """`threads`: besides the caller's; 0: as many as there are processors to this process, up
        to `THREADS_MAX` in all."""
        self._threads = threads or min(THREADS_MAX, len(os.sched_getaffinity(0))) - 1
        self._lock = threading.Lock()
        self._others: ThreadPoolExecutor | None = None

    def each(self, number: int, size: int, work: Callable[[int], T]) -> list[T]:
        """`work` of 0 up to `number`, in any order and thread; `size`: of all of it, in bytes. What
        it raises is raised when nobody works any more."""
        helpers = min(self._threads, number - 1)
        if helpers < 1 or size < ALONE_BYTES:
            return [work(n) for n in range(number)]
        found: dict[int, T] = {}
        following = count()

        def take() -> None:
            while (n := next(following)) < number:
                found[n] = work(n)

        with self._lock:
            if self._others is None:
                self._others = ThreadPoolExecutor(self._threads, "kvcache-copy")
            others = [self._others.submit(take) for _ in range(helpers)]
        try:
            take()
        finally:
            errors = [other.exception() for other in others]
        for error in errors:
            if error is not None:
                raise error
        return [found[n] for n in range(number)]

    def close(self) -> None:
        with self._lock:
            others, self._others = self._others, None
        if others is not None:
            others.shutdown()
