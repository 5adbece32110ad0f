"""S3-FIFO (Yang, Zhang, Qiu, Yue, Vigfusson: FIFO queues are all you need for cache eviction).

New blocks enter the small queue (a tenth of the room), those that the ghost remembers the main one.
Who comes up in the small queue and was used since goes to the main queue, else it leaves, and the
ghost remembers its key. Who comes up in the main queue and was used goes to its end, with one use
less. Blocks that may not be evicted are passed over and keep their place in the line.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from superfs.core.kvcache.ranking import Ranking

if TYPE_CHECKING:
    from superfs.core.kvcache.table import Block

SMALL, MAIN = 0, 1
HEAT_MAX = 3


class S3Fifo:
    def __init__(self, blocks: int) -> None:
        self._blocks = blocks
        self._small_max = max(1, blocks // 10)
        self._main_max = blocks - self._small_max
        self._lines = (Ranking(), Ranking())
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

    def touched(self, block: Block) -> None:
        block.heat = min(HEAT_MAX, block.heat + 1)

    def offer(self, block: Block) -> None:
        self._lines[block.queue].put(block, block.order)

    def victim(self) -> Block | None:
        if self._counts[SMALL] >= self._small_max or not self._counts[MAIN]:
            return self._from_small() or self._from_main()
        return self._from_main() or self._from_small()

    def removed(self, block: Block, *, evicted: bool) -> None:
        self._counts[block.queue] -= 1
        if evicted and block.queue == SMALL:
            self._ghost[block.key] = None
            if len(self._ghost) > self._blocks:
                self._ghost.popitem(last=False)

    def _from_small(self) -> Block | None:
        while (block := self._lines[SMALL].first()) is not None:
            if not block.heat:
                return block
            self._counts[SMALL] -= 1
            block.heat = 0
            self._enter(block, MAIN)
            self.offer(block)
            if self._counts[MAIN] > self._main_max:
                return self._from_main()
        return None

    def _from_main(self) -> Block | None:
        while (block := self._lines[MAIN].first()) is not None:
            if not block.heat:
                return block
            block.heat -= 1
            self._enter(block, MAIN, again=True)
            self.offer(block)
        return None

    def _enter(self, block: Block, queue: int, *, again: bool = False) -> None:
        self._orders += 1
        block.order = self._orders
        block.queue = queue
        if not again:
            self._counts[queue] += 1
