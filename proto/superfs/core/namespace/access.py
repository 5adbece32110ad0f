"""Who may do what: mode bits, ACLs, ownership and the sticky bit, for callers whose kernel has not
checked already. Every function here does nothing for a trusted caller unless it says so."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.namespace.acl import (
    ACCESS_XATTR,
    GROUP,
    GROUP_OBJ,
    MASK,
    OTHER,
    USER,
    Acl,
    parse_acl,
)
from superfs.core.namespace.bits import HAS_ACL
from superfs.core.namespace.find import find_directory

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Caller, Directory, Ref, Txn

READ = 4
WRITE = 2
EXEC = 1


def enter(txn: Txn, caller: Caller, ref: Ref, want: int = EXEC) -> Directory:
    """The directory an operation works in, if the caller may search it."""
    directory = find_directory(txn, ref)
    if not caller.trusted:
        check_access(txn, caller, directory.attr, want)
    return directory


def check_access(txn: Txn, caller: Caller, attr: Attr, want: int) -> None:
    if not caller.trusted and not has_access(txn, caller, attr, want):
        raise FsError(Code.ACCESS, f"uid {caller.uid} wants {want:o} on mode {attr.mode:o}")


def has_access(txn: Txn, caller: Caller, attr: Attr, want: int) -> bool:
    """What the mode and the ACL say, for any caller, trusted or not."""
    mode = attr.mode
    if caller.uid == 0:
        return not want & EXEC or stat.S_ISDIR(mode) or bool(mode & 0o111)
    if caller.uid == attr.uid:
        return mode >> 6 & want == want
    if attr.flags & HAS_ACL and mode & stat.S_IRWXG:
        value = txn.get_xattr(attr.place, attr.ino, ACCESS_XATTR)
        if value is not None:
            return _acl_allows(caller, attr, parse_acl(value), want)
    if caller.in_group(attr.gid):
        return mode >> 3 & want == want
    return mode & want == want


def _acl_allows(caller: Caller, attr: Attr, acl: Acl, want: int) -> bool:
    mask = next((e.perm for e in acl if e.tag == MASK), 7)
    in_a_group = False
    for tag, perm, ident in acl:
        if tag == USER and ident == caller.uid:
            return perm & mask & want == want
        if tag in (GROUP_OBJ, GROUP):
            if caller.in_group(attr.gid if tag == GROUP_OBJ else ident):
                in_a_group = True
                if perm & want == want:
                    return mask & want == want
        elif tag == OTHER:
            return not in_a_group and perm & want == want
    return False


def is_owner(caller: Caller, attr: Attr) -> bool:
    return caller.trusted or caller.uid in (0, attr.uid)


def check_owner(caller: Caller, attr: Attr) -> None:
    if not is_owner(caller, attr):
        raise FsError(Code.NOT_PERMITTED, f"uid {caller.uid} does not own {attr.ino:#x}")


def check_write_open(txn: Txn, caller: Caller, attr: Attr) -> None:
    """Whether the caller may change contents. An owner always may: a descriptor that was opened
    for writing outlives a chmod, and an owner could chmod anyway."""
    if not is_owner(caller, attr):
        check_access(txn, caller, attr, WRITE)


def check_removal(txn: Txn, caller: Caller, directory: Attr, victim: Attr) -> None:
    """Whether an entry may be taken out of a directory: write access, and under the sticky bit
    only by an owner of either."""
    if caller.trusted:
        return
    check_access(txn, caller, directory, WRITE | EXEC)
    if directory.mode & stat.S_ISVTX and caller.uid not in (0, directory.uid, victim.uid):
        raise FsError(Code.NOT_PERMITTED, "sticky directory")


def keeps_setgid(caller: Caller, gid: int) -> bool:
    """Whether the caller may give an inode of group `gid` the setgid bit. Asked for trusted
    callers too, where no kernel has asked."""
    return caller.uid == 0 or caller.in_group(gid)
