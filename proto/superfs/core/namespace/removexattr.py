"""removexattr. Removing an ACL that is not there is a success: the mode is all there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.namespace.bits import HAS_XATTR
from superfs.core.namespace.find import find
from superfs.core.namespace.inodes import save_access, stamp
from superfs.core.namespace.outcome import Outcome
from superfs.core.namespace.xattrs import ACLS, check_settable, check_xattr_name, drop_xattr

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Caller, Ref, Txn


def removexattr(txn: Txn, caller: Caller, inode: Ref, name: bytes) -> Outcome:
    check_xattr_name(name)
    attr, directory = find(txn, inode)
    check_settable(txn, caller, attr, name)
    exists = bool(attr.flags & HAS_XATTR) and (
        txn.get_xattr(attr.place, attr.ino, name) is not None
    )
    if not exists:
        if name in ACLS:
            return Outcome(attr)
        raise FsError(Code.NO_XATTR, repr(name))
    stamp(txn, attr)
    drop_xattr(txn, attr, name)
    save_access(txn, attr, directory)
    return Outcome(attr)
