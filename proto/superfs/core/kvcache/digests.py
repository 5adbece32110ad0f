"""Rows of a table by 16-byte digests: an open-addressing index beside one column of keys.

A row's number is its place in all columns of its table. A row that was given back is the next that
is given. The cells (number of a row and 1; 0: free) are in 256 parts that grow one by one, so that
a million keys never wait for all cells to be made anew. Linear probing; removal moves back what
would not be found any more, so that there are no marks of what once was.
"""

from __future__ import annotations

from array import array

DIGEST_BYTES = 16
PARTS = 256
PART_BITS = 8
CELLS_MIN = 8
NONE = -1  # no row

_NOTHING = array("I", [0])  # of every part before its first key; never written


class DigestIndex:
    __slots__ = ("_counts", "_free", "_keys", "_parts", "rows")

    def __init__(self) -> None:
        self.rows = 0  # that columns must have
        self._keys = bytearray()
        self._parts = [_NOTHING] * PARTS
        self._counts = array("I", bytes(4 * PARTS))
        self._free = array("I")

    def __len__(self) -> int:
        return self.rows - len(self._free)

    def find(self, key: bytes) -> int:
        """Its row, or NONE."""
        hashed = hash(key)
        cells = self._parts[hashed & (PARTS - 1)]
        mask = len(cells) - 1
        at = (hashed >> PART_BITS) & mask
        keys = self._keys
        while row := cells[at]:
            if keys[DIGEST_BYTES * (row - 1) : DIGEST_BYTES * row] == key:
                return row - 1
            at = (at + 1) & mask
        return NONE

    def key(self, row: int) -> bytes:
        """Also of a row that was given back, until it is given again."""
        return bytes(self._keys[DIGEST_BYTES * row : DIGEST_BYTES * (row + 1)])

    def keys(self, first: int, count: int) -> bytes:
        """Of so many rows, one behind the other."""
        return bytes(self._keys[DIGEST_BYTES * first : DIGEST_BYTES * (first + count)])

    def add(self, key: bytes) -> int:
        """A row for a key that has none. Columns may have to grow to `rows`."""
        assert len(key) == DIGEST_BYTES
        if self._free:
            row = self._free.pop()
            self._keys[DIGEST_BYTES * row : DIGEST_BYTES * (row + 1)] = key
        else:
            row = self.rows
            self.rows += 1
            self._keys += key
        hashed = hash(key)
        part = hashed & (PARTS - 1)
        self._counts[part] += 1
        if 3 * self._counts[part] > 2 * len(self._parts[part]):
            self._grow(part)
        _enter(self._parts[part], hashed, row)
        return row

    def remove(self, row: int) -> None:
        hashed = hash(self.key(row))
        part = hashed & (PARTS - 1)
        cells = self._parts[part]
        mask = len(cells) - 1
        at = (hashed >> PART_BITS) & mask
        while cells[at] != row + 1:
            assert cells[at], "no such row"
            at = (at + 1) & mask
        hole = at
        while other := cells[at := (at + 1) & mask]:
            home = (hash(self.key(other - 1)) >> PART_BITS) & mask
            if (at - home) & mask >= (at - hole) & mask:
                cells[hole] = other
                hole = at
        cells[hole] = 0
        self._counts[part] -= 1
        self._free.append(row)

    def _grow(self, part: int) -> None:
        before = self._parts[part]
        cells = array("I", bytes(4 * max(CELLS_MIN, 2 * len(before))))
        for row in before:
            if row:
                _enter(cells, hash(self.key(row - 1)), row - 1)
        self._parts[part] = cells


def _enter(cells: array[int], hashed: int, row: int) -> None:
    mask = len(cells) - 1
    at = (hashed >> PART_BITS) & mask
    while cells[at]:
        at = (at + 1) & mask
    cells[at] = row + 1


def grow(rows: int, *columns: array[int]) -> None:
    """To at least so many rows, new ones zero; by a part at a time, so that it is seldom done."""
    have = len(columns[0])
    if have < rows:
        more = rows - have + rows // 32
        for column in columns:
            column.frombytes(bytes(column.itemsize * more))


assert array("I").itemsize == array("i").itemsize == 4
assert array("Q").itemsize == 8
