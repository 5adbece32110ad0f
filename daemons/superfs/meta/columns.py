"""Attributes, listings and outcomes to protobuf, and columns from clients back to entries.

Columns come from outside: whatever does not add up is BAD_REQUEST, whatever is too much TOO_LARGE.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from superfs.core.attrs import PACKED_ATTR_BYTES, Attr, pack_attr, unpack_attr
from superfs.core.errors import Code, FsError
from superfs.core.limits import (
    CHAINS_PER_FILE_MAX,
    INLINE_BYTES_MAX,
    MANY_ENTRIES_MAX,
    TOUCH_INODES_MAX,
)
from superfs.core.namespace.outcome import Entry, Outcome
from superfs.core.namespace.txn import Ref
from superfs.v1 import common_pb2, meta_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

NOT_SENT = 0xFFFFFFFF
NAME_LENGTH_BYTES = 2
_U16 = struct.Struct("<H")
CHAIN_ID_MAX = 0xFFFE
NO_ATTR = bytes(PACKED_ATTR_BYTES)
"""In the place of an entry that failed."""


def encode_attr(a: Attr) -> common_pb2.Attr:
    return common_pb2.Attr(
        ino=a.ino,
        generation=a.generation,
        place=a.place,
        mode=a.mode,
        nlink=a.nlink,
        uid=a.uid,
        gid=a.gid,
        size=a.size,
        rdev=a.rdev,
        atime_ns=a.atime_ns,
        mtime_ns=a.mtime_ns,
        ctime_ns=a.ctime_ns,
        btime_ns=a.btime_ns,
        flags=a.flags,
        data_generation=a.data_generation,
        change=a.change,
        chains=a.chains,
    )


def encode_outcome(outcome: Outcome) -> meta_pb2.Result:
    """Entries go as a listing: the verbs that make none do not have any."""
    result = meta_pb2.Result(
        data=outcome.data,
        number=outcome.number,
        more=outcome.more,
        capability=outcome.capability,
        dirs=[encode_attr(a) for a in outcome.dirs],
    )
    if outcome.attr is not None:
        result.attr.CopyFrom(encode_attr(outcome.attr))
    if outcome.other is not None:
        result.other.CopyFrom(encode_attr(outcome.other))
    if outcome.listing is not None:
        result.listing.CopyFrom(outcome.listing)
    elif outcome.entries:
        result.listing.CopyFrom(encode_listing(outcome.entries))
    if outcome.fs_stat is not None:
        stat = outcome.fs_stat
        result.fs_stat.bytes_total = stat.bytes_total
        result.fs_stat.bytes_free = stat.bytes_free
        result.fs_stat.inodes_used = stat.inodes_used
        result.fs_stat.inodes_free = stat.inodes_free
    return result


def encode_listing(entries: Sequence[Entry]) -> meta_pb2.Listing:
    count = len(entries)
    listing = meta_pb2.Listing(
        count=count,
        names=pack_names([entry.name for entry in entries]),
        types=bytes(e.type for e in entries),
        inos=struct.pack(f"<{count}Q", *(e.ino for e in entries)),
    )
    if any(e.attr is not None for e in entries):
        listing.attrs = b"".join(NO_ATTR if e.attr is None else pack_attr(e.attr) for e in entries)
    if any(e.inline is not None for e in entries):
        lengths = (NOT_SENT if e.inline is None else len(e.inline) for e in entries)
        listing.inline_lengths = struct.pack(f"<{count}I", *lengths)
        listing.inline = b"".join(e.inline for e in entries if e.inline is not None)
    if any(e.code for e in entries):
        listing.codes.extend(int(e.code) for e in entries)
    return listing


def pack_names(names: Sequence[bytes]) -> bytes:
    parts: list[bytes] = []
    for name in names:
        parts += (_U16.pack(len(name)), name)
    return b"".join(parts)


def decode_names(column: bytes) -> list[bytes]:
    names: list[bytes] = []
    at, end = 0, len(column)
    while at < end:
        start = at + NAME_LENGTH_BYTES
        at = start + int.from_bytes(column[at:start], "little")
        if at > end or start > end:
            raise FsError(Code.BAD_REQUEST, "a column of names ends inside a name")
        names.append(column[start:at])
        if len(names) > MANY_ENTRIES_MAX:
            raise FsError(Code.TOO_LARGE, f"at most {MANY_ENTRIES_MAX} names")
    return names


@dataclass(slots=True)
class Columns:
    """Of a CreateMany: packed attributes as given, and lengths of contents (NOT_SENT: none)."""

    names: list[bytes]
    attrs: list[bytes]
    lengths: Sequence[int]
    inline: bytes

    def contents(self) -> list[bytes]:
        found, at = [], 0
        for length in self.lengths:
            if length == NOT_SENT:
                found.append(b"")
            else:
                found.append(self.inline[at : at + length])
                at += length
        return found


def decode_columns(m: meta_pb2.CreateMany | meta_pb2.LogFiles) -> Columns:
    count = m.count
    if count > MANY_ENTRIES_MAX:
        raise FsError(Code.TOO_LARGE, f"at most {MANY_ENTRIES_MAX} files")
    names, packed, inline = decode_names(m.names), m.attrs, m.inline
    if len(names) != count or len(packed) != count * PACKED_ATTR_BYTES:
        raise FsError(Code.BAD_REQUEST, "the columns of names and attributes do not fit")
    lengths: Sequence[int] = (NOT_SENT,) * count
    if m.inline_lengths:
        if len(m.inline_lengths) != 4 * count:
            raise FsError(Code.BAD_REQUEST, "the column of lengths does not fit")
        lengths = struct.unpack(f"<{count}I", m.inline_lengths)
    sent = [length for length in lengths if length != NOT_SENT]
    if sent and max(sent) > INLINE_BYTES_MAX:
        raise FsError(Code.TOO_LARGE, f"inline contents of {max(sent)} bytes")
    if sum(sent) != len(inline):
        raise FsError(Code.BAD_REQUEST, "the column of contents does not fit")
    starts = range(0, len(packed), PACKED_ATTR_BYTES)
    attrs = [packed[start : start + PACKED_ATTR_BYTES] for start in starts]
    return Columns(names, attrs, lengths, inline)


def entries_of(columns: Columns) -> list[Entry]:
    """The same for the rules."""
    entries = []
    rows = zip(columns.names, columns.attrs, columns.lengths, columns.contents(), strict=True)
    for name, packed, length, data in rows:
        attr = unpack_attr(packed)
        inline = None if length == NOT_SENT else data
        entries.append(Entry(name, attr.ino, attr.mode >> 12 & 0xF, attr, inline))
    return entries


def decode_layout(layout: meta_pb2.Layout) -> tuple[int, ...]:
    chains = tuple(layout.chains)
    if len(chains) > CHAINS_PER_FILE_MAX:
        raise FsError(Code.TOO_LARGE, f"at most {CHAINS_PER_FILE_MAX} chains")
    if chains and max(chains) > CHAIN_ID_MAX:
        raise FsError(Code.INVALID, f"no chain {max(chains)}")
    return chains


def decode_touch(m: meta_pb2.Touch) -> list[tuple[Ref, int]]:
    count = len(m.inos) // 8
    if count > TOUCH_INODES_MAX:
        raise FsError(Code.TOO_LARGE, f"{count} inodes, at most {TOUCH_INODES_MAX}")
    if (len(m.inos), len(m.generations), len(m.atimes)) != (8 * count, 4 * count, 8 * count):
        raise FsError(Code.BAD_REQUEST, "columns of different lengths")
    inos = struct.unpack(f"<{count}Q", m.inos)
    generations = struct.unpack(f"<{count}I", m.generations)
    atimes = struct.unpack(f"<{count}q", m.atimes)
    return [
        (Ref(ino, generation, m.place), atime_ns)
        for ino, generation, atime_ns in zip(inos, generations, atimes, strict=True)
    ]
