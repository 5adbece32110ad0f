"""Our attributes in the kernel's form and in pyfuse3's, and how long the kernel may repeat them."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from pyfuse3 import EntryAttributes, StatvfsData

from superfs.mount.desk.protocol import BLOCK_BYTES, DIRECTORY_IO_BYTES, FILE_IO_BYTES, pack_attr
from superfs.mount.guard import GUARDED_S

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.core.namespace.outcome import FsStat
    from superfs.mount.guard import Unguarded
    from superfs.mount.nodes import Node
    from superfs.mount.watched import Watched

STATFS_BLOCK_BYTES = 4096
NAME_MAX = 255
REUSE_S = 0.05
"""An answer takes time to reach the kernel, which counts from then: that is taken off."""
GONE_S = 1.0
"""Of a file without a name, whose attributes change here only."""


def shown(node: Node) -> Attr:
    """With what was written here on top."""
    if node.file is not None and node.file.contents is not None:
        return node.file.contents.attr
    assert node.attr is not None, "an answer without attributes"
    return node.attr


def packed(node: Node) -> bytes:
    """struct fuse_attr; made once and kept with the node until its attributes change."""
    if node.file is not None and node.file.contents is not None:
        return pack_attr(node.number, node.file.contents.attr, node.atime_ns)
    if node.packed is None:
        assert node.attr is not None, "an answer without attributes"
        node.packed = pack_attr(node.number, node.attr, node.atime_ns)
    return node.packed


def is_new_in_contention(parent: Node, lookups: int) -> bool:
    """Whether the kernel is told of an inode that it did not know, in a directory where others
    change things at the same time: it may keep no attributes then. Before it has taken them in it
    cannot be told to drop them."""
    return parent.contention is not None and lookups <= 1


def may_be_taken_in_late(node: Node, parent: Node) -> bool:
    """Whether attributes in the answer to create, mknod, mkdir, symlink or link may not be kept:
    the kernel believes them when it takes them in, over whatever was dropped meanwhile. An inode
    that it has known before another process may have changed by then. (`node` is counted.)"""
    return parent.contention is not None or node.nlookup > 1


class Validity:
    """How long the kernel may repeat what it is told: what is left of the lease, or, where somebody
    sees to its end (guard.py), much longer."""

    def __init__(self, guard: Unguarded, watched: Watched) -> None:
        self._guard = guard
        self._watched = watched

    def attr_s(self, node: Node, now: float) -> float:
        """In doubt, every use is to come here, whatever name it was found by; and while it is being
        changed. What is written here gets its times when it is published, by nobody's request."""
        if node.doubts or node.changing or _is_being_written(node):
            return 0
        node.told = True
        if node.gone:
            return GONE_S
        lease = node.lease
        left = lease.until - now - REUSE_S
        if left <= 0:
            return 0
        if not (self._guard.is_on and lease.id) or node.attr is None:
            return left
        if node.attr.is_dir:
            return GUARDED_S if self._watched.watch(node.number) else left
        return GUARDED_S if node.file is None or node.file.slot >= 0 else left

    def entry_s(self, node: Node, now: float) -> float:
        lease = node.named
        left = lease.until - now - REUSE_S
        if left <= 0:
            return 0
        return GUARDED_S if self._guard.is_on and lease.id else left


def _is_being_written(node: Node) -> bool:
    file = node.file
    return file is not None and file.contents is not None and file.contents.is_dirty


def encode(node: Node, validity: Validity, now: float) -> EntryAttributes:
    # First how long it is good: what is published meanwhile has other times.
    attr_s, entry_s = validity.attr_s(node, now), validity.entry_s(node, now)
    attr = shown(node)
    entry = EntryAttributes()
    entry.st_ino = node.number
    entry.generation = node.generation
    entry.st_mode = attr.mode
    entry.st_nlink = attr.nlink
    entry.st_uid = attr.uid
    entry.st_gid = attr.gid
    entry.st_rdev = attr.rdev
    entry.st_size = attr.size
    entry.st_blocks = 0 if attr.is_dir else -(-attr.size // BLOCK_BYTES)
    entry.st_blksize = DIRECTORY_IO_BYTES if attr.is_dir else FILE_IO_BYTES
    entry.st_atime_ns = max(attr.atime_ns, node.atime_ns) if node.atime_ns else attr.atime_ns
    entry.st_mtime_ns = attr.mtime_ns
    entry.st_ctime_ns = attr.ctime_ns
    entry.attr_timeout = attr_s
    entry.entry_timeout = entry_s
    return entry


def negative(timeout_s: float) -> EntryAttributes:
    """There is no such name, and the kernel may believe it for so long."""
    entry = EntryAttributes()
    entry.st_ino = 0
    entry.entry_timeout = timeout_s
    return entry


def dot(number: int) -> EntryAttributes:
    """ "." and "..": a listing tells their numbers and that they are directories, no more."""
    entry = EntryAttributes()
    entry.st_ino = number
    entry.st_mode = stat.S_IFDIR
    entry.entry_timeout = entry.attr_timeout = 0
    return entry


def encode_statfs(figures: FsStat) -> StatvfsData:
    answer = StatvfsData()
    answer.f_bsize = answer.f_frsize = STATFS_BLOCK_BYTES
    answer.f_blocks = figures.bytes_total // STATFS_BLOCK_BYTES
    answer.f_bfree = answer.f_bavail = figures.bytes_free // STATFS_BLOCK_BYTES
    answer.f_files = figures.inodes_used + figures.inodes_free
    answer.f_ffree = answer.f_favail = figures.inodes_free
    answer.f_namemax = NAME_MAX
    return answer
