"""Packed forms: values of the index, and what segment files consist of.

Index values are little-endian and end with xxh3_64 of key + value (`seal`, `unseal`).

A segment file is a header of 64 bytes and then appends, each at a multiple of 8 bytes:

    header  magic "SFSSEG01", format 4, node 4, store 16, number 8, nonce 8, created ns 8,
            xxh3_64 of the above 8
    append  magic 4, kind 2, blocks 2, ino 8, data generation 4, chunk 4, offset 4, length 4,
            version 8, crc32c of each block 4 x blocks, check 8, the bytes, padding

`check` is xxh3_64 of everything before it, seeded with the segment's nonce + the append's place:
bytes that a client wrote can never pass for an append, nor an append at a wrong place.
`version` counts appends over all segments, without gaps: replay stops where it does not go on.
Fresh segments are zeros, so the end of the appends is a magic that is not there.

In a *paged* segment ("SFSSEG02": one that was lent to a client) appends begin at multiples of 4,096
bytes behind the first, in any order, with room between them; their bytes begin in the next page.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from crc32c import crc32c
from xxhash import xxh3_64_intdigest

from superfs.core.errors import Code, FsError
from superfs.core.limits import BLOCK_BYTES, CHUNK_BYTES, PAGE_BYTES
from superfs.data.extentmap import CRC_BYTES, Piece, block_count

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT_VERSION = 1
CHECKSUM_BYTES = 8
_MASK = (1 << 64) - 1

_CHECKSUM = struct.Struct("<Q")
_PIECE = struct.Struct("<QIIIIQ")
_SEGMENT = struct.Struct("<QQQB")
_CUT = struct.Struct("<QQqB")
_FENCE = struct.Struct("<Qq")
_POSITION = struct.Struct("<QQQ")
_STATS = struct.Struct("<QQ")
_BOOT = struct.Struct("<QQ")
_IDENTITY = struct.Struct("<II16s")
_HEADER = struct.Struct("<8sII16sQQq")
_APPEND = struct.Struct("<IHHQIIIIQ")

_MAGICS = {b"SFSSEG01": False, b"SFSSEG02": True}  # -> paged
_MAGIC_OF = {paged: magic for magic, paged in _MAGICS.items()}
_APPEND_MAGIC = 0x4E505041  # "APPN"
_KIND_DATA = 1
ALIGN_BYTES = 8
HEADER_BYTES = _HEADER.size + CHECKSUM_BYTES
APPEND_FIXED_BYTES = _APPEND.size + CHECKSUM_BYTES
APPEND_HEADER_BYTES_MAX = APPEND_FIXED_BYTES + CRC_BYTES * block_count(CHUNK_BYTES)
assert HEADER_BYTES == 64
assert APPEND_HEADER_BYTES_MAX <= PAGE_BYTES


class SegmentRecord(NamedTuple):
    length: int  # bytes in use, header included
    live: int
    created_ns: int
    sealed: bool


class CutRecord(NamedTuple):
    version: int  # pieces of older writes go
    size: int  # of the file; 0: the generation is reaped
    since_ns: int
    done: bool  # no such piece is left


class FenceRecord(NamedTuple):
    epoch: int
    since_ns: int


class Position(NamedTuple):
    """Everything before it is in the index: a place in a segment, and the last version."""

    segment: int
    offset: int
    version: int


class Boot(NamedTuple):
    """A start of the daemon, and the last version that it found on disk."""

    epoch: int
    survived: int


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose data this is: written once, compared at every start."""

    cluster: str
    node: int
    store: bytes  # 16 random bytes, in every segment too
    format: int = FORMAT_VERSION


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    number: int
    nonce: int
    created_ns: int
    node: int
    store: bytes
    paged: bool = False


class Append(NamedTuple):
    """What an append says about itself."""

    ino: int
    generation: int
    chunk: int
    offset: int
    length: int
    version: int
    crcs: bytes

    @property
    def header_bytes(self) -> int:
        return APPEND_FIXED_BYTES + len(self.crcs)


def seal(key: bytes, value: bytes) -> bytes:
    return value + _CHECKSUM.pack(xxh3_64_intdigest(key + value))


def unseal(table: str, key: bytes, sealed: bytes) -> bytes:
    """The value of a sealed record; DAMAGED when its checksum does not match."""
    value = sealed[:-CHECKSUM_BYTES]
    if len(sealed) < CHECKSUM_BYTES or checksum_of(sealed) != xxh3_64_intdigest(key + value):
        raise FsError(Code.DAMAGED, f"index: table {table}: record {key.hex()} has a bad checksum")
    return value


def checksum_of(sealed: bytes) -> int:
    (value,) = _CHECKSUM.unpack_from(sealed, len(sealed) - CHECKSUM_BYTES)
    return int(value)


def pack_piece(p: Piece) -> bytes:
    return _PIECE.pack(p.segment, p.blob, p.blob_length, p.skip, p.length, p.version) + p.crcs


def parse_piece(offset: int, value: bytes) -> Piece:
    segment, blob, blob_length, skip, length, version = _PIECE.unpack_from(value)
    crcs = value[_PIECE.size :]
    return Piece(offset, length, segment, blob, blob_length, skip, version, crcs)


def pack_segment(r: SegmentRecord) -> bytes:
    return _SEGMENT.pack(r.length, r.live, r.created_ns, r.sealed)


def parse_segment(value: bytes) -> SegmentRecord:
    length, live, created_ns, sealed = _SEGMENT.unpack(value)
    return SegmentRecord(length, live, created_ns, bool(sealed))


def pack_cut(r: CutRecord) -> bytes:
    return _CUT.pack(r.version, r.size, r.since_ns, r.done)


def parse_cut(value: bytes) -> CutRecord:
    version, size, since_ns, done = _CUT.unpack(value)
    return CutRecord(version, size, since_ns, bool(done))


def pack_fence(r: FenceRecord) -> bytes:
    return _FENCE.pack(*r)


def parse_fence(value: bytes) -> FenceRecord:
    return FenceRecord(*_FENCE.unpack(value))


def pack_position(p: Position) -> bytes:
    return _POSITION.pack(*p)


def parse_position(value: bytes) -> Position:
    return Position(*_POSITION.unpack(value))


def pack_boots(boots: Sequence[Boot]) -> bytes:
    return b"".join(_BOOT.pack(*boot) for boot in boots)


def parse_boots(value: bytes) -> tuple[Boot, ...]:
    return tuple(Boot(*fields) for fields in _BOOT.iter_unpack(value))


def pack_stats(count: int, checksums: int) -> bytes:
    return _STATS.pack(count, checksums)


def parse_stats(value: bytes) -> tuple[int, int]:
    count, checksums = _STATS.unpack(value)
    return count, checksums


def pack_number(number: int) -> bytes:
    return _CHECKSUM.pack(number)


def parse_number(value: bytes) -> int:
    (number,) = _CHECKSUM.unpack(value)
    return int(number)


def pack_identity(i: Identity) -> bytes:
    return _IDENTITY.pack(i.format, i.node, i.store) + i.cluster.encode()


def parse_identity(value: bytes) -> Identity:
    version, node, store = _IDENTITY.unpack_from(value)
    return Identity(value[_IDENTITY.size :].decode(), node, store, version)


def pack_header(h: SegmentHeader) -> bytes:
    fixed = _HEADER.pack(
        _MAGIC_OF[h.paged], FORMAT_VERSION, h.node, h.store, h.number, h.nonce, h.created_ns
    )
    return fixed + _CHECKSUM.pack(xxh3_64_intdigest(fixed))


def parse_header(data: bytes) -> SegmentHeader | None:
    """None when these bytes are not the header of a segment that this program knows."""
    if len(data) < HEADER_BYTES or checksum_of(data[:HEADER_BYTES]) != xxh3_64_intdigest(
        data[: _HEADER.size]
    ):
        return None
    magic, version, node, store, number, nonce, created_ns = _HEADER.unpack_from(data)
    if magic not in _MAGICS or version != FORMAT_VERSION:
        return None
    return SegmentHeader(number, nonce, created_ns, node, store, _MAGICS[magic])


def pack_append(a: Append, nonce: int, place: int) -> bytes:
    fixed = _APPEND.pack(
        _APPEND_MAGIC, _KIND_DATA, len(a.crcs) // CRC_BYTES,
        a.ino, a.generation, a.chunk, a.offset, a.length, a.version,
    )  # fmt: skip
    body = fixed + a.crcs
    return body + _CHECKSUM.pack(xxh3_64_intdigest(body, seed=(nonce + place) & _MASK))


def parse_append(data: bytes, nonce: int, place: int) -> Append | None:
    """The append whose header starts these bytes; None where there is none, or a torn one."""
    if len(data) < APPEND_FIXED_BYTES:
        return None
    magic, kind, blocks, ino, generation, chunk, offset, length, version = _APPEND.unpack_from(data)
    body = _APPEND.size + blocks * CRC_BYTES
    if magic != _APPEND_MAGIC or kind != _KIND_DATA or len(data) < body + CHECKSUM_BYTES:
        return None
    seed = (nonce + place) & _MASK
    if checksum_of(data[: body + CHECKSUM_BYTES]) != xxh3_64_intdigest(data[:body], seed=seed):
        return None
    crcs = data[_APPEND.size : body]
    return Append(ino, generation, chunk, offset, length, version, crcs)


def pack_column(kind: str, values: list[int]) -> bytes:
    """Little-endian numbers of one kind ("I" or "Q"), one behind the other: columns of listings."""
    return struct.pack(f"<{len(values)}{kind}", *values)


def append_header_bytes(length: int) -> int:
    """Of an append of so many bytes."""
    return APPEND_FIXED_BYTES + CRC_BYTES * block_count(length)


def aligned(length: int, to: int = ALIGN_BYTES) -> int:
    return (length + to - 1) & -to


def block_crcs(data: bytes | memoryview) -> bytes:
    """crc32c of each block of a blob, packed."""
    if len(data) <= BLOCK_BYTES:
        return crc32c(data).to_bytes(CRC_BYTES, "little")
    view = memoryview(data)
    sums = [crc32c(view[at : at + BLOCK_BYTES]) for at in range(0, len(view), BLOCK_BYTES)]
    return struct.pack(f"<{len(sums)}I", *sums)
