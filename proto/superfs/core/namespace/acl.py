"""POSIX access control lists, as the kernel packs them into system.posix_acl_* xattrs.

    u32 version = 2, then per entry: u16 tag, u16 perm, u32 id (little-endian)

Entries come in the order of their tags: owner, users, owning group, groups, mask, others. With a
mask, the group bits of the mode are the mask; without one, they are the owning group's. A list of
the three base entries alone says no more than the mode does, and is never stored.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from superfs.core.errors import Code, FsError

ACCESS_XATTR = b"system.posix_acl_access"
DEFAULT_XATTR = b"system.posix_acl_default"

USER_OBJ = 0x01
USER = 0x02
GROUP_OBJ = 0x04
GROUP = 0x08
MASK = 0x10
OTHER = 0x20
UNDEFINED_ID = 0xFFFFFFFF

_VERSION = 2
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")


class AclEntry(NamedTuple):
    tag: int
    perm: int
    id: int = UNDEFINED_ID


Acl = list[AclEntry]

# The tags that may follow a tag; None is the start. The kernel's own order (posix_acl_valid).
_AFTER: dict[int | None, tuple[int, ...]] = {
    None: (USER_OBJ,),
    USER_OBJ: (USER, GROUP_OBJ),
    USER: (USER, GROUP_OBJ),
    GROUP_OBJ: (GROUP, MASK, OTHER),
    GROUP: (GROUP, MASK, OTHER),
    MASK: (OTHER,),
    OTHER: (),
}


def parse_acl(value: bytes) -> Acl:
    """INVALID for anything that the kernel would not take. An empty list of entries is []."""
    body = len(value) - _HEADER.size
    if body < 0 or body % _ENTRY.size:
        raise FsError(Code.INVALID, f"an ACL of {len(value)} bytes")
    (version,) = _HEADER.unpack_from(value)
    if version != _VERSION:
        raise FsError(Code.NOT_SUPPORTED, f"ACL version {version}")
    acl = [AclEntry(*e) for e in _ENTRY.iter_unpack(value[_HEADER.size :])]
    if acl:
        _check(acl)
    return [e if e.tag in (USER, GROUP) else e._replace(id=UNDEFINED_ID) for e in acl]


def _check(acl: Acl) -> None:
    last: int | None = None
    for entry in acl:
        if entry.tag not in _AFTER[last] or entry.perm & ~7:
            raise FsError(Code.INVALID, f"ACL entry {entry.tag:#x} perm {entry.perm:#o}")
        if entry.tag in (USER, GROUP) and entry.id == UNDEFINED_ID:
            raise FsError(Code.INVALID, "ACL entry without an id")
        last = entry.tag
    tags = {e.tag for e in acl}
    if last != OTHER or (tags & {USER, GROUP} and MASK not in tags):
        raise FsError(Code.INVALID, "an incomplete ACL")


def pack_acl(acl: Acl) -> bytes:
    return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*e) for e in acl)


def equivalent_mode(acl: Acl) -> tuple[int, bool]:
    """The permission bits that go with an access ACL, and whether they say all of it."""
    bits = 0
    equivalent = True
    for tag, perm, _ in acl:
        if tag == USER_OBJ:
            bits |= perm << 6
        elif tag == GROUP_OBJ:
            bits |= perm << 3
        elif tag == OTHER:
            bits |= perm
        else:
            equivalent = False
            if tag == MASK:
                bits = bits & ~0o070 | perm << 3
    return bits, equivalent


def chmod_acl(acl: Acl, mode: int) -> Acl:
    """The list after a chmod: the group bits go to the mask where there is one."""
    masked = any(e.tag == MASK for e in acl)
    shifts = {USER_OBJ: 6, OTHER: 0, MASK if masked else GROUP_OBJ: 3}
    return [e._replace(perm=mode >> shifts[e.tag] & 7) if e.tag in shifts else e for e in acl]


def inherit_acl(default: Acl, mode: int) -> tuple[Acl, int, bool]:
    """Access ACL and mode of a new inode in a directory with this default ACL, created with
    `mode` (umask not applied), and whether the mode says all of it."""
    masked = any(e.tag == MASK for e in default)
    shifts = {USER_OBJ: 6, OTHER: 0, MASK if masked else GROUP_OBJ: 3}
    acl: Acl = []
    for entry in default:
        shift = shifts.get(entry.tag)
        if shift is None:
            acl.append(entry)
            continue
        perm = entry.perm & mode >> shift
        mode = mode & ~(7 << shift) | perm << shift
        acl.append(entry._replace(perm=perm))
    equivalent = not masked and all(e.tag not in (USER, GROUP) for e in default)
    return acl, mode, equivalent
