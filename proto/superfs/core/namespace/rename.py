"""rename, with RENAME_NOREPLACE and RENAME_EXCHANGE.

`attr` is the inode that was renamed; `other` what is left of the one it replaced, or the one it
was exchanged with. The order of checks is Linux's. A single-link file moves its records to the
directory that names it now; a directory keeps its number and changes its parent pointer.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.ids import ROOT
from superfs.core.namespace.access import EXEC, WRITE, check_access, check_removal, enter
from superfs.core.namespace.bits import ACL_FLAGS, MULTI
from superfs.core.namespace.find import directory_of, inode_of
from superfs.core.namespace.inodes import (
    refile,
    remove_directory,
    remove_link,
    stamp,
    stamp_entries,
)
from superfs.core.namespace.names import check_name
from superfs.core.namespace.outcome import Outcome
from superfs.core.namespace.txn import Dentry

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Caller, Directory, Ref, Txn

NOREPLACE = 1
EXCHANGE = 2
_DEPTH_MAX = 1 << 16


@dataclass(slots=True)
class _Named:
    """An inode under one of the two names."""

    attr: Attr
    directory: Directory | None  # its own record, where it is a directory


def rename(
    txn: Txn,
    caller: Caller,
    old_dir: Ref,
    old_name: bytes,
    new_dir: Ref,
    new_name: bytes,
    *,
    flags: int = 0,
    keep: bool = False,
) -> Outcome:
    if flags & ~(NOREPLACE | EXCHANGE) or flags == NOREPLACE | EXCHANGE:
        raise FsError(Code.INVALID, f"rename flags {flags:#x}")
    old = enter(txn, caller, old_dir)
    same_dir = new_dir.ino == old_dir.ino
    new = old if same_dir else enter(txn, caller, new_dir)
    check_name(old_name)
    check_name(new_name)
    old_dentry = txn.get_dentry(old.attr.ino, old_name)
    if old_dentry is None:
        raise FsError(Code.NOT_FOUND, repr(old_name))
    new_dentry = txn.get_dentry(new.attr.ino, new_name)
    if new_dentry is None and flags & EXCHANGE:
        raise FsError(Code.NOT_FOUND, repr(new_name))
    if new_dentry is not None and flags & NOREPLACE:
        raise FsError(Code.EXISTS, repr(new_name))
    source = _load(txn, old.attr.ino, old_dentry)
    target = None if new_dentry is None else _load(txn, new.attr.ino, new_dentry)
    if not same_dir:
        _check_loops(txn, old, new, source, target, exchange=bool(flags & EXCHANGE))
    if target is not None and target.attr.ino == source.attr.ino:
        return Outcome(source.attr, _dirs(old, new))
    _check_access(txn, caller, old, new, source, target, exchange=bool(flags & EXCHANGE))

    if target is not None and flags & EXCHANGE:
        _exchange(txn, old, old_name, new, new_name, source, target)
        return Outcome(source.attr, _dirs(old, new), target.attr)
    if target is not None and target.directory is not None and target.directory.attr.size:
        raise FsError(Code.NOT_EMPTY, repr(new_name))
    left = None
    if target is not None:
        left = _replace(txn, caller, new, target, keep)
    txn.delete_dentry(old.attr.ino, old_name)
    _name(txn, source, old, new, new_name)
    is_dir = source.directory is not None
    stamp_entries(txn, old, -1, -is_dir)
    stamp_entries(txn, new, 1, is_dir)
    _put_both(txn, old, new)
    return Outcome(source.attr, _dirs(old, new), left)


def _dirs(old: Directory, new: Directory) -> tuple[Attr, ...]:
    return (old.attr,) if old is new else (old.attr, new.attr)


def _put_both(txn: Txn, old: Directory, new: Directory) -> None:
    txn.put_directory(old)
    if new is not old:
        txn.put_directory(new)


def _load(txn: Txn, directory: int, dentry: Dentry) -> _Named:
    if stat.S_ISDIR(dentry.mode):
        record = directory_of(txn, directory, dentry)
        return _Named(record.attr, record)
    return _Named(inode_of(txn, directory, dentry), None)


def _check_loops(
    txn: Txn,
    old: Directory,
    new: Directory,
    source: _Named,
    target: _Named | None,
    *,
    exchange: bool,
) -> None:
    """A directory cannot go below itself, nor replace a directory above it."""
    if source.directory is not None and _is_above(txn, source.attr.ino, new):
        raise FsError(Code.INVALID, "a directory cannot move below itself")
    if target is not None and target.directory is not None and _is_above(txn, target.attr.ino, old):
        raise FsError(Code.INVALID if exchange else Code.NOT_EMPTY, "the target is above")


def _is_above(txn: Txn, ino: int, directory: Directory) -> bool:
    """Whether `ino` is `directory` or one of its ancestors."""
    here, parent = directory.attr.ino, directory.parent
    for _ in range(_DEPTH_MAX):
        if here == ino:
            return True
        if here == ROOT:
            return False
        here = parent
        record = txn.get_directory(here)
        if record is None:
            raise FsError(Code.DAMAGED, f"the parent {here:#x} of a directory is missing")
        parent = record.parent
    raise FsError(Code.DAMAGED, f"directories deeper than {_DEPTH_MAX}, or in a loop")


def _check_access(
    txn: Txn,
    caller: Caller,
    old: Directory,
    new: Directory,
    source: _Named,
    target: _Named | None,
    *,
    exchange: bool,
) -> None:
    check_removal(txn, caller, old.attr, source.attr)
    if target is None:
        check_access(txn, caller, new.attr, WRITE | EXEC)
    else:
        check_removal(txn, caller, new.attr, target.attr)
        if not exchange and source.directory is not None and target.directory is None:
            raise FsError(Code.NOT_DIRECTORY, "a directory over a file")
        if not exchange and source.directory is None and target.directory is not None:
            raise FsError(Code.IS_DIRECTORY, "a file over a directory")
    if old is not new:
        # Moving a directory changes its "..".
        if source.directory is not None:
            check_access(txn, caller, source.attr, WRITE)
        if exchange and target is not None and target.directory is not None:
            check_access(txn, caller, target.attr, WRITE)


def _replace(txn: Txn, caller: Caller, new: Directory, target: _Named, keep: bool) -> Attr:
    """The inode under the new name loses it."""
    if target.directory is not None:
        left = remove_directory(txn, target.directory)
        stamp_entries(txn, new, -1, -1)
        return left
    remove_link(txn, caller, target.attr, keep)
    stamp_entries(txn, new, -1)
    return target.attr


def _name(txn: Txn, moved: _Named, old: Directory, new: Directory, name: bytes) -> None:
    """Gives an inode that leaves `old` its name in `new`, and files it there."""
    attr = moved.attr
    stamp(txn, attr)
    place = new.attr.ino
    if moved.directory is not None:
        moved.directory.parent, moved.directory.name = place, name
        txn.put_directory(moved.directory)
        dentry = Dentry(
            attr.ino, attr.generation, attr.mode, attr.uid, attr.gid, attr.flags & ACL_FLAGS
        )
    else:
        multi = attr.flags & MULTI
        if multi or old is new:
            txn.put_inode(attr)
        else:
            refile(txn, attr, place)
        dentry = Dentry(attr.ino, attr.generation, stat.S_IFMT(attr.mode), flags=multi)
    txn.put_dentry(place, name, dentry)


def _exchange(
    txn: Txn,
    old: Directory,
    old_name: bytes,
    new: Directory,
    new_name: bytes,
    source: _Named,
    target: _Named,
) -> None:
    _name(txn, source, old, new, new_name)
    _name(txn, target, new, old, old_name)
    # Both directories keep their number of entries; one may have got a subdirectory for a file.
    moved = (source.directory is not None) - (target.directory is not None)
    stamp_entries(txn, old, 0, 0 if old is new else -moved)
    if new is not old:
        stamp_entries(txn, new, 0, moved)
    _put_both(txn, old, new)
