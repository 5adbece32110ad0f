"""Lines of rows, linked through two columns: a row is in one of them, or in none."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from superfs.core.kvcache.digests import NONE, DigestIndex, grow

if TYPE_CHECKING:
    from collections.abc import Iterator


class Lines:
    __slots__ = ("_after", "_before", "_heads", "_tails", "counts", "line")

    def __init__(self, lines: int) -> None:
        self.line = array("B")  # which one a row is in
        self.counts = [0] * lines
        self._before = array("i")
        self._after = array("i")
        self._heads = [NONE] * lines
        self._tails = [NONE] * lines

    def head(self, line: int) -> int:
        """The row that came first, or NONE."""
        return self._heads[line]

    def rows(self, line: int) -> Iterator[int]:
        row = self._heads[line]
        while row != NONE:
            yield row
            row = self._after[row]

    def append(self, row: int, line: int) -> None:
        """A row that is in no line."""
        grow(row + 1, self.line, self._before, self._after)
        tail = self._tails[line]
        self._before[row], self._after[row] = tail, NONE
        if tail == NONE:
            self._heads[line] = row
        else:
            self._after[tail] = row
        self._tails[line] = row
        self.line[row] = line
        self.counts[line] += 1

    def remove(self, row: int) -> None:
        line, before, after = self.line[row], self._before[row], self._after[row]
        if before == NONE:
            self._heads[line] = after
        else:
            self._after[before] = after
        if after == NONE:
            self._tails[line] = before
        else:
            self._before[after] = before
        self.counts[line] -= 1


class Ghost:
    """Keys that have left, and what is to be known of each: a kind and a time. Of so many keys at
    most; then the one goes that came first."""

    __slots__ = ("_index", "_kinds", "_line", "_most", "_times")

    def __init__(self, most: int) -> None:
        self._most = most
        self._index = DigestIndex()
        self._line = Lines(1)
        self._kinds = array("B")
        self._times = array("Q")

    def __len__(self) -> int:
        return len(self._index)

    def add(self, key: bytes, kind: int = 0, time: int = 0) -> tuple[int, int] | None:
        """What was known of the one that has to go for it."""
        row = self._index.add(key)
        grow(row + 1, self._kinds, self._times)
        self._kinds[row], self._times[row] = kind, time
        self._line.append(row, 0)
        return self._take(self._line.head(0)) if len(self) > self._most else None

    def pop(self, key: bytes) -> tuple[int, int] | None:
        row = self._index.find(key)
        return self._take(row) if row >= 0 else None

    def known(self) -> list[tuple[int, int]]:
        return [(self._kinds[row], self._times[row]) for row in self._line.rows(0)]

    def _take(self, row: int) -> tuple[int, int]:
        self._line.remove(row)
        self._index.remove(row)
        return self._kinds[row], self._times[row]
