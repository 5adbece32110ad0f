"""create: a new inode that is not a directory, with its name and its first contents.

Also what open(O_CREAT) needs: without `exclusive` an existing inode is the answer, with number 0;
a new one has number 1. Registering the opener is the session's business, not the rule's.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from superfs.core.attrs import NO_CHAIN, Attr
from superfs.core.errors import Code, FsError
from superfs.core.ids import slot_of
from superfs.core.limits import CHAINS_PER_FILE_MAX, INLINE_BYTES_MAX, SYMLINK_BYTES_MAX
from superfs.core.namespace.access import EXEC, WRITE, check_access, enter, keeps_setgid
from superfs.core.namespace.bits import INLINE
from superfs.core.namespace.find import inode_of
from superfs.core.namespace.inherit import inherit, put_acls
from superfs.core.namespace.inodes import RECORD_BYTES, stamp_entries
from superfs.core.namespace.names import check_name
from superfs.core.namespace.outcome import Outcome
from superfs.core.namespace.txn import Dentry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.core.namespace.txn import Caller, Ref, Txn

_TYPES = (
    stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK,
)  # fmt: skip
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)


def create(
    txn: Txn,
    caller: Caller,
    dir: Ref,  # noqa: A002
    name: bytes,
    mode: int,
    *,
    rdev: int = 0,
    target: bytes = b"",
    exclusive: bool = True,
    ino: int = 0,
    open: bool = False,  # noqa: A002
    inline: bytes = b"",
    layout: Sequence[int] = (),
) -> Outcome:
    directory = enter(txn, caller, dir)
    check_name(name)
    parent = directory.attr
    dentry = txn.get_dentry(parent.ino, name)
    if dentry is not None:
        if exclusive:
            raise FsError(Code.EXISTS, repr(name))
        if stat.S_ISDIR(dentry.mode):
            raise FsError(Code.IS_DIRECTORY, repr(name))
        return Outcome(inode_of(txn, parent.ino, dentry), (parent,))
    kind = stat.S_IFMT(mode)
    contents = check_new(caller, kind, rdev, target, inline)
    check_layout(layout)
    check_access(txn, caller, parent, WRITE | EXEC)
    if ino:
        check_reserved(txn, caller, parent.ino, ino)
    if not txn.has_room(RECORD_BYTES + len(contents)):
        raise FsError(Code.NO_SPACE)

    setgid = bool(parent.mode & stat.S_ISGID)
    if kind == stat.S_IFLNK:
        mode, acl = stat.S_IFLNK | 0o777, None
    else:
        mode, acl, _ = inherit(txn, caller, parent, kind | mode & 0o7777)
        if mode & 0o2010 == 0o2010 and setgid and not caller.trusted:
            # No setgid program of a group that its maker is not in. (A kernel has asked already.)
            mode = mode if keeps_setgid(caller, parent.gid) else mode & ~stat.S_ISGID
    if ino:
        txn.use_reserved(ino)
    now = txn.now_ns
    slot = slot_of(parent.ino)
    new = Attr(
        ino or txn.new_inode_ids(slot, 1), txn.new_generation(slot), parent.ino, mode, 1,
        caller.uid, parent.gid if setgid else caller.gid, len(contents),
        rdev if kind in _DEVICES else 0, now, now, now, now,
        INLINE if kind in (stat.S_IFREG, stat.S_IFLNK) else 0, 0, txn.commit,
        tuple(layout) if kind == stat.S_IFREG else (),
    )  # fmt: skip
    if acl is not None:
        put_acls(txn, new, acl, None)
    if contents:
        txn.put_inline(parent.ino, new.ino, contents)
    txn.put_inode(new)
    txn.put_dentry(parent.ino, name, Dentry(new.ino, new.generation, kind))
    stamp_entries(txn, directory, 1)
    txn.put_directory(directory)
    return Outcome(new, (parent,), number=1)


def check_new(caller: Caller, kind: int, rdev: int, target: bytes, inline: bytes) -> bytes:
    """What a new inode starts with: its contents or its target."""
    if kind not in _TYPES:
        raise FsError(Code.INVALID, f"create makes no inode of type {kind:#o}")
    if kind in _DEVICES and not caller.trusted and caller.uid != 0:
        raise FsError(Code.NOT_PERMITTED, "a device")
    if rdev < 0 or rdev >> 64:
        raise FsError(Code.INVALID, f"device number {rdev}")
    if kind == stat.S_IFLNK:
        if not target:
            raise FsError(Code.NOT_FOUND, "an empty symlink")
        if len(target) > SYMLINK_BYTES_MAX:
            raise FsError(Code.NAME_TOO_LONG, f"a target of {len(target)} bytes")
        if b"\0" in target:
            raise FsError(Code.INVALID, "NUL in a symlink")
        return target
    if inline and kind != stat.S_IFREG:
        raise FsError(Code.INVALID, "contents of a special file")
    if len(inline) > INLINE_BYTES_MAX:
        raise FsError(Code.INLINE_FULL, f"{len(inline)} bytes")
    return inline


def check_layout(layout: Sequence[int]) -> None:
    if len(layout) > CHAINS_PER_FILE_MAX or any(not 0 < c < NO_CHAIN for c in layout):
        raise FsError(Code.INVALID, f"a layout of {len(layout)} chains")


def check_reserved(txn: Txn, caller: Caller, directory: int, ino: int) -> None:
    """A number that the client brings along must be its own and unused, in its directory's slot."""
    if ino < 0 or ino >> 64 or slot_of(ino) != slot_of(directory):
        raise FsError(Code.INVALID, f"number {ino:#x} is not of this directory's slot")
    if txn.reserved_by(ino) != caller.session:
        raise FsError(Code.NOT_PERMITTED, f"number {ino:#x} is not reserved by this session")
