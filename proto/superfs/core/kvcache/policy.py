"""What goes first when there is no room. A policy ranks what the table offers it; it never looks
at whether a block may go.

    lru            the one that was used longest ago
    lfu            the one that was used least often, then LRU
    length-aware   the one that was used least often, then the one latest in its prefix, then LRU
    fifo           the one that was stored first
    s3-fifo        three queues (Yang et al., SOSP 2023): a small one for what is new, the main one
                   for what was used again, a ghost of what has left the small one
    hazard         ours (hazard.py): the one whose kind and age are least often used again
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from superfs.core.errors import Code, FsError
from superfs.core.kvcache.hazard import Hazard
from superfs.core.kvcache.ranking import Ranking
from superfs.core.kvcache.s3fifo import S3Fifo

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.core.kvcache.table import Block


class Policy(Protocol):
    def inserted(self, block: Block) -> None:
        """It is new."""
        ...

    def touched(self, block: Block) -> None:
        """It was used again: its `last` and `uses` say so already."""
        ...

    def offer(self, block: Block) -> None:
        """It may be evicted from now on, or may still and its rank may have changed."""
        ...

    def victim(self) -> Block | None:
        """Among those offered that are still `evictable`. The table evicts it next."""
        ...

    def removed(self, block: Block, *, evicted: bool) -> None: ...


class Ranked:
    """A policy that is one order of blocks."""

    def __init__(self, rank: Callable[[Block], Any]) -> None:
        self._rank = rank
        self._ranking = Ranking()

    def inserted(self, block: Block) -> None:
        pass

    def touched(self, block: Block) -> None:
        pass

    def offer(self, block: Block) -> None:
        self._ranking.put(block, self._rank(block))

    def victim(self) -> Block | None:
        return self._ranking.first()

    def removed(self, block: Block, *, evicted: bool) -> None:
        pass


RANKS: dict[str, Callable[[Block], Any]] = {
    "lru": lambda b: b.last,
    "lfu": lambda b: (b.uses, b.last),
    "length-aware": lambda b: (b.uses, -b.depth, b.last),
    "fifo": lambda b: b.born,
}
POLICIES = (*RANKS, "s3-fifo", "hazard")


def make_policy(name: str, capacity: int, unit: int = 1) -> Policy:
    """`capacity` in bytes, `unit` the bytes of a usual block: queues and ghosts count blocks."""
    if name in RANKS:
        return Ranked(RANKS[name])
    blocks = max(2, capacity // unit)
    if name == "s3-fifo":
        return S3Fifo(blocks)
    if name == "hazard":
        return Hazard(blocks)
    raise FsError(Code.INVALID, f"no policy {name!r}; there are: {', '.join(POLICIES)}")
