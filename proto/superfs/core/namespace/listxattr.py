"""listxattr: the names of extended attributes, each behind a NUL but the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.cachedirs import CACHE_XATTR
from superfs.core.namespace.bits import HAS_XATTR
from superfs.core.namespace.find import find_inode
from superfs.core.namespace.outcome import Outcome

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Caller, Ref, Txn


def listxattr(txn: Txn, caller: Caller, inode: Ref) -> Outcome:
    attr = find_inode(txn, inode)
    if not attr.flags & HAS_XATTR:
        return Outcome(attr)
    names = txn.list_xattrs(attr.place, attr.ino)
    # trusted.* is hidden from everybody but root, on Linux by each file system itself; what makes
    # a cache of a directory from everybody, so that copies of it are none.
    hidden = (CACHE_XATTR,) if caller.uid == 0 else (CACHE_XATTR, b"trusted.")
    shown = [n for n in names if not n.startswith(hidden)]
    return Outcome(attr, data=b"\0".join(shown))
