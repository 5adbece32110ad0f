"""Where the bytes of a chunk lie in segments, packed: what a Locate is answered with.

    extent  offset 4, length 4, segment 8, place 8, blocks bytes 4, skip 4    (32 bytes each)

All little-endian, in order of offset. The crc32c of each block of 16 KiB stand beside them, 4 bytes
each: an extent has as many as it has blocks, the last of which may be short.
"""

from __future__ import annotations

import struct
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from superfs.core.errors import Code, FsError
from superfs.core.limits import BLOCK_BYTES, CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CRC_BYTES = 4
NOT_SAID = 0xFFFFFFFF
"""In place of a number of extents (LocatedMany)."""
_EXTENT = struct.Struct("<IIQQII")


class Extent(NamedTuple):
    offset: int  # of the first byte, in the chunk
    length: int
    segment: int
    place: int  # where the first block starts, in the segment's file
    blocks_bytes: int
    skip: int  # the bytes start that far behind `place`
    crcs: bytes  # of the blocks

    @property
    def end(self) -> int:
        return self.offset + self.length


def pack(extents: Iterable[Extent]) -> tuple[bytes, bytes]:
    """(extents, their checksums)."""
    places: list[bytes] = []
    crcs: list[bytes] = []
    for e in extents:
        places.append(_EXTENT.pack(e.offset, e.length, e.segment, e.place, e.blocks_bytes, e.skip))
        crcs.append(e.crcs)
    return b"".join(places), b"".join(crcs)


def parse(places: bytes, crcs: bytes) -> tuple[Extent, ...]:
    """Of one chunk. BAD_FORMAT for what no data daemon of ours says."""
    (found,) = parse_many((len(places) // _EXTENT.size,), places, crcs)
    return found


def parse_many(counts: Sequence[int], places: bytes, crcs: bytes) -> list[tuple[Extent, ...]]:
    """As `parse`, of so many extents of each chunk; NOT_SAID: none are here."""
    if len(places) % _EXTENT.size:
        raise FsError(Code.BAD_FORMAT, "extents of another version")
    rows = _EXTENT.iter_unpack(places)
    found: list[tuple[Extent, ...]] = []
    at = 0
    for count in counts:
        chunk: list[Extent] = []
        end = 0
        for row in islice(rows, 0 if count == NOT_SAID else count):
            offset, length, segment, place, blocks_bytes, skip = row
            size = CRC_BYTES * (-(-blocks_bytes // BLOCK_BYTES))
            good = length and end <= offset and offset + length <= CHUNK_BYTES
            if not good or skip + length > blocks_bytes or at + size > len(crcs):
                raise FsError(Code.BAD_FORMAT, "extents that contradict themselves")
            chunk.append(
                Extent(offset, length, segment, place, blocks_bytes, skip, crcs[at : at + size])
            )
            at += size
            end = offset + length
        if count not in (len(chunk), NOT_SAID):
            raise FsError(Code.BAD_FORMAT, "fewer extents than there should be")
        found.append(tuple(chunk))
    if at != len(crcs) or next(rows, None) is not None:
        raise FsError(Code.BAD_FORMAT, "extents or checksums of nothing")
    return found
