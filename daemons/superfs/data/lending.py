"""Segments that are lent to clients on this host, who write bytes there and then say what they are.

A lent segment is one client's alone. What it has written counts once it is *placed*: the daemon
puts the head of an append in front of it, as in front of any bytes, and from there everything is
as with any write: versions, pieces, replay, reads, compaction, all but the copying. The checksums
are the client's; who may borrow segments may read and write those files anyway (local.py), and
a checksum that is wrong makes its own bytes unreadable and, as long as the daemon lives, nobody
else's (docs/decisions/0028-lent-segments.md).

When it is given back, or its client is gone, a segment is sealed for good: a client that was
stopped and goes on writing there writes where nothing is, or again what it has placed already.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from superfs.core.errors import Code, FsError
from superfs.core.limits import PAGE_BYTES, PLACED_BYTES_MAX
from superfs.data import records
from superfs.data.extentmap import CRC_BYTES, Piece, block_count
from superfs.data.records import Append

if TYPE_CHECKING:
    from superfs.daemon.failpoints import Failpoints
    from superfs.data.keys import ChunkKey
    from superfs.data.segments import Segment, Segments

FREE_SEGMENTS_MIN = 8
"""Nothing is lent where fewer would still fit beside the reserve: what is lent and not used yet is
room that others do not have, and a full disk is to be met by the bytes that do not fit."""


class Placed(NamedTuple):
    """What a client says of bytes that it has written."""

    segment: int
    place: int
    offset: int  # in the chunk
    length: int
    crcs: bytes


@dataclass(slots=True)
class Lent:
    segment: Segment
    session: int
    starts: list[int] = field(default_factory=list)  # of what is placed, heads included, sorted
    ends: list[int] = field(default_factory=list)


class Lending:
    def __init__(self, segments: Segments, failpoints: Failpoints) -> None:
        self._segments = segments
        self._failpoints = failpoints
        self._lent: dict[int, Lent] = {}

    def __len__(self) -> int:
        return len(self._lent)

    def lend(self, session: int, promised_bytes: int) -> Segment:
        """NO_SPACE unless there is plenty."""
        segments = self._segments
        segments.room_for_client()
        keep = segments.reserve_bytes + FREE_SEGMENTS_MIN * segments.segment_bytes + promised_bytes
        segment = segments.create_paged(keep)
        self._lent[segment.number] = Lent(segment, session)
        self._failpoints.hit("datad.lend.after")
        return segment

    def place(self, session: int, key: ChunkKey, placed: Placed, version: int) -> Piece:
        """NOT_FOUND when that segment is not lent to this session (any more): the client sends the
        bytes themselves. INVALID for what no client of ours says. An OSError is fatal."""
        lent = self._lent.get(placed.segment)
        if lent is None or lent.session != session:
            raise FsError(Code.NOT_FOUND, "that segment is not lent to this session")
        head, end = self._room(lent, placed)
        segment, segments = lent.segment, self._segments
        entry = Append(*key, placed.offset, placed.length, version, placed.crcs)
        packed = records.pack_append(entry, segment.nonce, head)
        assert segment.file is not None, "it is open as long as it is lent"
        self._failpoints.hit("datad.place.before")
        segments.unsynced.add(segment.number)
        if os.pwrite(segment.file.fd, packed, head) != len(packed):
            raise OSError(f"{segment.path}: a head was written in part")
        self._failpoints.hit("datad.place.after")
        at = bisect_left(lent.starts, head)
        lent.starts.insert(at, head)
        lent.ends.insert(at, end)
        segment.length = max(segment.length, end)
        segments.changed.add(segment.number)
        length = placed.length
        return Piece(
            placed.offset, length, segment.number, placed.place, length, 0, version, placed.crcs
        )

    def _room(self, lent: Lent, placed: Placed) -> tuple[int, int]:
        """Where it begins with its head, and ends with its last page."""
        if placed.length > PLACED_BYTES_MAX:
            raise FsError(Code.TOO_LARGE, f"at most {PLACED_BYTES_MAX} bytes are placed at once")
        if not placed.length or len(placed.crcs) != block_count(placed.length) * CRC_BYTES:
            raise FsError(Code.INVALID, "a placed write has bytes, and a checksum of each block")
        head = placed.place - PAGE_BYTES
        end = records.aligned(placed.place + placed.length, PAGE_BYTES)
        if placed.place % PAGE_BYTES or head < PAGE_BYTES or end > lent.segment.size:
            raise FsError(Code.INVALID, f"no place in a lent segment: {placed.place}")
        at = bisect_left(lent.starts, head)
        before = lent.ends[at - 1] if at else 0
        behind = lent.starts[at] if at < len(lent.starts) else lent.segment.size
        if before > head or end > behind:
            raise FsError(Code.INVALID, "placed where something is placed already")
        return head, end

    def give_back(self, session: int, number: int) -> None:
        """Its client has placed all that it has written there: the rest goes back to the disk."""
        lent = self._lent.get(number)
        if lent is None or lent.session != session:
            return
        segment = lent.segment
        self.end(number)
        size = max(segment.length, PAGE_BYTES)
        if size < segment.size:
            os.truncate(segment.path, size)
            segment.size = size

    def end(self, number: int) -> None:
        """Nothing is placed there any more. Its client may still need what it has not placed, to
        send it, so all of it stays until it is compacted."""
        lent = self._lent.pop(number, None)
        if lent is not None:
            self._segments.retire(lent.segment)
