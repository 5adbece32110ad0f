"""get_many and read_dir straight from records to columns: no object for an entry.

The same answers as the rules of core/namespace give through `encode_listing`, which stays the
reference (tests/conformance compares them): a packed inode in the store is what the column of
attributes holds, so the common case, a single-link file, is two look-ups, two checksums, and a
copy. Everything else goes the rules' way, entry by entry.
"""

from __future__ import annotations

import stat
import struct
from typing import TYPE_CHECKING

from superfs.core.attrs import pack_attr, unpack_attr
from superfs.core.errors import Code, FsError
from superfs.core.limits import LISTING_BYTES_MAX, LISTING_ENTRIES_MAX, MANY_ENTRIES_MAX
from superfs.core.namespace.access import EXEC, READ, enter
from superfs.core.namespace.bits import INLINE, MULTI
from superfs.core.namespace.contents import may_read
from superfs.core.namespace.find import inode_of
from superfs.core.namespace.names import check_name
from superfs.core.namespace.outcome import Outcome
from superfs.core.namespace.read_dir import ENTRY_BYTES
from superfs.core.namespace.txn import Ref
from superfs.meta import keys, records
from superfs.meta.columns import NO_ATTR, NOT_SENT, decode_names, pack_names
from superfs.meta.keys import Table
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.core.namespace.txn import Caller, Txn
    from superfs.meta.store import LmdbTxn

_SEEN = struct.Struct("<QIQI12xQ40xI")
"""Of packed attributes: number, generation, place, mode, size, flags."""
_MODE = struct.Struct("<20xI")
_PLACE = slice(12, 20)


def get_many(txn: LmdbTxn, caller: Caller, m: meta_pb2.GetMany) -> Outcome:
    directory = enter(txn, caller, Ref(m.dir.ino, m.dir.generation, m.dir.place))
    names = decode_names(m.names)
    if len(names) > MANY_ENTRIES_MAX:
        raise FsError(Code.TOO_LARGE, f"{len(names)} names; at most {MANY_ENTRIES_MAX}")
    rows = _Rows(txn, caller, directory.attr.ino, m.inline_max)
    prefix, get = keys.pack_id(directory.attr.ino), txn.rows.get
    room = LISTING_BYTES_MAX
    for name in names:
        try:
            check_name(name)
            dentry = get(Table.DENTRY, prefix + name)
            if dentry is None:
                rows.fail(Code.NOT_FOUND)
                continue
            packed = rows.look(dentry)
        except FsError as error:
            rows.fail(error.code)
            continue
        room -= rows.add(packed, room)
    if not names:
        return Outcome()
    return Outcome(None, listing=rows.listing(None if m.bare else names), places=rows.places)


def read_dir(txn: LmdbTxn, caller: Caller, m: meta_pb2.ReadDir) -> Outcome:
    want = READ | EXEC if m.plus else READ
    directory = enter(txn, caller, Ref(m.dir.ino, m.dir.generation, m.dir.place), want)
    ino = directory.attr.ino
    outcome = Outcome(None, (directory.attr,), number=directory.parent)
    limit = min(m.limit or LISTING_ENTRIES_MAX, LISTING_ENTRIES_MAX)
    rows = _Rows(txn, caller, ino, m.inline_max)
    names: list[bytes] = []
    dentries: list[bytes] = []
    room = LISTING_BYTES_MAX
    start = keys.pack_dentry(ino, m.after + b"\0" if m.after else b"")
    for key, dentry in txn.rows.scan(Table.DENTRY, start, keys.pack_id(ino)):
        if len(names) == limit:
            outcome.more = True
            break
        room -= ENTRY_BYTES + len(key) - 8
        if m.plus:
            room -= rows.add(rows.look(dentry), LISTING_BYTES_MAX)
        if room < 0 and names:
            outcome.more = True
            rows.drop_last()
            break
        names.append(key[8:])
        dentries.append(dentry)
    if names:
        outcome.listing = rows.listing(names) if m.plus else _bare(names, dentries)
        outcome.places = rows.places
    return outcome


def _bare(names: Sequence[bytes], dentries: Sequence[bytes]) -> meta_pb2.Listing:
    modes = [records.DENTRY.unpack(dentry)[2] for dentry in dentries]
    return meta_pb2.Listing(
        count=len(names),
        names=pack_names(names),
        types=bytes([mode >> 12 & 0xF for mode in modes]),
        inos=b"".join([dentry[:8] for dentry in dentries]),
    )


class _Rows:
    """Entries of one directory as columns."""

    def __init__(self, txn: LmdbTxn, caller: Caller, directory: int, inline_max: int) -> None:
        self._txn = txn
        self._caller = caller
        self._directory = directory
        self._prefix = keys.pack_id(directory)
        self._get = txn.rows.get
        self._inline_max = inline_max
        self._attrs: list[bytes] = []
        self._codes: list[int] = []
        self._contents: list[bytes | None] = []

    def fail(self, code: Code) -> None:
        self._attrs.append(NO_ATTR)
        self._codes.append(code)
        self._contents.append(None)

    def look(self, dentry: bytes) -> bytes:
        """The packed attributes of what the record of a dentry names."""
        ino, _, mode, _, _, flags = records.DENTRY.unpack(dentry)
        if not (stat.S_ISDIR(mode) or flags & MULTI):
            packed = self._get(Table.INODE, self._prefix + keys.pack_id(ino))
            # Both begin with number and generation.
            if packed is not None and packed[:12] == dentry[:12]:
                return packed
        return pack_attr(inode_of(self._txn, self._directory, records.unpack_dentry(dentry)))

    def add(self, packed: bytes, room: int) -> int:
        """How much its contents take of `room`: nothing where they do not come along."""
        self._attrs.append(packed)
        self._codes.append(0)
        data = self._contents_of(packed, room) if self._inline_max else None
        self._contents.append(data)
        return len(data or b"")

    def drop_last(self) -> None:
        for column in (self._attrs, self._codes, self._contents):
            if column:
                column.pop()

    def _contents_of(self, packed: bytes, room: int) -> bytes | None:
        ino, _, place, _, size, flags = _SEEN.unpack_from(packed)
        if not flags & INLINE or size > self._inline_max or size > room:
            return None
        if not self._caller.trusted:
            txn: Txn = self._txn
            if not may_read(txn, self._caller, unpack_attr(packed)):
                return None
        if not size:
            return b""
        return self._get(Table.INLINE, keys.pack_inode(place, ino)) or b""

    @property
    def places(self) -> frozenset[int]:
        found = {packed[_PLACE] for packed in self._attrs if packed is not NO_ATTR}
        return frozenset([int.from_bytes(place, "little") for place in found])

    def listing(self, names: Sequence[bytes] | None) -> meta_pb2.Listing:
        """`names` None: without names, types and numbers."""
        count = len(self._attrs)
        listing = meta_pb2.Listing(count=count)
        if names is not None:
            listing.names = pack_names(names)
            listing.types = bytes([_MODE.unpack_from(a)[0] >> 12 for a in self._attrs])
            listing.inos = b"".join([a[:8] for a in self._attrs])
        if any(a is not NO_ATTR for a in self._attrs):
            listing.attrs = b"".join(self._attrs)
        if any(data is not None for data in self._contents):
            lengths = [NOT_SENT if data is None else len(data) for data in self._contents]
            listing.inline = b"".join([data for data in self._contents if data])
            listing.inline_lengths = struct.pack(f"<{count}I", *lengths)
        if any(self._codes):
            listing.codes.extend(self._codes)
        return listing
