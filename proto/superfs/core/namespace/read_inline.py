"""read_inline: contents of a small file, or the target of a symlink.

Contents may be shorter than the file: what is missing at the end reads as zeros. NOT_INLINE says
that the contents are on data daemons by now; the attributes say where.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.namespace.contents import may_read, stored
from superfs.core.namespace.find import find_inode
from superfs.core.namespace.outcome import Outcome

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Caller, Ref, Txn


def read_inline(txn: Txn, caller: Caller, inode: Ref) -> Outcome:
    attr = find_inode(txn, inode)
    if attr.is_dir:
        raise FsError(Code.IS_DIRECTORY)
    if not attr.is_inline:
        raise FsError(Code.NOT_INLINE if attr.is_regular else Code.INVALID)
    if not may_read(txn, caller, attr):
        raise FsError(Code.ACCESS, f"uid {caller.uid} reads mode {attr.mode:o}")
    return Outcome(attr, data=stored(txn, attr))
