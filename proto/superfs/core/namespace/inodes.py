"""What several verbs do to the records of one inode: stamp, save, file elsewhere, let go."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from superfs.core.namespace.access import keeps_setgid
from superfs.core.namespace.bits import ACL_FLAGS, HAS_CAPABILITY, HAS_XATTR, INLINE, MULTI
from superfs.core.namespace.txn import Orphan

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Caller, Directory, Txn

CAPABILITY_XATTR = b"security.capability"
RECORD_BYTES = 1024
"""What a new name with its inode takes in the store, generously, for `Txn.has_room`."""


def stamp(txn: Txn, attr: Attr) -> None:
    """The inode changes now. `change` grows with every change, also with two in one commit: a
    reader of inline contents relies on seeing any later change by it."""
    attr.ctime_ns = txn.now_ns
    attr.change = max(txn.commit, attr.change + 1)


def stamp_entries(txn: Txn, directory: Directory, entries: int, subdirectories: int = 0) -> None:
    """`directory` got or lost so many entries now."""
    attr = directory.attr
    attr.size += entries
    attr.nlink += subdirectories
    attr.mtime_ns = attr.ctime_ns = txn.now_ns
    attr.change = max(txn.commit, attr.change + 1)
    assert attr.size >= 0, attr
    assert attr.nlink >= 2, attr


def save(txn: Txn, attr: Attr, directory: Directory | None = None) -> None:
    """Writes changed attributes back to where `find` found them."""
    if directory is not None:
        directory.attr = attr
        txn.put_directory(directory)
    elif attr.nlink == 0:
        orphan = txn.get_orphan(attr.ino)
        assert orphan is not None, attr
        orphan.attr = attr
        txn.put_orphan(orphan)
    else:
        txn.put_inode(attr)


def save_access(txn: Txn, attr: Attr, directory: Directory | None) -> None:
    """As `save`, when mode, owner, group or ACL flags may have changed: for a directory the copy
    with its name, which path walking believes, changes too."""
    save(txn, attr, directory)
    if directory is None or not directory.name:
        return
    dentry = txn.get_dentry(directory.parent, directory.name)
    assert dentry is not None, directory
    assert dentry.ino == attr.ino, directory
    dentry.mode, dentry.uid, dentry.gid = attr.mode, attr.uid, attr.gid
    dentry.flags = attr.flags & ACL_FLAGS
    txn.put_dentry(directory.parent, directory.name, dentry)


def _refile_content(txn: Txn, attr: Attr, place: int) -> None:
    """Moves xattrs and inline contents of (attr.place, ino) to (place, ino)."""
    old, ino = attr.place, attr.ino
    if attr.flags & HAS_XATTR:
        for name in list(txn.list_xattrs(old, ino)):
            value = txn.get_xattr(old, ino, name)
            assert value is not None, (ino, name)
            txn.delete_xattr(old, ino, name)
            txn.put_xattr(place, ino, name, value)
    if attr.flags & INLINE and attr.size:
        data = txn.get_inline(old, ino)
        if data is not None:
            txn.delete_inline(old, ino)
            txn.put_inline(place, ino, data)


def refile(txn: Txn, attr: Attr, place: int) -> None:
    """Files an inode that has a name under another place; the caller has changed `attr` and wants
    it written. Where it goes is kept at home, for references with an old hint."""
    old, ino = attr.place, attr.ino
    assert old != place, attr
    txn.delete_inode(old, ino)
    _refile_content(txn, attr, place)
    attr.place = place
    if place != ino:
        txn.put_moved(ino, place)
    elif txn.get_moved(ino) is not None:
        txn.delete_moved(ino)
    txn.put_inode(attr)


def delete_content(txn: Txn, attr: Attr) -> None:
    """xattrs, inline contents and data of an inode that goes for good."""
    place, ino = attr.place, attr.ino
    if attr.flags & HAS_XATTR:
        for name in list(txn.list_xattrs(place, ino)):
            txn.delete_xattr(place, ino, name)
    if attr.flags & INLINE and attr.size and txn.get_inline(place, ino) is not None:
        txn.delete_inline(place, ino)
    if attr.data_generation:
        txn.reap_data(attr)


def remove_link(txn: Txn, caller: Caller, attr: Attr, keep: bool) -> None:
    """An inode that is not a directory lost one name. With its last name go its records, unless
    somebody has it open: then it stays as an orphan of those sessions."""
    attr.nlink -= 1
    stamp(txn, attr)
    if attr.nlink:
        txn.put_inode(attr)
        return
    ino = attr.ino
    txn.delete_inode(attr.place, ino)
    if not attr.flags & MULTI and txn.get_moved(ino) is not None:
        txn.delete_moved(ino)
    holders = set(txn.open_sessions(ino, attr.place))
    if keep:
        holders.add(caller.session)
    if not holders:
        delete_content(txn, attr)
        return
    if attr.place != ino:
        _refile_content(txn, attr, ino)
        attr.place = ino
    txn.put_orphan(Orphan(attr, holders))


def remove_directory(txn: Txn, directory: Directory) -> Attr:
    """An empty directory lost its name. Returns what is left of it."""
    attr = directory.attr
    assert attr.size == 0, attr
    attr.nlink = 0
    stamp(txn, attr)
    txn.delete_directory(attr.ino)
    holders = set(txn.open_sessions(attr.ino))
    if holders:
        txn.put_orphan(Orphan(attr, holders))
    else:
        delete_content(txn, attr)
    return attr


def kill_privileges(txn: Txn, caller: Caller, attr: Attr) -> None:
    """setuid, setgid and file capabilities do not survive a change of contents or owner. A setgid
    bit without group execution once meant mandatory locking: only an outsider loses that."""
    mode = attr.mode
    if mode & stat.S_ISUID:
        mode &= ~stat.S_ISUID
    if mode & stat.S_ISGID and (mode & stat.S_IXGRP or not keeps_setgid(caller, attr.gid)):
        mode &= ~stat.S_ISGID
    attr.mode = mode
    kill_capability(txn, attr)


def kill_capability(txn: Txn, attr: Attr) -> None:
    if attr.flags & HAS_CAPABILITY:
        txn.delete_xattr(attr.place, attr.ino, CAPABILITY_XATTR)
        attr.flags &= ~HAS_CAPABILITY
        if not txn.list_xattrs(attr.place, attr.ino):
            attr.flags &= ~HAS_XATTR
