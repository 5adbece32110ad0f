"""Work that may wait for a disk, done by whoever waits for it.

Somebody with a thread of his own (the blocking API) reads by himself: no hand-over, and his thread
has the bytes in its caches. Who must not block (a task of a loop) only wants to be told: for him
a reader's thread does it, unless it can be done at once.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

from superfs.rpc.pending import Pending

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.client.readers import Readers

T = TypeVar("T")


class Errand(Pending[T]):
    __slots__ = ("_at_once", "_readers", "_taken", "_work")

    def __init__(
        self, work: Callable[[], T], readers: Readers, at_once: Callable[[], T | None]
    ) -> None:
        """`at_once`: the same without waiting for a disk; None: it has to be waited for."""
        super().__init__()
        self._work = work
        self._at_once = at_once
        self._readers = readers
        self._taken = threading.Lock()

    def on_done(self, callback: Callable[[], object]) -> bool:
        hand_over = self._taken.acquire(blocking=False)
        if hand_over:
            found = self._at_once()
            if found is not None:
                self.complete(found)
        waiting = super().on_done(callback)
        if waiting and hand_over:
            self._readers.put(self._do)
        return waiting

    def wait(self, timeout_s: float | None = None) -> bool:
        if self._taken.acquire(blocking=False):
            self._do()
        return super().wait(timeout_s)

    def _do(self) -> None:
        try:
            self.complete(self._work())
        except Exception as error:
            self.fail(error)
