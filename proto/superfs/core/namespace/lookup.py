"""lookup: a name in a directory to its inode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.namespace.access import enter
from superfs.core.namespace.contents import inline_of
from superfs.core.namespace.find import inode_of
from superfs.core.namespace.names import check_name
from superfs.core.namespace.outcome import Outcome

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Caller, Ref, Txn


def lookup(
    txn: Txn,
    caller: Caller,
    dir: Ref,  # noqa: A002
    name: bytes,
    *,
    want_inline: bool = False,
) -> Outcome:
    directory = enter(txn, caller, dir)
    check_name(name)
    dentry = txn.get_dentry(dir.ino, name)
    if dentry is None:
        raise FsError(Code.NOT_FOUND, repr(name))
    attr = inode_of(txn, directory.attr.ino, dentry)
    if want_inline and attr.is_inline:
        return Outcome(attr, data=inline_of(txn, caller, attr))
    return Outcome(attr)
