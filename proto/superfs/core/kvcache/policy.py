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

    from superfs.core.kvcache.table import BlockTable


class Policy(Protocol):
    """Of blocks it knows their rows in the table's columns."""

    def use(self, table: BlockTable) -> None:
        """Whose rows these are: before anything else, once."""
        ...

    def inserted(self, row: int) -> None:
        """It is new."""
        ...

    def touched(self, row: int) -> None:
        """It was used again: its `last` and `uses` say so already."""
        ...

    def offer(self, row: int) -> None:
        """It may be evicted from now on, or may still and its rank may have changed."""
        ...

    def withdraw(self, row: int) -> None:
        """It may not any more."""
        ...

    def victim(self) -> int:
        """Among those that are offered, or -1. The table evicts it next."""
        ...

    def removed(self, row: int, *, evicted: bool) -> None: ...


class Ranked:
    """A policy that is one order of blocks."""

    def __init__(self, rank: Callable[[BlockTable], Callable[[int], Any]]) -> None:
        self._rank = rank

    def use(self, table: BlockTable) -> None:
        self._ranking = Ranking(self._rank(table))

    def inserted(self, row: int) -> None:
        pass

    def touched(self, row: int) -> None:
        pass

    def offer(self, row: int) -> None:
        self._ranking.put(row)

    def withdraw(self, row: int) -> None:
        self._ranking.discard(row)

    def victim(self) -> int:
        return self._ranking.first()

    def removed(self, row: int, *, evicted: bool) -> None:
        pass


RANKS: dict[str, Callable[[BlockTable], Callable[[int], Any]]] = {
    "lru": lambda t: t.last.__getitem__,
    "lfu": lambda t: lambda row: (t.uses[row], t.last[row]),
    "length-aware": lambda t: lambda row: (t.uses[row], -t.depth[row], t.last[row]),
    "fifo": lambda t: t.born.__getitem__,
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
