"""The blocks that may be evicted, in the order in which they would be: a heap that forgets lazily.

A block has one place in one ranking at a time: its stamp names the entry that counts. Older entries
are skipped when they come up, and dropped all together when they are the majority.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from superfs.core.kvcache.table import Block

SLACK = 64

_stamps = count(1)


class Ranking:
    __slots__ = ("_heap", "_limit")

    def __init__(self) -> None:
        self._heap: list[tuple[Any, int, Block]] = []
        self._limit = SLACK

    def put(self, block: Block, rank: Any) -> None:  # noqa: ANN401 - whatever a policy orders by
        """Lowest rank first, then who came first. A block that is in moves."""
        block.stamp = next(_stamps)
        heapq.heappush(self._heap, (rank, block.stamp, block))
        if len(self._heap) > self._limit:
            self._heap = [e for e in self._heap if e[2].stamp == e[1] and e[2].evictable]
            heapq.heapify(self._heap)
            self._limit = 2 * len(self._heap) + SLACK

    def first(self) -> Block | None:
        """The next one to go, which stays in."""
        heap = self._heap
        while heap:
            _, stamp, block = heap[0]
            if block.stamp == stamp and block.evictable:
                return block
            heapq.heappop(heap)
        return None
