"""Where blocks lie, in columns beside those of their table (core/kvcache/table.py).

A `Place` is made when somebody asks for it, and is the same one for as long as anybody has it: so
whoever reads or writes there can be counted in it, and told from who comes there later.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from superfs.core.kvcache.digests import NONE, grow
from superfs.core.kvcache.table import FREE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.core.kvcache.table import Block, BlockTable
    from superfs.data.kvcache.slab import Slab

PENDING, COMMITTED = 1, 2


@dataclass(slots=True, eq=False, weakref_slot=True)
class Place:
    """Where a block lies. Its room goes back when it is gone and nobody reads or writes there."""

    slab: Slab
    at: int  # first granule
    granules: int
    length: int
    checksum: int = 0
    committed: bool = False
    readers: int = 0
    gone: bool = False

    def leave(self) -> None:
        self.gone = True
        self.slab.zero_record(self.at)
        if not self.readers:
            self.slab.runs.give(self.at, self.granules)

    def let_go(self) -> None:
        """A reader or writer less; `readers` was counted up before."""
        self.readers -= 1
        if self.gone and not self.readers:
            self.slab.zero_record(self.at)  # whoever was at it may have written one
            self.slab.runs.give(self.at, self.granules)


class Places(Mapping[bytes, Place]):
    """Of the blocks of one table."""

    def __init__(self, table: BlockTable) -> None:
        self._table = table
        self._state = array("B")
        self._slab = array("H")
        self._at = array("I")
        self._length = array("I")
        self._checksum = array("Q")
        self._slabs: dict[int, Slab] = {}
        self._numbers: dict[Slab, int] = {}
        self._known: WeakValueDictionary[int, Place] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._table.blocks)

    def __contains__(self, key: object) -> bool:
        return key in self._table.blocks

    def __getitem__(self, key: bytes) -> Place:
        row = self._table.index.find(key)
        if row < 0:
            raise KeyError(key)
        return self._place(row)

    def committed(self, key: bytes) -> bool:
        row = self._table.index.find(key)
        return row >= 0 and self._state[row] == COMMITTED

    def may_follow(self, block: Block) -> bool:
        """Whether what is before this block is committed, if there is anything."""
        row = self._table.parent[block.row]
        return row == NONE or self._state[row] == COMMITTED

    def length_at(self, row: int) -> int:
        """Of the committed block in a row of the table; 0: there is none."""
        if self._table.state[row] == FREE or self._state[row] != COMMITTED:
            return 0
        return self._length[row]

    def keys_in(self, slab: Slab) -> list[bytes]:
        number = self._numbers.get(slab)
        rows = self._table.rows()
        return [self._table.index.key(row) for row in rows if self._slab[row] == number]

    def enter(self, block: Block, place: Place) -> None:
        """Of a block that was inserted just now."""
        row = block.row
        grow(row + 1, self._state, self._slab, self._at, self._length, self._checksum)
        self._slab[row] = self._number(place.slab)
        self._at[row], self._length[row] = place.at, place.length
        self._note(row, place)
        self._known[row] = place

    def commit(self, block: Block, place: Place, checksum: int) -> None:
        place.checksum = checksum
        place.committed = True
        self._note(block.row, place)

    def leave(self, block: Block) -> Place:
        """Of a block that has left its table just now."""
        place = self._place(block.row)
        self._known.pop(block.row, None)
        place.leave()
        return place

    def forget(self, slab: Slab) -> None:
        """Nothing is in it any more."""
        number = self._numbers.pop(slab, None)
        if number is not None:
            del self._slabs[number]

    # ---- inside

    def _note(self, row: int, place: Place) -> None:
        self._state[row] = COMMITTED if place.committed else PENDING
        self._checksum[row] = place.checksum

    def _number(self, slab: Slab) -> int:
        number = self._numbers.get(slab)
        if number is None:
            number = 0
            while number in self._slabs:
                number += 1
            self._slabs[number], self._numbers[slab] = slab, number
        return number

    def _place(self, row: int) -> Place:
        place = self._known.get(row)
        if place is None:
            slab, length = self._slabs[self._slab[row]], self._length[row]
            committed = self._state[row] == COMMITTED
            place = Place(
                slab, self._at[row], slab.granules_of(length), length, self._checksum[row],
                committed,
            )  # fmt: skip
            self._known[row] = place
        return place
