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

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superfs.core.kvcache.table import Block

SMALL, MAIN = 0, 1
HEAT_MAX = 3
GONE = -1  # order of a block that has left
SLACK = 64


class S3Fifo:
    def __init__(self, blocks: int) -> None:
        self._blocks = blocks
        self._small_max = max(1, blocks // 10)
        self._main_max = blocks - self._small_max
        # A block's order names the entry that counts; older ones are skipped when they come up.
        self._lines: tuple[deque[tuple[Block, int]], ...] = (deque(), deque())
        self._counts = [0, 0]
        self._ghost: OrderedDict[object, None] = OrderedDict()
        self._orders = 0

    def inserted(self, block: Block) -> None:
        block.heat = 0
        if block.key in self._ghost:
            del self._ghost[block.key]
            self._enter(block, MAIN)
        else:
            self._enter(block, SMALL)
        self._counts[block.queue] += 1

    def touched(self, block: Block) -> None:
        block.heat = min(HEAT_MAX, block.heat + 1)

    def offer(self, block: Block) -> None:
        """The lines have all blocks; the table says which may go."""

    def victim(self) -> Block | None:
        if self._counts[SMALL] >= self._small_max or not self._counts[MAIN]:
            return self._from_small() or self._from_main()
        return self._from_main() or self._from_small() or self._from_main()

    def removed(self, block: Block, *, evicted: bool) -> None:
        self._counts[block.queue] -= 1
        block.order = GONE
        if evicted and block.queue == SMALL:
            self._ghost[block.key] = None
            if len(self._ghost) > self._blocks:
                self._ghost.popitem(last=False)

    def _from_small(self) -> Block | None:
        for _ in range(self._counts[SMALL]):
            block = self._head(SMALL)
            if block is None:
                break
            leaf = _last_behind(block) if not block.heat else None
            if leaf is not None:
                return leaf
            if not block.heat and not block.children:  # pinned
                self._enter(block, SMALL)
                continue
            block.heat = 0
            self._counts[SMALL] -= 1
            self._counts[MAIN] += 1
            self._enter(block, MAIN)
            found = self._from_main() if self._counts[MAIN] > self._main_max else None
            if found is not None:
                return found
        return None

    def _from_main(self) -> Block | None:
        for _ in range((HEAT_MAX + 1) * self._counts[MAIN]):
            block = self._head(MAIN)
            if block is None:
                break
            leaf = _last_behind(block) if not block.heat else None
            if leaf is not None:
                return leaf
            block.heat = max(0, block.heat - 1)
            self._enter(block, MAIN)
        return None

    def _head(self, queue: int) -> Block | None:
        line = self._lines[queue]
        while line and line[0][0].order != line[0][1]:
            line.popleft()
        return line[0][0] if line else None

    def _enter(self, block: Block, queue: int) -> None:
        self._orders += 1
        block.order = self._orders
        block.queue = queue
        line = self._lines[queue]
        line.append((block, block.order))
        if len(line) > 2 * self._counts[queue] + SLACK:
            entries = [entry for entry in line if entry[0].order == entry[1]]
            line.clear()
            line.extend(entries)


def _last_behind(block: Block) -> Block | None:
    """Itself if it may go, else the last one behind it. None: it is pinned; or there is more than
    one behind it, or one that was used, which says that it was."""
    while not block.evictable:
        if len(block.children) != 1:
            return None
        (block,) = block.children
        if block.heat:
            return None
    return block
