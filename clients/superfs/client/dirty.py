"""Bytes of one file that were written here and are not sent yet: pure bookkeeping, no IO.

Extents are sorted and do not overlap. Small ones do not touch either: they are joined, so that many
small writes in a row become one message. A large one is kept as it was given, without a copy, and
stands alone until something is written over a part of it.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from superfs.client.lent import Placed
from superfs.client.sharedmem import lengthened
from superfs.core.limits import KIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Data = bytes | bytearray | memoryview | Placed
Extent = tuple[int, Data]

LARGE_BYTES = 128 * KIB
PLACED_BYTES = 1 * KIB
"""What a write takes of memory whose bytes lie where they will stay."""


class DirtyExtents:
    def __init__(self, large_bytes: int = LARGE_BYTES) -> None:
        self._large_bytes = large_bytes
        self._starts: list[int] = []
        self._datas: list[Data] = []
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def end(self) -> int:
        """Behind the last byte; 0 when there is none."""
        return self._starts[-1] + len(self._datas[-1]) if self._starts else 0

    def write(self, offset: int, data: Data) -> None:
        """A large `data` is kept as it is: nobody may change it any more."""
        if not len(data):
            return
        end = offset + len(data)
        large = len(data) >= self._large_bytes
        if self._starts and offset == self.end and not large:
            last = self._datas[-1]
            if isinstance(last, bytearray):
                last += plain(data)
                self.bytes += len(data)
                return
            longer = lengthened(last, plain(data))
            if longer is not None:  # the end of a write whose memory does not begin with a page
                self._datas[-1] = longer
                self.bytes += len(data)
                return
        first, last_index = self._joinable(offset, end, large)
        if first == last_index:
            self._starts.insert(first, offset)
            self._datas.insert(first, data if large else bytearray(plain(data)))
            self.bytes += len(data)
            return
        start = min(offset, self._starts[first])
        only = self._datas[first]
        if last_index - first == 1 and start == self._starts[first] and isinstance(only, bytearray):
            self._overwrite(only, offset - start, data)
            return
        stop = max(end, self._starts[last_index - 1] + len(self._datas[last_index - 1]))
        joined = bytearray(stop - start)
        for i in range(first, last_index):
            at = self._starts[i] - start
            joined[at : at + len(self._datas[i])] = plain(self._datas[i])
            self.bytes -= len(self._datas[i])
        joined[offset - start : end - start] = plain(data)
        self._starts[first:last_index] = [start]
        self._datas[first:last_index] = [joined]
        self.bytes += len(joined)

    def _overwrite(self, old: bytearray, at: int, data: Data) -> None:
        before = len(old)
        old[at : at + len(data)] = plain(data)
        self.bytes += len(old) - before

    def _joinable(self, offset: int, end: int, large: bool) -> tuple[int, int]:
        """The range of extents that overlap [offset, end), and of those that touch it where both
        are small."""
        first = bisect_right(self._starts, offset)
        if first and self._reaches(first - 1, offset, large):
            first -= 1
        last = bisect_right(self._starts, end)
        if last > first and self._starts[last - 1] == end and self._stands_alone(last - 1, large):
            last -= 1
        return first, max(first, last)

    def _reaches(self, index: int, offset: int, large: bool) -> bool:
        stop = self._starts[index] + len(self._datas[index])
        return stop > offset or (stop == offset and not self._stands_alone(index, large))

    def _stands_alone(self, index: int, large: bool) -> bool:
        return large or not isinstance(self._datas[index], bytearray)

    @property
    def memory_bytes(self) -> int:
        return sum(map(in_memory, self._datas))

    def overlapping(self, offset: int, length: int) -> list[Extent]:
        """Copies of what lies in [offset, offset + length)."""
        end = offset + length
        found: list[Extent] = []
        index = max(0, bisect_right(self._starts, offset) - 1)
        while index < len(self._starts) and self._starts[index] < end:
            start, data = self._starts[index], self._datas[index]
            low, high = max(offset, start), min(end, start + len(data))
            if low < high:
                found.append((low, bytes(data[low - start : high - start])))
            index += 1
        return found

    def truncate(self, size: int) -> None:
        while self._starts and self._starts[-1] >= size:
            self.bytes -= len(self._datas.pop())
            self._starts.pop()
        if self._starts and self.end > size:
            self.bytes -= self.end - size
            self._datas[-1] = bytearray(self._datas[-1][: size - self._starts[-1]])

    def take(self) -> list[Extent]:
        """Everything; afterwards this is empty."""
        taken = list(zip(self._starts, self._datas, strict=True))
        self.clear()
        return taken

    def clear(self) -> None:
        self._starts.clear()
        self._datas.clear()
        self.bytes = 0

    def put_under(self, older: Sequence[Extent]) -> None:
        """What was taken earlier, oldest first, comes back; what was written since stays on top."""
        newer = self.take()
        for offset, data in (*older, *newer):
            self.write(offset, bytes(data) if isinstance(data, bytearray) else data)


def plain(data: Data) -> bytes | bytearray | memoryview:
    """To be copied from."""
    return bytes(data) if isinstance(data, Placed) else data


def in_memory(data: Data) -> int:
    """How much of this client's memory they take."""
    return PLACED_BYTES if isinstance(data, Placed) else len(data)


def overlay(base: bytes, offset: int, extents: Iterable[Extent]) -> bytes:
    """`base`, which starts at `offset`, with extents on top, in their order."""
    buffer: bytearray | None = None
    for start, data in extents:
        low, high = max(start, offset), min(start + len(data), offset + len(base))
        if low >= high:
            continue
        if high - low == len(base):
            buffer = bytearray(data[low - start : high - start])
            continue
        if buffer is None:
            buffer = bytearray(base)
        buffer[low - offset : high - offset] = data[low - start : high - start]
    return base if buffer is None else bytes(buffer)


def merge(contents: bytes, writes: Sequence[Extent]) -> bytes:
    """Whole contents after these writes, zeros in the holes."""
    merged = bytearray(contents)
    for offset, data in writes:
        if len(merged) < offset:
            merged.extend(bytes(offset - len(merged)))
        merged[offset : offset + len(data)] = plain(data)
    return bytes(merged)


def covers(extents: Sequence[Extent], offset: int, length: int) -> bool:
    """Whether one of them has it all: then nothing below needs to be read."""
    return any(start <= offset and start + len(d) >= offset + length for start, d in extents)
