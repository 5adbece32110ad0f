"""Bytes of one file that were written here and are not sent yet: pure bookkeeping, no IO.

Extents are sorted, do not overlap and do not touch: what touches is joined, so that many small
writes in a row become one message.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Extent = tuple[int, bytes]


class DirtyExtents:
    def __init__(self) -> None:
        self._starts: list[int] = []
        self._datas: list[bytearray] = []
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def end(self) -> int:
        """Behind the last byte; 0 when there is none."""
        return self._starts[-1] + len(self._datas[-1]) if self._starts else 0

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        if not len(data):
            return
        end = offset + len(data)
        if self._starts and offset == self.end:
            self._datas[-1] += data
            self.bytes += len(data)
            return
        first, last = self._touching(offset, end)
        if first == last:
            self._starts.insert(first, offset)
            self._datas.insert(first, bytearray(data))
            self.bytes += len(data)
            return
        start = min(offset, self._starts[first])
        if last - first == 1 and start == self._starts[first]:
            self._overwrite(first, offset - start, data)
            return
        stop = max(end, self._starts[last - 1] + len(self._datas[last - 1]))
        joined = bytearray(stop - start)
        for i in range(first, last):
            at = self._starts[i] - start
            joined[at : at + len(self._datas[i])] = self._datas[i]
            self.bytes -= len(self._datas[i])
        joined[offset - start : end - start] = data
        self._starts[first:last] = [start]
        self._datas[first:last] = [joined]
        self.bytes += len(joined)

    def _overwrite(self, index: int, at: int, data: bytes | bytearray | memoryview) -> None:
        old = self._datas[index]
        before = len(old)
        old[at : at + len(data)] = data
        self.bytes += len(old) - before

    def _touching(self, offset: int, end: int) -> tuple[int, int]:
        """The range of extents that overlap or touch [offset, end)."""
        first = bisect_right(self._starts, offset)
        if first and self._starts[first - 1] + len(self._datas[first - 1]) >= offset:
            first -= 1
        last = bisect_right(self._starts, end)
        return first, max(first, last)

    def overlapping(self, offset: int, length: int) -> list[Extent]:
        """Copies of what lies in [offset, offset + length)."""
        end = offset + length
        found = []
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
            cut = self.end - size
            del self._datas[-1][-cut:]
            self.bytes -= cut

    def take(self) -> list[Extent]:
        """Everything; afterwards this is empty."""
        taken = [
            (start, bytes(data)) for start, data in zip(self._starts, self._datas, strict=True)
        ]
        self.clear()
        return taken

    def clear(self) -> None:
        self._starts.clear()
        self._datas.clear()
        self.bytes = 0

    def put_under(self, older: Sequence[Extent]) -> None:
        """What was taken earlier, oldest first, comes back; what was written since stays on top."""
        newer = self.take()
        for offset, data in older:
            self.write(offset, data)
        for offset, data in newer:
            self.write(offset, data)


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
        merged[offset : offset + len(data)] = data
    return bytes(merged)


def covers(extents: Sequence[Extent], offset: int, length: int) -> bool:
    """Whether one of them has it all: then nothing below needs to be read."""
    return any(start <= offset and start + len(d) >= offset + length for start, d in extents)
