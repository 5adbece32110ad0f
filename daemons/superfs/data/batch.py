"""What one commit of the index changes, and its application in one write transaction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from superfs.data import keys, records
from superfs.data.keys import CUT, EXTENT, FENCE, SEGMENT, ChunkKey, FileKey
from superfs.data.records import (
    Boot,
    CutRecord,
    FenceRecord,
    Position,
    SegmentRecord,
    checksum_of,
    seal,
)

if TYPE_CHECKING:
    from superfs.data.extentmap import Piece, Pieces

SUM_MASK = (1 << 64) - 1

ChunkChange = tuple[ChunkKey, "Pieces", "Pieces"]
"""A chunk, its pieces as they were in the index, and as they are now."""


@dataclass(slots=True)
class Batch:
    """What one commit changes. None deletes a record."""

    position: Position
    chunks: list[ChunkChange] = field(default_factory=list)
    segments: dict[int, SegmentRecord | None] = field(default_factory=dict)
    cuts: dict[FileKey, CutRecord | None] = field(default_factory=dict)
    fences: dict[int, FenceRecord | None] = field(default_factory=dict)
    boots: tuple[Boot, ...] = ()  # none: as they were


class BatchWriter:
    """Changes in one write transaction; keeps the tallies in step."""

    def __init__(
        self,
        txn: Any,  # noqa: ANN401 - lmdb has no types
        db: dict[str, Any],
        tally: dict[str, tuple[int, int]],
    ) -> None:
        self._txn = txn
        self._db = db
        self.tally = tally

    def apply(self, batch: Batch) -> None:
        for key, old, new in batch.chunks:
            self._chunk(key, old, new)
        for number, segment in batch.segments.items():
            value = None if segment is None else records.pack_segment(segment)
            self._set(SEGMENT, keys.pack_number(number), value)
        for file, cut in batch.cuts.items():
            value = None if cut is None else records.pack_cut(cut)
            self._set(CUT, keys.pack_file(*file), value)
        for session, fence in batch.fences.items():
            value = None if fence is None else records.pack_fence(fence)
            self._set(FENCE, keys.pack_number(session), value)

    def _chunk(self, key: ChunkKey, old: Pieces, new: Pieces) -> None:
        before: dict[int, Piece] = {p.offset: p for p in old}
        for piece in new:
            if before.pop(piece.offset, None) != piece:
                name = keys.pack_extent(*key, piece.offset)
                self._set(EXTENT, name, records.pack_piece(piece))
        for offset in before:
            self._set(EXTENT, keys.pack_extent(*key, offset), None)

    def _set(self, table: str, key: bytes, value: bytes | None) -> None:
        count, total = self.tally[table]
        if value is None:
            old = self._txn.pop(key, db=self._db[table])
        else:
            sealed = seal(key, value)
            old = self._txn.replace(key, sealed, db=self._db[table])
            count += 1
            total += checksum_of(sealed)
        if old is not None:
            count -= 1
            total -= checksum_of(old)
        self.tally[table] = (count, total & SUM_MASK)
