"""Attributes of inodes as every process sees them, and their packed form for bulk messages."""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from enum import IntFlag
from functools import lru_cache

from superfs.core.limits import CHAINS_PER_FILE_MAX


class Flag(IntFlag):
    """What is worth knowing without a further read."""

    INLINE = 1  # contents are in the metadata store
    HAS_XATTR = 2  # any xattr at all
    HAS_ACL = 4  # system.posix_acl_access
    HAS_DEFAULT_ACL = 8  # system.posix_acl_default (directories)
    TRUNCATING = 16  # a shrink is being finished at the data daemons
    MULTI = 32  # several links, now or once: filed under its own number
    HAS_CAPABILITY = 64  # security.capability
    CACHED = 128  # of a directory: in a bounded cache, who reads in it says so


class Set(IntFlag):
    """What a setattr changes."""

    MODE = 1
    UID = 2
    GID = 4
    SIZE = 8
    ATIME = 16
    MTIME = 32
    ATIME_NOW = 64
    MTIME_NOW = 128
    KILL_PRIV = 256  # drop setuid and setgid with it (truncate, chown)


@dataclass(slots=True)
class Attr:
    """One inode. `mode` carries the type bits; times are nanoseconds since 1970, may be negative.

    `chains` and `data_generation` say where the contents lie; `change` is the commit that last
    changed the inode and orders answers.
    """

    ino: int
    generation: int
    place: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int = 0
    rdev: int = 0
    atime_ns: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    btime_ns: int = 0
    flags: int = 0
    data_generation: int = 0
    change: int = 0
    chains: tuple[int, ...] = ()

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def is_inline(self) -> bool:
        return self.flags & 1 == 1  # Flag.INLINE, without making an enum member of it

    def copy(self) -> Attr:
        return Attr(
            self.ino, self.generation, self.place, self.mode, self.nlink, self.uid, self.gid,
            self.size, self.rdev, self.atime_ns, self.mtime_ns, self.ctime_ns, self.btime_ns,
            self.flags, self.data_generation, self.change, self.chains,
        )  # fmt: skip


# Packed form, little-endian, fixed size, so that N of them are one bytes object. The chains of a
# file come last; unused places hold 0xFFFF.
_PACK = struct.Struct(f"<QIQIIIIQQqqqqIIQ{CHAINS_PER_FILE_MAX}H")
PACKED_ATTR_BYTES = _PACK.size
_FIXED = 16  # fields before the chains
NO_CHAIN = 0xFFFF
CHAINS_REMEMBERED_MAX = 1024
_NO_CHAINS = (NO_CHAIN,) * CHAINS_PER_FILE_MAX


def pack_attr(a: Attr) -> bytes:
    chains = a.chains + _NO_CHAINS[len(a.chains) :]
    return _PACK.pack(
        a.ino, a.generation, a.place, a.mode, a.nlink, a.uid, a.gid, a.size, a.rdev,
        a.atime_ns, a.mtime_ns, a.ctime_ns, a.btime_ns, a.flags, a.data_generation, a.change,
        *chains,
    )  # fmt: skip


def unpack_attr(data: bytes | memoryview, offset: int = 0) -> Attr:
    """Raises ValueError when there are not enough bytes."""
    try:
        values = _PACK.unpack_from(data, offset)
    except struct.error as error:
        raise ValueError(f"packed attributes: {error}") from None
    return Attr(*values[:_FIXED], _chains(values[_FIXED:]))  # type: ignore[call-arg]  # no slices


@lru_cache(CHAINS_REMEMBERED_MAX)
def _chains(places: tuple[int, ...]) -> tuple[int, ...]:
    """Many files have the same: to sort them out takes longer than all the rest."""
    return tuple(c for c in places if c != NO_CHAIN)
