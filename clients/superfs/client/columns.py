"""Answers and requests for many files as columns: no object for a file. No IO.

The columns of meta.proto's Listing and CreateMany, with packed attributes (core/attrs.py) taken
apart only as far as somebody asks.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING

from superfs.client.codec import NOT_SENT, encode_ref, pack_names
from superfs.core.attrs import PACKED_ATTR_BYTES, pack_attr, unpack_attr
from superfs.core.errors import Code, FsError, known_code
from superfs.core.limits import MESSAGE_DATA_BYTES_MAX
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Ref

_SEEN = struct.Struct(f"<QI8xI12xQ{PACKED_ATTR_BYTES - 44}x")
"""Of packed attributes: number, generation, mode, size."""
_VERSION = struct.Struct(f"<Q84xQ{PACKED_ATTR_BYTES - 100}x")
"""Of packed attributes: number, change."""
FILES_A_CALL = 512

Seen = tuple[int, int, int, int]


def listing_of(result: meta_pb2.Result, _: frozenset[int]) -> meta_pb2.Listing:
    """Raises what the daemon answered, unless it is success."""
    if result.code:
        raise FsError(known_code(result.code), result.detail)
    return result.listing


def _codes(listing: meta_pb2.Listing, count: int) -> Iterable[int]:
    attrs = len(listing.attrs)
    failed = listing.codes
    if listing.count != count or (failed and len(failed) != count):
        raise FsError(Code.INTERNAL, f"{listing.count} entries where {count} were asked for")
    if attrs != count * PACKED_ATTR_BYTES and (attrs or not failed):
        raise FsError(Code.INTERNAL, f"{attrs} bytes of attributes for {count} entries")
    return failed or repeat(0, count)


def attrs_in(listing: meta_pb2.Listing, count: int) -> list[Attr | FsError]:
    packed = listing.attrs
    return [
        FsError(known_code(code)) if code else unpack_attr(packed, index * PACKED_ATTR_BYTES)
        for index, code in enumerate(_codes(listing, count))
    ]


def contents_in(
    listing: meta_pb2.Listing, count: int
) -> Iterator[tuple[FsError | None, Seen, bytes | None]]:
    """Of each entry its fate, what there is to see of it, and its contents if they came along."""
    codes, packed = _codes(listing, count), listing.attrs or bytes(count * PACKED_ATTR_BYTES)
    lengths: Iterable[int] = repeat(NOT_SENT, count)
    if listing.inline_lengths:
        if len(listing.inline_lengths) != 4 * count:
            raise FsError(Code.INTERNAL, f"{len(listing.inline_lengths)} bytes of lengths")
        lengths = struct.unpack(f"<{count}I", listing.inline_lengths)
    inline, at = listing.inline, 0
    for code, seen, length in zip(codes, _SEEN.iter_unpack(packed), lengths, strict=True):
        if length == NOT_SENT:
            yield FsError(known_code(code)) if code else None, seen, None
        else:
            yield None, seen, inline[at : at + length]
            at += length
    if at != len(inline):
        raise FsError(Code.INTERNAL, f"{len(inline)} bytes of contents where lengths say {at}")


@dataclass(frozen=True, slots=True)
class SmallFiles:
    """What names of a directory stand for: of each its number (0: nothing, or not to be had), the
    version of its contents (Attr.change), and the contents where they came along."""

    rows: Sequence[tuple[int, int, bytes | None]]
    leases: frozenset[int]
    packed: bytes = b""

    def attr(self, index: int) -> Attr:
        return unpack_attr(self.packed, index * PACKED_ATTR_BYTES)


def small_files_in(listing: meta_pb2.Listing, count: int, leases: frozenset[int]) -> SmallFiles:
    packed = listing.attrs or bytes(count * PACKED_ATTR_BYTES)
    versions = _VERSION.iter_unpack(packed)
    rows = [
        (ino, change, data)
        for (_, _, data), (ino, change) in zip(contents_in(listing, count), versions, strict=True)
    ]
    return SmallFiles(rows, leases, packed)


def packed_attr(listing: meta_pb2.Listing, index: int) -> Attr:
    return unpack_attr(listing.attrs, index * PACKED_ATTR_BYTES)


def new_files(
    directory: Ref, attr: Attr, names: Sequence[bytes], contents: Sequence[bytes]
) -> Iterator[tuple[Sequence[bytes], meta_pb2.CreateMany]]:
    """Files with these contents, all small, and otherwise the same attributes, in portions of a
    message each: (names, what to send)."""
    packed: dict[int, bytes] = {}
    start, size = 0, 0
    for end, (name, data) in enumerate(zip(names, contents, strict=True)):
        length = len(data)
        if length not in packed:
            mine = attr.copy()
            mine.size = length
            packed[length] = pack_attr(mine)
        needs = PACKED_ATTR_BYTES + len(name) + length
        if end > start and (end - start >= FILES_A_CALL or size + needs > MESSAGE_DATA_BYTES_MAX):
            yield (
                names[start:end],
                _portion(directory, names[start:end], contents[start:end], packed),
            )
            start, size = end, 0
        size += needs
    if names:
        yield names[start:], _portion(directory, names[start:], contents[start:], packed)


def _portion(
    directory: Ref, names: Sequence[bytes], contents: Sequence[bytes], packed: dict[int, bytes]
) -> meta_pb2.CreateMany:
    lengths = [len(data) for data in contents]
    return meta_pb2.CreateMany(
        dir=encode_ref(directory),
        count=len(names),
        names=pack_names(names),
        attrs=b"".join([packed[length] for length in lengths]),
        inline=b"".join(contents),
        inline_lengths=struct.pack(f"<{len(lengths)}I", *lengths),
        replace=True,
        bare=True,
    )
