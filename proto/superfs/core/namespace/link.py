"""link: one more name for an inode that is not a directory.

The first second link files the inode under its own number, where it stays. The entry it had
before is not rewritten: nobody knows its name here, and finding by name copes (find.inode_of).
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.limits import LINKS_MAX
from superfs.core.namespace.access import EXEC, READ, WRITE, check_access, enter, has_access
from superfs.core.namespace.bits import MULTI
from superfs.core.namespace.find import find_inode
from superfs.core.namespace.inodes import RECORD_BYTES, refile, stamp, stamp_entries
from superfs.core.namespace.names import check_name
from superfs.core.namespace.outcome import Outcome
from superfs.core.namespace.txn import Dentry

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Caller, Ref, Txn


def link(
    txn: Txn,
    caller: Caller,
    inode: Ref,
    dir: Ref,  # noqa: A002
    name: bytes,
) -> Outcome:
    attr = find_inode(txn, inode)
    directory = enter(txn, caller, dir)
    check_name(name)
    parent = directory.attr
    if txn.get_dentry(parent.ino, name) is not None:
        raise FsError(Code.EXISTS, repr(name))
    if not caller.trusted:
        _check_source(txn, caller, attr)
        check_access(txn, caller, parent, WRITE | EXEC)
    if attr.is_dir:
        raise FsError(Code.NOT_PERMITTED, "a second link to a directory")
    if attr.nlink == 0:
        raise FsError(Code.NOT_FOUND, f"inode {attr.ino:#x} has no name any more")
    if attr.nlink >= LINKS_MAX:
        raise FsError(Code.TOO_MANY_LINKS)
    if not txn.has_room(RECORD_BYTES):
        raise FsError(Code.NO_SPACE)

    attr.nlink += 1
    stamp(txn, attr)
    if attr.flags & MULTI:
        txn.put_inode(attr)
    else:
        attr.flags |= MULTI
        refile(txn, attr, attr.ino)
    txn.put_dentry(
        parent.ino,
        name,
        Dentry(attr.ino, attr.generation, stat.S_IFMT(attr.mode), flags=MULTI),
    )
    stamp_entries(txn, directory, 1)
    txn.put_directory(directory)
    return Outcome(attr, (parent,))


def _check_source(txn: Txn, caller: Caller, attr: Attr) -> None:
    """As Linux with protected_hardlinks: who does not own a file links it only if it is harmless
    and the caller could write it anyway."""
    if caller.uid in (0, attr.uid) or attr.is_dir:
        return
    mode = attr.mode
    harmless = (
        stat.S_ISREG(mode) and not mode & stat.S_ISUID and mode & 0o2010 != 0o2010
    ) and has_access(txn, caller, attr, READ | WRITE)
    if not harmless:
        raise FsError(Code.NOT_PERMITTED, "a hard link to somebody else's file")
