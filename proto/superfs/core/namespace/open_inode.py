"""open: whether a caller may open an inode, and what it finds. Who has it open is the session's
business; the rule changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.namespace.access import READ, WRITE, check_access
from superfs.core.namespace.contents import inline_of
from superfs.core.namespace.find import find_inode
from superfs.core.namespace.outcome import Outcome

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Caller, Ref, Txn


def open_inode(
    txn: Txn, caller: Caller, inode: Ref, *, write: bool = False, want_inline: bool = False
) -> Outcome:
    """For an untrusted caller a writer needs the right to write, and only a reader to read: the
    wire does not tell O_WRONLY from O_RDWR, and contents are not sent to whom may not read."""
    attr = find_inode(txn, inode)
    if attr.is_dir and write:
        raise FsError(Code.IS_DIRECTORY)
    if attr.is_symlink:
        raise FsError(Code.LOOP, "a symlink is not opened")
    check_access(txn, caller, attr, WRITE if write else READ)
    if want_inline and attr.is_inline:
        return Outcome(attr, data=inline_of(txn, caller, attr))
    return Outcome(attr)
