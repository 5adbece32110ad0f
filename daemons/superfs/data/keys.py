"""Keys of the index of a data daemon, and what its tables mean.

The index is one LMDB environment. Integers in keys are big-endian, so that the order of bytes is
the order of tuples; everything of one file, and of one chunk, is a contiguous range.

    table    key                                      value (records.py)
    extent   ino 8, data generation 4, chunk 4,       Piece: visible part of a blob in a segment
             offset in the chunk 4
    segment  segment number 8                         SegmentRecord: length, live bytes, sealed
    cut      ino 8, data generation 4                 CutRecord: a truncate being finished, or a
                                                      reaped generation (its tombstone)
    fence    session 8                                FenceRecord: lowest epoch still let in
    meta     name                                     identity, position, stats/<table>, allocated,
                                                      boots

* Pieces of one chunk never overlap; what no piece covers reads as zeros.
* `position` says up to where the segments are reflected in `extent`; what was appended behind it
  is replayed at start (recovery.py).
* `stats/<table>` holds the number of records of a table and the sum of their checksums modulo
  2^64: a record that is absent is noticed, not only one that is damaged.
* `boots` are the last starts of the daemon, and up to which version each found the appends of the
  one before it: what clients need to know about writes that they have not seen committed.
* A cut with `size` > 0 lives until its pieces are gone. A cut of size 0 is a tombstone: it stays
  for a while after that, so that a late write does not bring the generation back.
* The live bytes of a segment are the lengths of the pieces in it, derived: a check recounts them.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

EXTENT = "extent"
SEGMENT = "segment"
CUT = "cut"
FENCE = "fence"
META = "meta"
TABLES = (EXTENT, SEGMENT, CUT, FENCE)
"""The tables that keep statistics; META holds them."""

META_IDENTITY = b"identity"
META_POSITION = b"position"
META_ALLOCATED = b"allocated"
META_BOOTS = b"boots"


class FileKey(NamedTuple):
    """One data generation of one inode: what a reap drops."""

    ino: int
    generation: int


class ChunkKey(NamedTuple):
    ino: int
    generation: int
    chunk: int

    @property
    def file(self) -> FileKey:
        return FileKey(self.ino, self.generation)


_EXTENT = struct.Struct(">QIII")
_CHUNK = struct.Struct(">QII")
_FILE = struct.Struct(">QI")
_NUMBER = struct.Struct(">Q")

FILE_PREFIX_BYTES = _FILE.size


def pack_extent(ino: int, generation: int, chunk: int, offset: int) -> bytes:
    return _EXTENT.pack(ino, generation, chunk, offset)


def parse_extent(key: bytes) -> tuple[ChunkKey, int]:
    ino, generation, chunk, offset = _EXTENT.unpack(key)
    return ChunkKey(ino, generation, chunk), offset


def pack_chunk(ino: int, generation: int, chunk: int) -> bytes:
    """The prefix of all extents of a chunk."""
    return _CHUNK.pack(ino, generation, chunk)


def pack_file(ino: int, generation: int) -> bytes:
    """The key of a cut, and the prefix of all extents of a data generation."""
    return _FILE.pack(ino, generation)


def parse_file(key: bytes) -> FileKey:
    return FileKey(*_FILE.unpack(key[:FILE_PREFIX_BYTES]))


def pack_number(number: int) -> bytes:
    return _NUMBER.pack(number)


def parse_number(key: bytes) -> int:
    (number,) = _NUMBER.unpack(key)
    return int(number)


def meta_stats(table: str) -> bytes:
    return b"stats/" + table.encode()
