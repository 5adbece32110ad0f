"""The longest stored prefix of a chain, held: nothing of it is evicted until it is released."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.kvcache.parts import bad_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from superfs.kvcache.home import Home
    from superfs.v1 import kvcache_pb2 as pb

    Leased = tuple[Home, pb.KvPlaces]


class Hold:
    def __init__(
        self, leased: Sequence[Leased], give_back: Callable[[Home, pb.KvPlaces, list[int]], None]
    ) -> None:
        """Use `KVStore.hold`."""
        self.leased = list(leased)
        self._give_back = give_back

    @property
    def blocks(self) -> int:
        return sum(len(places.lengths) for _, places in self.leased)

    def release(self, good: Sequence[bool] = ()) -> None:
        """`good`: which of the blocks were right, of those that were compared. Once."""
        first = 0
        while self.leased:
            home, places = self.leased.pop(0)
            end = first + len(places.lengths)
            self._give_back(home, places, bad_of(good[first:end]))
            first = end
