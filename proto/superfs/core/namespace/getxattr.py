"""getxattr: one extended attribute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.namespace.bits import HAS_XATTR
from superfs.core.namespace.find import find_inode
from superfs.core.namespace.outcome import Outcome
from superfs.core.namespace.xattrs import check_readable, check_xattr_name

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Caller, Ref, Txn


def getxattr(txn: Txn, caller: Caller, inode: Ref, name: bytes) -> Outcome:
    check_xattr_name(name)
    attr = find_inode(txn, inode)
    check_readable(txn, caller, attr, name)
    value = None
    if attr.flags & HAS_XATTR:
        value = txn.get_xattr(attr.place, attr.ino, name)
    if value is None:
        raise FsError(Code.NO_XATTR, repr(name))
    return Outcome(attr, data=value)
