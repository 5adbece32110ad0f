"""Reads that wait for a disk of this host: the desk looks for their bytes between requests.

Handing one to a thread and its answer back costs more than a fast disk takes. A read that is late
goes to a thread after all, and while the disk is slow the next ones go there at once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from superfs.mount.desk import protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.client.sought import Sought

PATIENCE_NS = 1_000_000
"""Then it is late."""
SLOW_READS = 64
"""So many go to threads before the disk is trusted again."""
EXPECTED_MAX = 64


class Arrivals:
    def __init__(
        self, give: Callable[..., None], clock: Callable[[], int] = time.perf_counter_ns
    ) -> None:
        self._give = give
        self._clock = clock
        self._slow = 0
        self.expected: list[tuple[Sought, int, int, Callable[[], None]]] = []

    def has_room(self) -> bool:
        """For one more read, which else is for a thread."""
        if self._slow:
            self._slow -= 1
            return False
        return len(self.expected) < EXPECTED_MAX

    def expect(self, sought: Sought, unique: int, late: Callable[[], None]) -> None:
        """Answers the request, or calls `late`, at some later `look`."""
        self.expected.append((sought, unique, self._clock() + PATIENCE_NS, late))

    def look(self) -> None:
        still = []
        for one in self.expected:
            sought, unique, due, late = one
            data = sought.look()
            if data is not None:
                self._give(protocol.data(unique, data))
            elif self._clock() < due:
                still.append(one)
            else:
                self._slow = SLOW_READS
                late()
        self.expected = still
