"""mkdir: a new directory under the number that its parent and name predict."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from superfs.core.attrs import Attr
from superfs.core.errors import Code, FsError
from superfs.core.ids import InodeId, directory_id, slot_of
from superfs.core.namespace.access import EXEC, WRITE, check_access, enter
from superfs.core.namespace.bits import ACL_FLAGS
from superfs.core.namespace.inherit import inherit, put_acls
from superfs.core.namespace.inodes import RECORD_BYTES, stamp_entries
from superfs.core.namespace.names import check_name
from superfs.core.namespace.outcome import Outcome
from superfs.core.namespace.txn import Dentry, Directory

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Caller, Ref, Txn

_VERSION_MAX = (1 << 31) - 1


def mkdir(
    txn: Txn,
    caller: Caller,
    dir: Ref,  # noqa: A002
    name: bytes,
    mode: int,
    *,
    version_min: int = 0,
) -> Outcome:
    directory = enter(txn, caller, dir)
    check_name(name)
    parent = directory.attr
    if txn.get_dentry(parent.ino, name) is not None:
        raise FsError(Code.EXISTS, repr(name))
    check_access(txn, caller, parent, WRITE | EXEC)
    if not txn.has_room(RECORD_BYTES):
        raise FsError(Code.NO_SPACE)
    ino = _free_number(txn, parent.ino, name, version_min)

    # Only the sticky bit may come along with the permissions; setgid comes from the parent.
    mode, access, default = inherit(txn, caller, parent, stat.S_IFDIR | mode & 0o1777)
    setgid = parent.mode & stat.S_ISGID
    now = txn.now_ns
    new = Attr(
        ino, txn.new_generation(slot_of(ino)), ino, mode | setgid, 2,
        caller.uid, parent.gid if setgid else caller.gid, 0, 0, now, now, now, now,
        change=txn.commit,
    )  # fmt: skip
    put_acls(txn, new, access, default)
    txn.put_directory(Directory(new, parent.ino, name, directory.layout))
    txn.put_dentry(
        parent.ino,
        name,
        Dentry(ino, new.generation, new.mode, new.uid, new.gid, new.flags & ACL_FLAGS),
    )
    stamp_entries(txn, directory, 1, 1)
    txn.put_directory(directory)
    return Outcome(new, (parent,))


def _free_number(txn: Txn, parent: int, name: bytes, version_min: int) -> InodeId:
    """Of a version that nobody uses: a directory that was renamed away, or is removed but still
    open, keeps its number. Who makes the same name and moves it away a thousand times uses as
    many: the search goes ahead in steps that double, and then back to the first free one."""
    if not 0 <= version_min <= _VERSION_MAX:
        raise FsError(Code.INVALID, f"version_min {version_min}")

    def is_free(version: int) -> bool:
        ino = directory_id(parent, name, version)
        return txn.get_directory(ino) is None and txn.get_orphan(ino) is None

    used, free, step = version_min - 1, version_min, 1
    while not is_free(free):
        used, free, step = free, free + step, 2 * step
        if free > 2 * _VERSION_MAX:
            raise FsError(Code.NO_SPACE, f"no free number for directory {name!r}")
    while free - used > 1:
        middle = (used + free) // 2
        if is_free(middle):
            free = middle
        else:
            used = middle
    return directory_id(parent, name, free)
