"""setxattr: sets an extended attribute. An access ACL also sets the mode, and an ACL that the mode
says all of is not kept; an empty one is removed."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.limits import XATTR_LIST_BYTES_MAX, XATTR_VALUE_BYTES_MAX
from superfs.core.namespace.access import keeps_setgid
from superfs.core.namespace.acl import ACCESS_XATTR, equivalent_mode, pack_acl, parse_acl
from superfs.core.namespace.bits import HAS_XATTR
from superfs.core.namespace.find import find
from superfs.core.namespace.inodes import save_access, stamp
from superfs.core.namespace.outcome import Outcome
from superfs.core.namespace.xattrs import (
    ACLS,
    check_settable,
    check_value,
    check_xattr_name,
    drop_xattr,
    flag_of,
)

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Caller, Ref, Txn

CREATE = 1
REPLACE = 2


def setxattr(
    txn: Txn, caller: Caller, inode: Ref, name: bytes, value: bytes, *, flags: int = 0
) -> Outcome:
    check_xattr_name(name)
    if flags & ~(CREATE | REPLACE):
        raise FsError(Code.INVALID, f"setxattr flags {flags:#x}")
    if len(value) > XATTR_VALUE_BYTES_MAX:
        raise FsError(Code.XATTR_TOO_BIG, f"{len(value)} bytes")
    attr, directory = find(txn, inode)
    check_settable(txn, caller, attr, name)
    check_value(name, value)
    mode = attr.mode
    keep = True
    if name in ACLS:
        acl = parse_acl(value) if value else []
        keep = bool(acl)
        if keep:
            value = pack_acl(acl)
        if acl and name == ACCESS_XATTR:
            bits, equivalent = equivalent_mode(acl)
            mode = mode & ~0o777 | bits
            keep = not equivalent
            if not keeps_setgid(caller, attr.gid):
                mode &= ~stat.S_ISGID
    exists = bool(attr.flags & HAS_XATTR) and (
        txn.get_xattr(attr.place, attr.ino, name) is not None
    )
    if exists and flags & CREATE:
        raise FsError(Code.EXISTS, repr(name))
    if not exists and flags & REPLACE:
        raise FsError(Code.NO_XATTR, repr(name))
    if keep:
        _check_room(txn, attr, name, value, exists)

    stamp(txn, attr)
    attr.mode = mode
    if keep:
        txn.put_xattr(attr.place, attr.ino, name, value)
        attr.flags |= HAS_XATTR | flag_of(name)
    elif exists:
        drop_xattr(txn, attr, name)
    save_access(txn, attr, directory)
    return Outcome(attr)


def _check_room(txn: Txn, attr: Attr, name: bytes, value: bytes, exists: bool) -> None:
    if not txn.has_room(len(name) + len(value)):
        raise FsError(Code.NO_SPACE)
    if not exists and attr.flags & HAS_XATTR:
        names = txn.list_xattrs(attr.place, attr.ino)
        if sum(len(n) + 1 for n in names) + len(name) + 1 > XATTR_LIST_BYTES_MAX:
            raise FsError(Code.NO_SPACE, "too many extended attributes")
