"""create_many straight from columns to records, where nothing needs a second look.

The common case is a portion of new small files: regular, names that are free and good, contents
inline, no ACL to inherit. Their attributes differ in few values, so each distinct one is checked
and packed once, and an inode's record is its numbers before that. Anything else in a portion, be
it one name that exists, sends the whole portion through the rule of core/namespace, which stays
the reference: both leave the same records (tests/conformance).
"""

from __future__ import annotations

import stat
import struct
from typing import TYPE_CHECKING

from superfs.core.attrs import Attr, pack_attr, unpack_attr
from superfs.core.errors import FsError
from superfs.core.ids import slot_of
from superfs.core.namespace import create_many as rule
from superfs.core.namespace.access import EXEC, WRITE, enter
from superfs.core.namespace.bits import HAS_DEFAULT_ACL, INLINE
from superfs.core.namespace.inodes import RECORD_BYTES, stamp_entries
from superfs.core.namespace.names import check_name
from superfs.core.namespace.outcome import Outcome
from superfs.core.namespace.txn import Dentry, Ref
from superfs.meta import keys, records
from superfs.meta.columns import NOT_SENT, decode_columns, entries_of, pack_names
from superfs.meta.keys import Table
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Caller, Directory
    from superfs.meta.columns import Columns
    from superfs.meta.store import LmdbTxn

_NUMBERS = struct.Struct("<QI")
"""How packed attributes begin, and a dentry's record: number, generation."""
_SIZE = struct.Struct("<36xQ")


def create_many(txn: LmdbTxn, caller: Caller, m: meta_pb2.CreateMany) -> Outcome:
    columns = decode_columns(m)
    directory = enter(txn, caller, Ref(m.dir.ino, m.dir.generation, m.dir.place), WRITE | EXEC)
    shapes = _shapes(txn, caller, directory.attr, columns)
    if shapes is not None and _are_free(txn, directory.attr.ino, columns.names):
        return _create(txn, directory, columns, shapes, bare=m.bare)
    return _by_the_rule(txn, caller, m, columns)


def _by_the_rule(txn: LmdbTxn, caller: Caller, m: meta_pb2.CreateMany, columns: Columns) -> Outcome:
    entries = entries_of(columns)
    # Data under a chain that nobody knows could never be dropped again.
    for chains in {e.attr.chains for e in entries if e.attr and e.attr.data_generation}:
        txn.choose_chains(0, chains)
    into = Ref(m.dir.ino, m.dir.generation, m.dir.place)
    outcome = rule.create_many(txn, caller, into, entries, replace=m.replace)
    if m.bare:
        codes = [int(entry.code) for entry in outcome.entries]
        outcome.entries = []
        if any(codes):
            outcome.listing = meta_pb2.Listing(count=len(codes), codes=codes)
    return outcome


def _shapes(
    txn: LmdbTxn, caller: Caller, parent: Attr, columns: Columns
) -> dict[bytes, bytes] | None:
    """By packed attributes as given: what follows the numbers in the new inode's record. None:
    something about them is out of the ordinary."""
    if parent.flags & HAS_DEFAULT_ACL or not columns.names:
        return None
    shapes: dict[bytes, bytes] = {}
    for packed in set(columns.attrs):
        given = unpack_attr(packed)
        plain = stat.S_ISREG(given.mode) and not (given.ino or given.data_generation)
        setgid = (given.mode | parent.mode) & stat.S_ISGID
        if not plain or (setgid and not caller.trusted):
            return None
        try:
            rule.check_given(caller, given, 0, b"")
        except FsError:
            return None
        now = txn.now_ns
        new = Attr(
            0, 0, parent.ino, stat.S_IFREG | given.mode & 0o7777, 1, given.uid, given.gid,
            given.size, given.rdev, given.atime_ns or now, given.mtime_ns or now, now,
            given.btime_ns or now, INLINE, 0, txn.commit, given.chains,
        )  # fmt: skip
        shapes[packed] = pack_attr(new)[_NUMBERS.size :]
    contents = 0
    for packed, length in zip(columns.attrs, columns.lengths, strict=True):
        if length != NOT_SENT:
            contents += length
            if length > _SIZE.unpack_from(packed)[0]:
                return None
    # Without room it is the rule that says so.
    return shapes if txn.has_room(RECORD_BYTES * len(columns.names) + contents) else None


def _are_free(txn: LmdbTxn, directory: int, names: list[bytes]) -> bool:
    if len(set(names)) != len(names):
        return False
    prefix, exists = keys.pack_id(directory), txn.rows.exists
    for name in names:
        try:
            check_name(name)
        except FsError:
            return False
        if exists(Table.DENTRY, prefix + name):
            return False
    return True


def _create(
    txn: LmdbTxn,
    directory: Directory,
    columns: Columns,
    shapes: dict[bytes, bytes],
    *,
    bare: bool,
) -> Outcome:
    names, count = columns.names, len(columns.names)
    slot, parent = slot_of(directory.attr.ino), directory.attr.ino
    first, generation = txn.new_inode_ids(slot, count), txn.new_generations(slot, count)
    tail = records.pack_dentry(Dentry(0, 0, stat.S_IFREG))[_NUMBERS.size :]
    numbers = [_NUMBERS.pack(first + i, generation + i) for i in range(count)]
    inodes = [n + shapes[packed] for n, packed in zip(numbers, columns.attrs, strict=True)]
    dentries = [n + tail for n in numbers]
    inos = range(first, first + count)
    txn.put_new_files(parent, names, inos, dentries, inodes, columns.contents())
    stamp_entries(txn, directory, count)
    directory.attr.change += count - 1  # as one by one
    txn.put_directory(directory)
    outcome = Outcome(None, (directory.attr,))
    if not bare:
        outcome.listing = meta_pb2.Listing(
            count=count,
            names=pack_names(names),
            types=bytes((stat.S_IFREG >> 12,)) * count,
            inos=b"".join([n[:8] for n in numbers]),
            attrs=b"".join(inodes),
        )
    return outcome
