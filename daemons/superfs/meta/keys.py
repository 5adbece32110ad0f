"""Every key of the metadata store: the reference of what is stored, and under which bytes.

Numbers in keys are big-endian, so that the order of bytes is the order of the tuples. Every key of
the namespace begins with an inode number or a slot, and a slot stands in the same first 12 bits
either way: what belongs to a slot is one contiguous range of each table.

    table      key                                         value (records.py)
    meta       word                                        identity, state (one record each)
    dentry     directory u64 | name                        Dentry
    inode      place u64 | ino u64                         packed Attr; every non-directory
    directory  ino u64                                     Directory
    xattr      place u64 | ino u64 | name                  the value
    inline     place u64 | ino u64                         contents, or the target of a symlink
    moved      ino u64                                     place u64: filed away from home
    orphan     ino u64                                     Orphan: no name, but held open
    counter    slot u16                                    the next numbers of the slot
    reserved   last ino u64                                first ino, session: a run not yet used
    session    session u64                                 Session; belongs to no slot
    reply      slot u16 | session u64 | seq u64            serialized Result of one mutation
    reap       ino u64 | data generation u32 | kind u8     work owed to the data daemons
    cache      directory u64                               Cache: a bounded one, its root
    cached     directory u64                               the root whose cache it belongs to
    cachewalk  directory u64                               Walk: entries yet to be put in or out
    cachefile  place u64 | ino u64                         CacheFile; every regular file in a cache
    cacherank  root u64 | kind u8 | rank 2 x u64 | ino u64 place u64: in which order they go

`reserved` is filed under the *last* number of a run: using numbers in order then changes the
value only, and the run that holds a number is the first one at or behind it.
A `slot u16` is the slot shifted left by four: the same 12 bits that lead an inode number.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from superfs.core.ids import SLOT_SHIFT, SLOTS
from superfs.core.limits import NAME_BYTES_MAX, XATTR_NAME_BYTES_MAX


class Table(IntEnum):
    """Numbers seed the checksums: never renumbered, so a record is good in its table only."""

    META = 0
    DENTRY = 1
    INODE = 2
    DIRECTORY = 3
    XATTR = 4
    INLINE = 5
    MOVED = 6
    ORPHAN = 7
    COUNTER = 8
    RESERVED = 9
    SESSION = 10
    REPLY = 11
    REAP = 12
    CACHE = 13
    CACHED = 14
    CACHEWALK = 15
    CACHEFILE = 16
    CACHERANK = 17

    @property
    def database(self) -> bytes:
        return self.name.lower().encode()


class Work(IntEnum):
    """The last byte of a `reap` key."""

    REAP = 1
    TRUNCATE = 2


class Order(IntEnum):
    """The kind in a `cacherank` key, and what its rank is."""

    USED = 0  # when last, 0
    USES = 1  # how often, when last
    SMALL = 2  # place in the queue, 0
    MAIN = 3  # likewise


IDENTITY_KEY = b"identity"
STATE_KEY = b"state"

_ONE = struct.Struct(">Q")
_TWO = struct.Struct(">QQ")
_SLOT = struct.Struct(">H")
_REPLY = struct.Struct(">HQQ")
_REAP = struct.Struct(">QIB")
_RANK = struct.Struct(">QBQQQ")
_RANKS = struct.Struct(">QB")
_SLOT_IN_U16 = 16 - (64 - SLOT_SHIFT)

KEY_BYTES_MAX = 511
assert _TWO.size + max(NAME_BYTES_MAX, XATTR_NAME_BYTES_MAX) <= KEY_BYTES_MAX

pack_id = _ONE.pack
"""The key of the tables filed by one number: directory, moved, orphan, reserved, session."""


def parse_id(key: bytes) -> int:
    (ino,) = _ONE.unpack(key)
    return int(ino)


def pack_dentry(directory: int, name: bytes) -> bytes:
    return _ONE.pack(directory) + name


def parse_dentry(key: bytes) -> tuple[int, bytes]:
    return parse_id(key[:8]), key[8:]


pack_inode = _TWO.pack
"""The key of the tables filed by (place, ino): inode, inline; and the prefix in xattr."""


def parse_inode(key: bytes) -> tuple[int, int]:
    place, ino = _TWO.unpack(key)
    return place, ino


def pack_xattr(place: int, ino: int, name: bytes) -> bytes:
    return _TWO.pack(place, ino) + name


def parse_xattr(key: bytes) -> tuple[int, int, bytes]:
    place, ino = _TWO.unpack_from(key)
    return place, ino, key[16:]


def pack_slot(slot: int) -> bytes:
    assert 0 <= slot < SLOTS, slot
    return _SLOT.pack(slot << _SLOT_IN_U16)


def parse_slot(key: bytes) -> int:
    (value,) = _SLOT.unpack(key)
    return int(value) >> _SLOT_IN_U16


def pack_reply(slot: int, session: int, seq: int) -> bytes:
    assert 0 <= slot < SLOTS, slot
    return _REPLY.pack(slot << _SLOT_IN_U16, session, seq)


def parse_reply(key: bytes) -> tuple[int, int, int]:
    slot, session, seq = _REPLY.unpack(key)
    return slot >> _SLOT_IN_U16, session, seq


def pack_reap(ino: int, data_generation: int, kind: Work) -> bytes:
    return _REAP.pack(ino, data_generation, kind)


def parse_reap(key: bytes) -> tuple[int, int, Work]:
    ino, data_generation, kind = _REAP.unpack(key)
    return ino, data_generation, Work(kind)


def pack_rank(root: int, order: Order, rank: tuple[int, int], ino: int) -> bytes:
    return _RANK.pack(root, order, *rank, ino)


def parse_rank(key: bytes) -> tuple[int, Order, tuple[int, int], int]:
    root, order, first, second, ino = _RANK.unpack(key)
    return root, Order(order), (first, second), ino


pack_ranks = _RANKS.pack
"""The prefix of all ranks of one root and kind."""
