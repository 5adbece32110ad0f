"""New files of a log, straight from columns to records.

A packed inode as the client sends it is what the store keeps, but for `change`: so every field is
looked at, and nothing is made anew. There is no other way for files of a log: what is out of the
ordinary here, the client does not log (docs/decisions/0019).
"""

from __future__ import annotations

import stat
import struct
from typing import TYPE_CHECKING

from superfs.core.attrs import NO_CHAIN, PACKED_ATTR_BYTES
from superfs.core.errors import Code, FsError
from superfs.core.ids import (
    DELEGATED_GENERATION,
    FIRST_DATA_GENERATION,
    RANGE_BIT,
    RANGE_COUNTER_BITS,
    RANGE_FILES_MAX,
    SLOT_SHIFT,
)
from superfs.core.limits import FILE_DATA_BYTES_MAX, NAME_BYTES_MAX, SYMLINK_BYTES_MAX
from superfs.core.namespace.bits import HAS_DEFAULT_ACL, INLINE
from superfs.core.namespace.create import check_layout
from superfs.core.namespace.inodes import RECORD_BYTES, stamp_entries
from superfs.core.namespace.txn import Dentry
from superfs.meta import keys, records
from superfs.meta.columns import NOT_SENT
from superfs.meta.keys import Table

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Directory
    from superfs.meta.columns import Columns
    from superfs.meta.store import LmdbTxn

_FIELDS = struct.Struct("<QIQIIIIQQqqqqIIQ32s")
assert _FIELDS.size == PACKED_ATTR_BYTES
_CHANGE = slice(struct.calcsize("<QIQIIIIQQqqqqII"), struct.calcsize("<QIQIIIIQQqqqqIIQ"))
_CTIME = slice(struct.calcsize("<QIQIIIIQQqq"), struct.calcsize("<QIQIIIIQQqqq"))
_U64 = struct.Struct("<Q")
_I64 = struct.Struct("<q")
_NUMBERS_BYTES = 12
"""A dentry begins as packed attributes do: number, generation."""
_CHAINS = struct.Struct("<16H")
_NO_CHAINS = _CHAINS.pack(*[NO_CHAIN] * 16)
_IN_SLOT = (1 << SLOT_SHIFT) - 1
_NO_ID = 0xFFFFFFFF
_TIME_MAX = (1 << 63) - 1
_DOTS = (b".", b"..")

CHANGE_AHEAD_MAX = 1 << 32
"""How far the `change` of a client may be ahead of the commit: it counts its own."""


class Numbers:
    """Of one session's range: each is taken once, in ascending order from log to log."""

    def __init__(self, range_: int, used: int) -> None:
        self._base = RANGE_BIT | range_ << RANGE_COUNTER_BITS
        self._before = used
        self._taken: set[int] = set()
        self.used = used

    def counter(self, ino: int) -> int:
        """0 for a number of somebody else's, and for one that an earlier log has used."""
        counter = (ino & _IN_SLOT) - self._base
        return counter if self._before < counter <= RANGE_FILES_MAX else 0

    def take(self, counters: list[int]) -> None:
        """Of one group of files, in ascending order."""
        taken = self._taken
        before = len(taken)
        taken.update(counters)
        if len(taken) != before + len(counters):
            raise FsError(Code.BAD_REQUEST, "a number twice in a log")
        self.used = max(self.used, counters[-1])

    def take_if_new(self, ino: int) -> bool:
        counter = self.counter(ino)
        if not counter or counter in self._taken:
            return False
        self._taken.add(counter)
        self.used = max(self.used, counter)
        return True


def put_files(
    txn: LmdbTxn, directory: Directory, columns: Columns, numbers: Numbers, *, told: bool
) -> None:
    """LOG_REFUSED where the directory is not as the client thought, BAD_REQUEST for what no client
    of ours would send."""
    parent, names = directory.attr.ino, columns.names
    if not names:
        raise FsError(Code.BAD_REQUEST, "a group of no files")
    if directory.attr.flags & HAS_DEFAULT_ACL:
        raise FsError(Code.LOG_REFUSED, f"directory {parent:#x} has a default ACL")
    if not txn.has_room(RECORD_BYTES * len(names) + len(columns.inline)):
        raise FsError(Code.NO_SPACE)
    _check_names(txn, parent, names)
    inos, counters, inodes, dentries = _inodes(txn, parent, columns, numbers)
    numbers.take(counters)
    txn.put_new_files(parent, names, inos, dentries, inodes, columns.contents())
    stamp_names(txn, directory, len(names), told=told)


def stamp_names(txn: LmdbTxn, directory: Directory, entries: int, *, told: bool) -> None:
    """It got or lost so many. `told`: when that was, the log says in the end."""
    attr = directory.attr
    times = attr.mtime_ns, attr.ctime_ns
    stamp_entries(txn, directory, entries)
    attr.change += max(abs(entries), 1) - 1  # as one by one
    if told:
        attr.mtime_ns, attr.ctime_ns = times
    txn.put_directory(directory)


def _check_names(txn: LmdbTxn, parent: int, names: list[bytes]) -> None:
    if len(set(names)) != len(names):
        raise FsError(Code.BAD_REQUEST, "a name twice")
    joined = b"".join(names)
    if b"/" in joined or b"\0" in joined:
        raise FsError(Code.BAD_REQUEST, "not a name")
    prefix, exists = keys.pack_id(parent), txn.rows.exists
    for name in names:
        if not 0 < len(name) <= NAME_BYTES_MAX or name in _DOTS:
            raise FsError(Code.BAD_REQUEST, f"not a name: {name[:NAME_BYTES_MAX]!r}")
        if exists(Table.DENTRY, prefix + name):
            raise FsError(Code.LOG_REFUSED, f"{name!r} is there already")


def _inodes(
    txn: LmdbTxn, parent: int, columns: Columns, numbers: Numbers
) -> tuple[list[int], list[int], list[bytes], list[bytes]]:
    """Numbers, their counters, records of inodes and of dentries."""
    inos: list[int] = []
    counters: list[int] = []
    inodes: list[bytes] = []
    dentries: list[bytes] = []
    layouts: set[bytes] = set()
    commit, latest_ns, last = txn.commit, txn.latest_ns, 0
    change_max, now = commit + CHANGE_AHEAD_MAX, _U64.pack(commit)
    tails = {
        kind: records.pack_dentry(Dentry(0, 0, kind))[_NUMBERS_BYTES:]
        for kind in (stat.S_IFREG, stat.S_IFLNK)
    }
    at = 0
    for packed, sent in zip(columns.attrs, columns.lengths, strict=True):
        (
            ino, generation, place, mode, nlink, uid, gid, size, rdev, atime, mtime, ctime, btime,
            flags, data_generation, change, chains,
        ) = _FIELDS.unpack(packed)  # fmt: skip
        length = 0 if sent == NOT_SENT else sent
        counter = numbers.counter(ino)
        if not counter:
            raise FsError(Code.LOG_REFUSED, f"number {ino:#x} is not this session's, or was used")
        kind = mode & ~0o7777
        if flags == INLINE:
            # One that was about to be spilled: something may lie at the data daemons already.
            prepared = data_generation == FIRST_DATA_GENERATION and chains != _NO_CHAINS
            good = (not data_generation or prepared) and length <= size <= FILE_DATA_BYTES_MAX
        else:
            good = (
                not flags and data_generation == FIRST_DATA_GENERATION and chains != _NO_CHAINS
                and not length and kind == stat.S_IFREG and size <= FILE_DATA_BYTES_MAX
            )  # fmt: skip
        if kind == stat.S_IFLNK:
            target = columns.inline[at : at + length]
            good = good and mode & 0o7777 == 0o777 and chains == _NO_CHAINS
            good = good and 0 < length == size <= SYMLINK_BYTES_MAX and b"\0" not in target
        elif kind != stat.S_IFREG:
            good = False
        if not (
            good and counter > last and generation == DELEGATED_GENERATION and place == parent
            and nlink == 1 and not rdev and uid != _NO_ID and gid != _NO_ID
            and change <= change_max and min(atime, mtime, ctime, btime) >= -_TIME_MAX
        ):  # fmt: skip
            raise FsError(Code.BAD_REQUEST, f"attributes of {ino:#x} that no log may have")
        if change < commit:
            packed = packed[: _CHANGE.start] + now + packed[_CHANGE.stop :]
        if ctime > latest_ns:
            packed = packed[: _CTIME.start] + _I64.pack(latest_ns) + packed[_CTIME.stop :]
        layouts.add(chains)
        inos.append(ino)
        counters.append(counter)
        inodes.append(packed)
        dentries.append(packed[:_NUMBERS_BYTES] + tails[kind])
        last, at = counter, at + length
    _check_layouts(txn, layouts)
    return inos, counters, inodes, dentries


def _check_layouts(txn: LmdbTxn, layouts: set[bytes]) -> None:
    """Data under a chain that nobody knows could never be dropped again."""
    for packed in layouts - {_NO_CHAINS}:
        chains = _CHAINS.unpack(packed)
        used = [chain for chain in chains if chain != NO_CHAIN]
        if tuple(used) + (NO_CHAIN,) * (len(chains) - len(used)) != chains:
            raise FsError(Code.BAD_REQUEST, "a gap between chains")
        check_layout(used)
        txn.choose_chains(0, used)
