"""What the path-level API answers with: os.stat_result, directory entries, OSError."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from superfs.client.resolve import AnyPath
from superfs.core.errors import FsError
from superfs.core.limits import NAME_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.core.attrs import Attr
    from superfs.core.namespace.outcome import FsStat

BLOCK_BYTES = 4096
IO_BYTES = 256 * 1024
"""st_blksize: what a buffered reader asks for at once."""

Name = TypeVar("Name", str, bytes)
Follow = Callable[[AnyPath], os.stat_result]
"""Asks for what is behind a symlink."""


_ORDER = [
    "st_mode",
    "st_ino",
    "st_dev",
    "st_nlink",
    "st_uid",
    "st_gid",
    "st_size",
    "-",
    "-",
    "-",
    "st_atime",
    "st_mtime",
    "st_ctime",
    "st_atime_ns",
    "st_mtime_ns",
    "st_ctime_ns",
    "st_blksize",
    "st_blocks",
    "st_rdev",
]
_NS = 1_000_000_000


def stat_result(attr: Attr, device: int = 0) -> os.stat_result:
    """All fields that os.stat fills on Linux."""
    size = attr.size
    atime_ns, mtime_ns, ctime_ns = attr.atime_ns, attr.mtime_ns, attr.ctime_ns
    # In this order (_ORDER) it takes a third of the time that naming the fields takes.
    return os.stat_result(
        (
            attr.mode, attr.ino, device, attr.nlink, attr.uid, attr.gid, size,
            atime_ns // _NS, mtime_ns // _NS, ctime_ns // _NS,
            atime_ns / 1e9, mtime_ns / 1e9, ctime_ns / 1e9, atime_ns, mtime_ns, ctime_ns,
            IO_BYTES, -(-size // 512), attr.rdev,
        )
    )  # fmt: skip


_probe = os.stat_result(range(len(_ORDER)))
assert all(getattr(_probe, name) == place for place, name in enumerate(_ORDER) if name != "-")


def statvfs_result(s: FsStat, device: int = 0) -> os.statvfs_result:
    blocks, free = s.bytes_total // BLOCK_BYTES, s.bytes_free // BLOCK_BYTES
    files = s.inodes_used + s.inodes_free
    return os.statvfs_result(
        (BLOCK_BYTES, BLOCK_BYTES, blocks, free, free, files, s.inodes_free, s.inodes_free, 0,
         NAME_BYTES_MAX, device)
    )  # fmt: skip


class DirEntry(Generic[Name]):
    """As os.DirEntry: attributes came with the listing, nothing asks again, except following a
    symlink."""

    __slots__ = ("_follow", "attr", "device", "name", "path")

    name: Name
    path: Name
    attr: Attr
    """Not of os.DirEntry, as `device` (st_dev): what came with the listing."""
    device: int

    def __init__(self, name: Name, path: Name, attr: Attr, follow: Follow, device: int) -> None:
        self.name = name
        self.path = path
        self.attr = attr
        self._follow = follow
        self.device = device

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"

    def __fspath__(self) -> Name:
        return self.path

    def inode(self) -> int:
        return self.attr.ino

    def is_symlink(self) -> bool:
        return self.attr.is_symlink

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return stat.S_ISDIR(self._mode(follow_symlinks))

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return stat.S_ISREG(self._mode(follow_symlinks))

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        if follow_symlinks and self.attr.is_symlink:
            return self._follow(self.path)
        return stat_result(self.attr, self.device)

    def _mode(self, follow: bool) -> int:
        if not (follow and self.attr.is_symlink):
            return self.attr.mode
        try:
            return self._follow(self.path).st_mode
        except FileNotFoundError:
            return 0


def os_error(error: FsError, *paths: AnyPath) -> OSError:
    """The errno, with the path or the two paths that it is about."""
    names = [path if isinstance(path, (str, bytes)) else os.fspath(path) for path in paths]
    reason = os.strerror(error.errno)
    if len(names) == 2:
        return OSError(error.errno, reason, names[0], None, names[1])
    return OSError(error.errno, reason, *names)


@contextmanager
def os_errors(*paths: AnyPath) -> Iterator[None]:
    try:
        yield
    except FsError as error:
        raise os_error(error, *paths) from error
