"""Where the bytes of a chunk lie in segments, packed: what a Locate is answered with.

    extent  offset 4, length 4, segment 8, place 8, blocks bytes 4, skip 4    (32 bytes each)

All little-endian, in order of offset. The crc32c of each block of 16 KiB stand beside them, 4 bytes
each: an extent has as many as it has blocks, the last of which may be short.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from superfs.core.errors import Code, FsError
from superfs.core.limits import BLOCK_BYTES, CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

CRC_BYTES = 4
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
    """BAD_FORMAT for what no data daemon of ours says."""
    if len(places) % _EXTENT.size:
        raise FsError(Code.BAD_FORMAT, "extents of another version")
    found: list[Extent] = []
    at = end = 0
    for offset, length, segment, place, blocks_bytes, skip in _EXTENT.iter_unpack(places):
        size = CRC_BYTES * (-(-blocks_bytes // BLOCK_BYTES))
        good = length and end <= offset and offset + length <= CHUNK_BYTES
        if not good or skip + length > blocks_bytes or at + size > len(crcs):
            raise FsError(Code.BAD_FORMAT, "extents that contradict themselves")
        found.append(
            Extent(offset, length, segment, place, blocks_bytes, skip, crcs[at : at + size])
        )
        at += size
        end = offset + length
    if at != len(crcs):
        raise FsError(Code.BAD_FORMAT, "checksums of no extent")
    return tuple(found)
