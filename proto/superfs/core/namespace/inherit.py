"""What a new inode takes from its directory: permission bits and ACLs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.namespace.acl import (
    ACCESS_XATTR,
    DEFAULT_XATTR,
    inherit_acl,
    pack_acl,
    parse_acl,
)
from superfs.core.namespace.bits import HAS_ACL, HAS_DEFAULT_ACL, HAS_XATTR

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Caller, Txn


def inherit(
    txn: Txn, caller: Caller, parent: Attr, mode: int
) -> tuple[int, bytes | None, bytes | None]:
    """Mode, access ACL and the default ACL that a new directory would get. A default ACL takes
    the place of the umask."""
    if parent.flags & HAS_DEFAULT_ACL:
        default = txn.get_xattr(parent.place, parent.ino, DEFAULT_XATTR)
        if default is not None:
            acl, mode, equivalent = inherit_acl(parse_acl(default), mode)
            return mode, None if equivalent else pack_acl(acl), default
    return mode & ~(caller.umask & 0o777), None, None


def put_acls(txn: Txn, attr: Attr, access: bytes | None, default: bytes | None) -> None:
    """Of a new inode; `attr` is written by the caller."""
    if access is not None:
        txn.put_xattr(attr.place, attr.ino, ACCESS_XATTR, access)
        attr.flags |= HAS_XATTR | HAS_ACL
    if default is not None:
        txn.put_xattr(attr.place, attr.ino, DEFAULT_XATTR, default)
        attr.flags |= HAS_XATTR | HAS_DEFAULT_ACL
