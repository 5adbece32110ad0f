"""Rows that may be evicted, in the order in which they would be: a heap of rows, and a column that
says where in it each of them is. Several heaps may share the column: a row is in one at a time."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from superfs.core.kvcache.digests import NONE, grow

if TYPE_CHECKING:
    from collections.abc import Callable


class Ranking:
    __slots__ = ("_heap", "_places", "_rank")

    def __init__(self, rank: Callable[[int], Any], places: array[int] | None = None) -> None:
        """`rank` of a row: lowest first. It changes only where `put` follows."""
        self._rank = rank
        self._heap = array("I")
        self._places = array("I") if places is None else places  # and 1; 0: in no heap

    def put(self, row: int) -> None:
        """A row that is in moves to where it belongs now."""
        grow(row + 1, self._places)
        at = self._places[row] - 1
        if at < 0:
            at = len(self._heap)
            self._heap.append(row)
        self._down(self._up(at))

    def discard(self, row: int) -> None:
        at = self._places[row] - 1 if row < len(self._places) else NONE
        if at < 0:
            return
        self._places[row] = 0
        last = self._heap.pop()
        if last != row:
            self._heap[at] = last
            self._down(self._up(at))

    def first(self) -> int:
        """The row to go next, or NONE. It stays in."""
        return self._heap[0] if self._heap else NONE

    def _up(self, at: int) -> int:
        heap, places, rank = self._heap, self._places, self._rank
        row = heap[at]
        mine = rank(row)
        while at:
            above = (at - 1) >> 1
            other = heap[above]
            if rank(other) <= mine:
                break
            heap[at] = other
            places[other] = at + 1
            at = above
        heap[at] = row
        places[row] = at + 1
        return at

    def _down(self, at: int) -> None:
        heap, places, rank = self._heap, self._places, self._rank
        row, size = heap[at], len(heap)
        mine = rank(row)
        while (below := 2 * at + 1) < size:
            other = heap[below]
            lowest = rank(other)
            if below + 1 < size and (right := rank(heap[below + 1])) < lowest:
                below, lowest = below + 1, right
                other = heap[below]
            if mine <= lowest:
                break
            heap[at] = other
            places[other] = at + 1
            at = below
        heap[at] = row
        places[row] = at + 1
