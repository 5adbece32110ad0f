"""From a reference to a record, wherever the record is filed by now.

A reference carries a hint of the place. A single-link file is where the hint says, or where its
`moved` record says; a file that ever had two links is under its own number; one without a name is
an orphan. What is nowhere, or has another generation, is STALE.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.ids import DIRECTORY_BIT
from superfs.core.namespace.bits import MULTI

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Dentry, Directory, Ref, Txn


def find_directory(txn: Txn, ref: Ref) -> Directory:
    """A directory that has a name. One that was removed while open is NOT_FOUND, as entries of a
    dead directory are on Linux."""
    ino = ref.ino
    if not ino & DIRECTORY_BIT:
        raise FsError(Code.NOT_DIRECTORY, f"{ino:#x}")
    directory = txn.get_directory(ino)
    if directory is None:
        orphan = txn.get_orphan(ino)
        if orphan is not None and ref.generation in (0, orphan.attr.generation):
            raise FsError(Code.NOT_FOUND, f"directory {ino:#x} was removed")
        raise FsError(Code.STALE, f"no directory {ino:#x}")
    if ref.generation and directory.attr.generation != ref.generation:
        raise FsError(Code.STALE, f"directory {ino:#x} has another generation")
    return directory


def find(txn: Txn, ref: Ref) -> tuple[Attr, Directory | None]:
    """The attributes of any inode, and the record they are in where that is a directory's."""
    ino = ref.ino
    attr: Attr | None = None
    directory: Directory | None = None
    if ino & DIRECTORY_BIT:
        directory = txn.get_directory(ino)
        if directory is not None:
            attr = directory.attr
    else:
        if ref.place and ref.place != ino:
            attr = txn.get_inode(ref.place, ino)
        if attr is None:
            attr = txn.get_inode(ino, ino)
        if attr is None:
            place = txn.get_moved(ino)
            if place is not None:
                attr = txn.get_inode(place, ino)
    if attr is None:
        orphan = txn.get_orphan(ino)
        if orphan is None:
            raise FsError(Code.STALE, f"no inode {ino:#x}")
        attr = orphan.attr
    if ref.generation and attr.generation != ref.generation:
        raise FsError(Code.STALE, f"inode {ino:#x} has another generation")
    return attr, directory


def find_inode(txn: Txn, ref: Ref) -> Attr:
    return find(txn, ref)[0]


def inode_of(txn: Txn, directory: int, dentry: Dentry) -> Attr:
    """What an entry names. Its MULTI flag is a hint where to look first: the first link() of a
    file does not know under which name the file was known, and leaves that entry as it is."""
    if stat.S_ISDIR(dentry.mode):
        return directory_of(txn, directory, dentry).attr
    ino = dentry.ino
    attr = None if dentry.flags & MULTI else txn.get_inode(directory, ino)
    if attr is None:
        attr = txn.get_inode(ino, ino)
    if attr is None or attr.generation != dentry.generation:
        raise FsError(Code.DAMAGED, f"entry of {directory:#x} names a missing inode {ino:#x}")
    return attr


def directory_of(txn: Txn, parent: int, dentry: Dentry) -> Directory:
    directory = txn.get_directory(dentry.ino)
    if directory is None or directory.attr.generation != dentry.generation:
        raise FsError(Code.DAMAGED, f"entry of {parent:#x} names a missing {dentry.ino:#x}")
    return directory
