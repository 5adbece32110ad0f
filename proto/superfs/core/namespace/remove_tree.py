"""remove_tree: removes a name and everything below it, deepest first, a limited number of entries
a call. `number` is how many went; with `more` the caller calls again.

Nothing is remembered between calls: what is left is simply a smaller tree. A refusal is an error
when it comes first in a call, else the call ends there and the next one meets it.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.ids import ROOT
from superfs.core.limits import REMOVE_TREE_ENTRIES_MAX
from superfs.core.namespace.access import EXEC, READ, check_access, check_removal, enter
from superfs.core.namespace.find import directory_of, inode_of
from superfs.core.namespace.inodes import remove_directory, remove_link, stamp_entries
from superfs.core.namespace.names import check_name
from superfs.core.namespace.outcome import Outcome

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Caller, Directory, Ref, Txn

_LIST_ENTRIES = 256


def remove_tree(
    txn: Txn,
    caller: Caller,
    dir: Ref,  # noqa: A002
    name: bytes,
    limit: int,
) -> Outcome:
    top = enter(txn, caller, dir)
    check_name(name)
    dentry = txn.get_dentry(top.attr.ino, name)
    if dentry is None:
        raise FsError(Code.NOT_FOUND, repr(name))
    assert dentry.ino != ROOT, "the root has no name"
    walk = _Walk(txn, caller, min(max(limit, 1), REMOVE_TREE_ENTRIES_MAX))
    if not stat.S_ISDIR(dentry.mode):
        attr = walk.remove_file(top, name, inode_of(txn, top.attr.ino, dentry))
        txn.put_directory(top)
        return Outcome(None, (top.attr,), attr, number=1)
    left = walk.remove_below(top, directory_of(txn, top.attr.ino, dentry))
    return Outcome(None, (top.attr,), left, number=walk.removed, more=left is None)


class _Walk:
    """One call: how much it has done, and the directories on the way down, each written once."""

    def __init__(self, txn: Txn, caller: Caller, limit: int) -> None:
        self.txn = txn
        self.caller = caller
        self.limit = limit
        self.removed = 0

    def remove_file(self, directory: Directory, name: bytes, attr: Attr) -> Attr:
        check_removal(self.txn, self.caller, directory.attr, attr)
        self.txn.delete_dentry(directory.attr.ino, name)
        remove_link(self.txn, self.caller, attr, keep=False)
        stamp_entries(self.txn, directory, -1)
        self.removed += 1
        return attr

    def remove_below(self, top: Directory, victim: Directory) -> Attr | None:
        """Returns what is left of `victim`, or None when the call ends before it is gone."""
        txn = self.txn
        path = [top, victim]
        left: Attr | None = None
        try:
            while len(path) > 1 and self.removed < self.limit:
                here = path[-1]
                if here.attr.size:
                    child = self._empty(here)
                    if child is not None:
                        path.append(child)
                    continue
                left = self._remove_empty(path[-2], here)
                path.pop()
        except FsError as error:
            if error.code not in (Code.ACCESS, Code.NOT_PERMITTED) or not self.removed:
                raise
        for directory in path:
            if txn.get_directory(directory.attr.ino) != directory:
                txn.put_directory(directory)
        return left if len(path) == 1 else None

    def _empty(self, here: Directory) -> Directory | None:
        """Removes files until the first subdirectory, which is returned, or the limit."""
        txn, ino = self.txn, here.attr.ino
        check_access(txn, self.caller, here.attr, READ | EXEC)
        wanted = min(_LIST_ENTRIES, self.limit - self.removed)
        entries = list(txn.list_dentries(ino, b"", wanted))
        if not entries:
            raise FsError(Code.DAMAGED, f"directory {ino:#x} counts entries that it has not")
        for name, dentry in entries:
            if stat.S_ISDIR(dentry.mode):
                return directory_of(txn, ino, dentry)
            self.remove_file(here, name, inode_of(txn, ino, dentry))
        return None

    def _remove_empty(self, parent: Directory, victim: Directory) -> Attr:
        check_removal(self.txn, self.caller, parent.attr, victim.attr)
        self.txn.delete_dentry(parent.attr.ino, victim.name)
        left = remove_directory(self.txn, victim)
        stamp_entries(self.txn, parent, -1, -1)
        self.removed += 1
        return left
