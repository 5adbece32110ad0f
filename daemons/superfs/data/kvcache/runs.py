"""Free room of a slab, in runs of granules: first fit, neighbours joined."""

from __future__ import annotations

from bisect import bisect_left


class Runs:
    def __init__(self, granules: int) -> None:
        self._starts = [0] if granules else []
        self._lengths = [granules] if granules else []
        self.free = granules

    def take(self, count: int) -> int | None:
        """The first of so many that lie together; None: there are none."""
        if count > self.free:
            return None
        for at, length in enumerate(self._lengths):
            if length >= count:
                start = self._starts[at]
                if length == count:
                    del self._starts[at], self._lengths[at]
                else:
                    self._starts[at] += count
                    self._lengths[at] -= count
                self.free -= count
                return start
        return None

    def take_at(self, start: int, count: int) -> bool:
        """These; False if they are not all free."""
        at = bisect_left(self._starts, start + 1) - 1
        if at < 0 or count < 1:
            return False
        first, length = self._starts[at], self._lengths[at]
        if start + count > first + length:
            return False
        parts = [(first, start - first), (start + count, first + length - start - count)]
        left = [part for part in parts if part[1]]
        self._starts[at : at + 1] = [part[0] for part in left]
        self._lengths[at : at + 1] = [part[1] for part in left]
        self.free -= count
        return True

    def give(self, start: int, count: int) -> None:
        at = bisect_left(self._starts, start)
        assert at == 0 or self._starts[at - 1] + self._lengths[at - 1] <= start, "given twice"
        assert at == len(self._starts) or start + count <= self._starts[at], "given twice"
        self.free += count
        joins_next = at < len(self._starts) and start + count == self._starts[at]
        if joins_next:
            count += self._lengths[at]
        if at and self._starts[at - 1] + self._lengths[at - 1] == start:
            self._lengths[at - 1] += count
            if joins_next:
                del self._starts[at], self._lengths[at]
        elif joins_next:
            self._starts[at], self._lengths[at] = start, count
        else:
            self._starts.insert(at, start)
            self._lengths.insert(at, count)
