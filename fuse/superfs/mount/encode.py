"""Our attributes in pyfuse3's form, made once and kept with the node until they change."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from pyfuse3 import EntryAttributes, StatvfsData

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.core.namespace.outcome import FsStat
    from superfs.mount.nodes import Node

BLOCK_BYTES = 512
FILE_IO_BYTES = 128 * 1024  # what st_blksize recommends
STATFS_BLOCK_BYTES = 4096
NAME_MAX = 255
REUSE_S = 0.05
"""A listing repeats an entry as it is for so long, and takes that off its times."""
GONE_S = 1.0
"""Of a file without a name, whose attributes change here only."""


class Encoder:
    """The kernel may repeat an answer for what is left of its lease, never longer."""

    def entry(self, node: Node, now: float) -> EntryAttributes:
        entry = node.encoded
        if node.file is not None and node.file.contents is not None:
            entry = encode(node, node.file.contents.attr)
        elif entry is None:
            assert node.attr is not None, "an answer without attributes"
            node.encoded = entry = encode(node, node.attr)
        spent = now + REUSE_S
        node.encoded_until = spent
        left = GONE_S if node.gone else node.lease.until - spent
        # In doubt, every use is to come here, whatever name it was found by.
        entry.attr_timeout = left if left > 0 and not node.doubts else 0
        left = node.named.until - spent
        entry.entry_timeout = left if left > 0 else 0
        return entry


def encode(node: Node, attr: Attr) -> EntryAttributes:
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
    entry.st_blksize = STATFS_BLOCK_BYTES if attr.is_dir else FILE_IO_BYTES
    entry.st_atime_ns = max(attr.atime_ns, node.atime_ns) if node.atime_ns else attr.atime_ns
    entry.st_mtime_ns = attr.mtime_ns
    entry.st_ctime_ns = attr.ctime_ns
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
