"""rmdir: removes an empty directory. `other` is what is left of it."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.namespace.access import check_removal, enter
from superfs.core.namespace.find import directory_of, inode_of
from superfs.core.namespace.inodes import remove_directory, stamp_entries
from superfs.core.namespace.names import check_name
from superfs.core.namespace.outcome import Outcome

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Caller, Ref, Txn


def rmdir(txn: Txn, caller: Caller, dir: Ref, name: bytes) -> Outcome:  # noqa: A002
    parent = enter(txn, caller, dir)
    check_name(name)
    ino = parent.attr.ino
    dentry = txn.get_dentry(ino, name)
    if dentry is None:
        raise FsError(Code.NOT_FOUND, repr(name))
    if not stat.S_ISDIR(dentry.mode):
        if not caller.trusted:
            check_removal(txn, caller, parent.attr, inode_of(txn, ino, dentry))
        raise FsError(Code.NOT_DIRECTORY, repr(name))
    directory = directory_of(txn, ino, dentry)
    check_removal(txn, caller, parent.attr, directory.attr)
    if directory.attr.size:
        raise FsError(Code.NOT_EMPTY, repr(name))

    txn.delete_dentry(ino, name)
    left = remove_directory(txn, directory)
    stamp_entries(txn, parent, -1, -1)
    txn.put_directory(parent)
    return Outcome(None, (parent.attr,), left)
