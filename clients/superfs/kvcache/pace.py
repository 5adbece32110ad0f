"""So many bytes a second and no more: what is loaded for one prompt leaves room for others."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


LATE_S = 0.02
"""A system that wakes up later than it was told to is made up for, up to so much."""


class Pace:
    def __init__(
        self,
        bytes_per_s: float = 0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """0: as fast as it goes."""
        self.bytes_per_s = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = 0.0
        self._late_s = 0.0

    def spend(self, size: int) -> None:
        """Before so many bytes are moved: waits until it is their turn. In any thread."""
        if not self.bytes_per_s:
            return
        with self._lock:
            now = self._clock()
            turn = max(now - self._late_s, self._free_at) + size / self.bytes_per_s
            self._free_at, self._late_s = turn, 0.0
        if turn > now:
            self._sleep(turn - now)
            with self._lock:
                self._late_s = min(LATE_S, max(0.0, self._clock() - turn))
