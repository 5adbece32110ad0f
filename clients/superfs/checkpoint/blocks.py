"""Bytes on their way into a file: hashed block by block while they are in the processor's cache,
written many together. No torch: the writer process uses it too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xxhash

from superfs.checkpoint.limits import ALIGN_BYTES, BLOCK_BYTES

if TYPE_CHECKING:
    from superfs.checkpoint.extentio import Sink

_ZEROS = memoryview(bytes(ALIGN_BYTES))


class BlockWriter:
    """Writes pieces at rising offsets; what lies between them is filled with zeros."""

    def __init__(self, sink: Sink, start: int = 0) -> None:
        """`start`: what lies before is not its concern."""
        self._sink = sink
        self._waiting: list[memoryview] = []
        self._start = self._end = start

    def write(self, piece: memoryview, offset: int) -> list[int]:
        """The hashes of its blocks. `piece` must stay as it is until `flush`."""
        gap = offset - self._end
        assert gap >= 0
        if gap > ALIGN_BYTES:
            self.flush()
            self._start = self._end = offset
        elif gap:
            self._add(_ZEROS[:gap])
        hashes = []
        for at in range(0, len(piece), BLOCK_BYTES):
            block = piece[at : at + BLOCK_BYTES]
            hashes.append(xxhash.xxh3_64_intdigest(block))
            self._add(block)
        return hashes

    def _add(self, data: memoryview) -> None:
        self._waiting.append(data)
        self._end += len(data)
        if self._end - self._start >= BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._waiting:
            self._sink.pwrite(self._waiting, self._start)
            self._waiting = []
        self._start = self._end
