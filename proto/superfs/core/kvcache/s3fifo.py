"""S3-FIFO (Yang, Zhang, Qiu, Yue, Vigfusson: FIFO queues are all you need for cache eviction).

New blocks enter the small queue (a tenth of the room), those that the ghost remembers the main one.
Who comes up in the small queue and was used since goes to the main queue, else it leaves, and the
ghost remembers its key. Who comes up in the main queue and was used goes to its end, with one use
less.

A block that comes up unused and has a block behind it may not go before that. So in its stead goes
what is last behind it, as it would have gone soon after, and it stays at the head of its line: each
time a block less is behind it. If that was used meanwhile, or prompts go on from here in several
ways, the block goes on like one that was used. What is pinned goes to the end of its line.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from superfs.core.kvcache.digests import NONE, grow
from superfs.core.kvcache.lines import Ghost, Lines
from superfs.core.kvcache.table import EVICTABLE

if TYPE_CHECKING:
    from superfs.core.kvcache.table import BlockTable

SMALL, MAIN = 0, 1
HEAT_MAX = 3


class S3Fifo:
    def __init__(self, blocks: int) -> None:
        self._small_max = max(1, blocks // 10)
        self._main_max = blocks - self._small_max
        self._lines = Lines(2)
        self._heat = array("B")
        self._ghost = Ghost(blocks)

    def use(self, table: BlockTable) -> None:
        self._table = table

    def inserted(self, row: int) -> None:
        grow(row + 1, self._heat)
        self._heat[row] = 0
        known = self._ghost.pop(self._table.index.key(row))
        self._lines.append(row, SMALL if known is None else MAIN)

    def touched(self, row: int) -> None:
        self._heat[row] = min(HEAT_MAX, self._heat[row] + 1)

    def offer(self, row: int) -> None:
        """The lines have all blocks; the table says which may go."""

    def withdraw(self, row: int) -> None:
        pass

    def victim(self) -> int:
        small, main = self._lines.counts
        if small >= self._small_max or not main:
            tries = [self._from_small, self._from_main]
        else:
            tries = [self._from_main, self._from_small, self._from_main]
        for one in tries:
            if (row := one()) != NONE:
                return row
        return NONE

    def removed(self, row: int, *, evicted: bool) -> None:
        self._lines.remove(row)
        if evicted and self._lines.line[row] == SMALL:
            self._ghost.add(self._table.index.key(row))

    def _from_small(self) -> int:
        lines, heat = self._lines, self._heat
        for _ in range(lines.counts[SMALL]):
            row = lines.head(SMALL)
            if row == NONE:
                break
            leaf = self._last_behind(row) if not heat[row] else NONE
            if leaf != NONE:
                return leaf
            lines.remove(row)
            if not heat[row] and self._table.child[row] == NONE:  # pinned
                lines.append(row, SMALL)
                continue
            heat[row] = 0
            lines.append(row, MAIN)
            found = self._from_main() if lines.counts[MAIN] > self._main_max else NONE
            if found != NONE:
                return found
        return NONE

    def _from_main(self) -> int:
        lines, heat = self._lines, self._heat
        for _ in range((HEAT_MAX + 1) * lines.counts[MAIN]):
            row = lines.head(MAIN)
            leaf = self._last_behind(row) if not heat[row] else NONE
            if leaf != NONE:
                return leaf
            heat[row] = max(0, heat[row] - 1)
            lines.remove(row)
            lines.append(row, MAIN)
        return NONE

    def _last_behind(self, row: int) -> int:
        """Itself if it may go, else the last one behind it. NONE: it is pinned; or there is more
        than one behind it, or one that was used, which says that it was."""
        table = self._table
        while table.state[row] != EVICTABLE:
            child = table.child[row]
            if child == NONE or table.older[child] != NONE or self._heat[child]:
                return NONE
            row = child
        return row
