"""unlink: takes away a name that is not a directory's. `other` is what is left of the inode."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.namespace.access import check_removal, enter
from superfs.core.namespace.find import inode_of
from superfs.core.namespace.inodes import remove_link, stamp_entries
from superfs.core.namespace.names import check_name
from superfs.core.namespace.outcome import Outcome

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Caller, Ref, Txn


def unlink(
    txn: Txn,
    caller: Caller,
    dir: Ref,  # noqa: A002
    name: bytes,
    *,
    keep: bool = False,
) -> Outcome:
    directory = enter(txn, caller, dir)
    check_name(name)
    ino = directory.attr.ino
    dentry = txn.get_dentry(ino, name)
    if dentry is None:
        raise FsError(Code.NOT_FOUND, repr(name))
    attr = inode_of(txn, ino, dentry)
    check_removal(txn, caller, directory.attr, attr)
    if stat.S_ISDIR(dentry.mode):
        raise FsError(Code.IS_DIRECTORY, repr(name))

    txn.delete_dentry(ino, name)
    remove_link(txn, caller, attr, keep)
    stamp_entries(txn, directory, -1)
    txn.put_directory(directory)
    return Outcome(None, (directory.attr,), attr)
