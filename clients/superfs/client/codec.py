"""Attributes, outcomes and columns: our types <-> protobuf. No IO."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from superfs.core.attrs import PACKED_ATTR_BYTES, Attr, pack_attr, unpack_attr
from superfs.core.errors import Code, FsError, known_code
from superfs.core.namespace.outcome import Entry, FsStat, Outcome
from superfs.v1 import common_pb2, meta_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from superfs.core.namespace.txn import Ref

NOT_SENT = 0xFFFFFFFF
"""Inline length of an entry whose contents did not come along."""
NO_LEASES: frozenset[int] = frozenset()
_U16 = struct.Struct("<H")


def encode_ref(ref: Ref) -> common_pb2.InodeRef:
    return common_pb2.InodeRef(ino=ref.ino, generation=ref.generation, place=ref.place)


def decode_attr(a: common_pb2.Attr) -> Attr:
    return Attr(
        a.ino, a.generation, a.place, a.mode, a.nlink, a.uid, a.gid, a.size, a.rdev,
        a.atime_ns, a.mtime_ns, a.ctime_ns, a.btime_ns, a.flags, a.data_generation, a.change,
        tuple(a.chains),
    )  # fmt: skip


def decode_result(result: meta_pb2.Result, leases: frozenset[int] = NO_LEASES) -> Outcome:
    """Raises what the daemon answered, unless it is success."""
    if result.code:
        raise FsError(known_code(result.code), result.detail)
    outcome = Outcome(
        data=result.data,
        number=result.number,
        more=result.more,
        capability=result.capability,
        leases=leases,
    )
    if result.HasField("attr"):
        outcome.attr = decode_attr(result.attr)
    if result.dirs:
        outcome.dirs = tuple(decode_attr(a) for a in result.dirs)
    if result.HasField("other"):
        outcome.other = decode_attr(result.other)
    if result.HasField("listing"):
        outcome.entries = decode_listing(result.listing)
    if result.HasField("fs_stat"):
        s = result.fs_stat
        outcome.fs_stat = FsStat(s.bytes_total, s.bytes_free, s.inodes_used, s.inodes_free)
    return outcome


def pack_names(names: Iterable[bytes]) -> bytes:
    parts: list[bytes] = []
    for name in names:
        if len(name) > 0xFFFF:
            raise FsError(Code.NAME_TOO_LONG, f"{len(name)} bytes")
        parts.append(_U16.pack(len(name)))
        parts.append(name)
    return b"".join(parts)


def unpack_names(data: bytes) -> list[bytes]:
    names = []
    position = 0
    while position < len(data):
        (length,) = _U16.unpack_from(data, position)
        position += 2
        names.append(data[position : position + length])
        position += length
    if position != len(data):
        raise FsError(Code.INTERNAL, "a column of names ends inside a name")
    return names


def decode_listing(listing: meta_pb2.Listing) -> list[Entry]:
    """A column that the daemon left out stays at its default."""
    try:
        return _decode_columns(listing)
    except (struct.error, ValueError) as error:
        raise FsError(Code.INTERNAL, f"columns that do not fit together: {error}") from None


def _decode_columns(listing: meta_pb2.Listing) -> list[Entry]:
    count = listing.count
    names = unpack_names(listing.names) if listing.names else [b""] * count
    if len(names) != count:
        raise ValueError(f"{len(names)} names for {count} entries")
    entries = [Entry(name) for name in names]
    if listing.inos:
        for entry, ino in zip(entries, struct.unpack(f"<{count}Q", listing.inos), strict=True):
            entry.ino = ino
    if listing.types:
        for entry, kind in zip(entries, listing.types, strict=True):
            entry.type = kind
    for entry, code in zip(entries, listing.codes, strict=False):
        entry.code = known_code(code)
    if listing.attrs:
        _decode_attrs(entries, listing.attrs)
    if listing.inline_lengths:
        _decode_inline(entries, listing.inline, listing.inline_lengths)
    return entries


def _decode_attrs(entries: Sequence[Entry], packed: bytes) -> None:
    if len(packed) != len(entries) * PACKED_ATTR_BYTES:
        raise ValueError(f"{len(packed)} bytes of attributes for {len(entries)} entries")
    for index, entry in enumerate(entries):
        attr = unpack_attr(packed, index * PACKED_ATTR_BYTES)
        # An entry that failed has an empty record in its place.
        if attr.ino:
            entry.attr = attr
            entry.ino = attr.ino
            entry.type = attr.mode >> 12


def _decode_inline(entries: Sequence[Entry], data: bytes, lengths: bytes) -> None:
    position = 0
    columns = struct.unpack(f"<{len(entries)}I", lengths)
    for entry, length in zip(entries, columns, strict=True):
        if length != NOT_SENT:
            entry.inline = data[position : position + length]
            position += length
    if position != len(data):
        raise ValueError(f"{len(data)} bytes of contents where lengths say {position}")


def encode_create_many(
    directory: Ref, entries: Sequence[Entry], *, replace: bool
) -> meta_pb2.CreateMany:
    lengths = []
    inline: list[bytes] = []
    attrs = []
    for entry in entries:
        assert entry.attr is not None, "a new file comes with its attributes"
        attrs.append(pack_attr(entry.attr))
        if entry.inline is None:
            lengths.append(NOT_SENT)
        else:
            lengths.append(len(entry.inline))
            inline.append(entry.inline)
    return meta_pb2.CreateMany(
        dir=encode_ref(directory),
        count=len(entries),
        names=pack_names(entry.name for entry in entries),
        attrs=b"".join(attrs),
        inline=b"".join(inline),
        inline_lengths=struct.pack(f"<{len(lengths)}I", *lengths),
        replace=replace,
    )


def encode_touch(inodes: Sequence[tuple[Ref, int]]) -> meta_pb2.Touch:
    """`inodes`: of one place, each with its access time."""
    count = len(inodes)
    return meta_pb2.Touch(
        place=inodes[0][0].place,
        inos=struct.pack(f"<{count}Q", *[ref.ino for ref, _ in inodes]),
        generations=struct.pack(f"<{count}I", *[ref.generation for ref, _ in inodes]),
        atimes=struct.pack(f"<{count}q", *[atime_ns for _, atime_ns in inodes]),
    )
