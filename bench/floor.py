"""The floor: what FUSE itself costs. A file system in memory, mounted by the very code and with the
very options of superfs-mount, that answers every request at once and does nothing else.

    python bench/floor.py MOUNTPOINT [--files 1000] [--bytes 4096] [-o OPTIONS]

It begins with one directory `d` of so many files of so many bytes, and takes what is written to it:
files, directories, symbolic links, renames. It has no hard links, no extended attributes, no
locks; everything is gone when it is unmounted, and then it ends.
"""

from __future__ import annotations

import argparse
import errno
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pyfuse3
import trio

from superfs.mount import kernel
from superfs.mount.options import MountConfig, MountOptions, parse_options

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = pyfuse3.ROOT_INODE
BLOCK = 4096
SPACE_BLOCKS = 1 << 24  # what statfs says: 64 GiB
LEASE_S = 20.0
"""What the kernel may believe, as under a lease: there is nobody else here who could change it."""


class Inode:
    __slots__ = ("children", "contents", "entry", "nlookup", "opens", "parent")

    def __init__(self, entry: pyfuse3.EntryAttributes) -> None:
        self.entry = entry
        self.contents: bytes | bytearray = b""
        self.children: dict[bytes, Inode] = {}
        self.parent: Inode = self
        self.nlookup = self.opens = 0


class Listing:
    """What an open directory shows: as it was when it was first read."""

    __slots__ = ("entries", "inode")

    def __init__(self, inode: Inode) -> None:
        self.inode = inode
        self.entries: list[tuple[bytes, Inode]] = []


class Floor(pyfuse3.Operations):
    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, files: int, size: int, options: MountOptions) -> None:
        self.enable_acl = options.acl
        self.begun = trio.Event()
        self._timeouts = options.entry_timeout_s or LEASE_S, options.attr_timeout_s or LEASE_S
        self._next = int(ROOT)
        self._table: dict[int, Inode] = {}
        self._listings: dict[int, Listing] = {}
        self._next_listing = 1
        root = self._new(stat.S_IFDIR | 0o755, 0, 0)
        root.nlookup = 1
        filled = self._new(stat.S_IFDIR | 0o755, 0, 0)
        self._hang(root, b"d", filled)
        for i in range(files):
            file = self._new(stat.S_IFREG | 0o644, 0, 0)
            file.contents, file.entry.st_size = bytes(size), size
            self._hang(filled, b"f%06d" % i, file)

    def init(self) -> None:
        self.begun.set()

    # ---- inodes and names

    def _new(self, mode: int, uid: int, gid: int) -> Inode:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino, self._next = self._next, self._next + 1
        entry.st_mode, entry.st_uid, entry.st_gid = mode, uid, gid
        entry.st_nlink = 2 if stat.S_ISDIR(mode) else 1
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = time.time_ns()
        entry.entry_timeout, entry.attr_timeout = self._timeouts
        inode = self._table[entry.st_ino] = Inode(entry)
        return inode

    def _hang(self, parent: Inode, name: bytes, inode: Inode) -> None:
        parent.children[name] = inode
        inode.parent = parent
        self._touch(parent)

    def _touch(self, inode: Inode) -> None:
        inode.entry.st_mtime_ns = inode.entry.st_ctime_ns = time.time_ns()

    def _make(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> Inode:
        parent = self._table[parent_inode]
        if name in parent.children:
            raise pyfuse3.FUSEError(errno.EEXIST)
        inode = self._new(mode & ~ctx.umask, ctx.uid, ctx.gid)
        self._hang(parent, name, inode)
        inode.nlookup = 1
        return inode

    def _cut(self, parent: Inode, name: bytes) -> None:
        inode = parent.children.pop(name)
        inode.entry.st_nlink = 0
        self._touch(parent)
        self._drop_unused(inode)

    def _drop_unused(self, inode: Inode) -> None:
        if not (inode.entry.st_nlink or inode.nlookup or inode.opens):
            self._table.pop(inode.entry.st_ino, None)

    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        try:
            inode = self._table[parent_inode].children[name]
        except KeyError:
            raise pyfuse3.FUSEError(errno.ENOENT) from None
        inode.nlookup += 1
        return inode.entry

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for number, count in inode_list:
            inode = self._table[number]
            inode.nlookup -= count
            self._drop_unused(inode)

    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._make(parent_inode, name, stat.S_IFDIR | mode, ctx).entry

    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._make(parent_inode, name, mode, ctx).entry

    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        inode = self._make(parent_inode, name, stat.S_IFLNK | 0o777, ctx)
        inode.contents, inode.entry.st_size = target, len(target)
        return inode.entry

    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return bytes(self._table[inode].contents)

    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._cut(self._table[parent_inode], name)

    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        parent = self._table[parent_inode]
        if parent.children[name].children:
            raise pyfuse3.FUSEError(errno.ENOTEMPTY)
        self._cut(parent, name)

    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        if flags:
            raise pyfuse3.FUSEError(errno.EINVAL)
        old, new = self._table[parent_inode_old], self._table[parent_inode_new]
        inode, replaced = old.children[name_old], new.children.get(name_new)
        if replaced is inode:
            return
        if replaced is not None:
            if replaced.children:
                raise pyfuse3.FUSEError(errno.ENOTEMPTY)
            self._cut(new, name_new)
        del old.children[name_old]
        self._touch(old)
        self._hang(new, name_new, inode)

    # ---- attributes

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._table[inode].entry

    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        file = self._table[inode]
        entry = file.entry
        if fields.update_size:
            grown = bytearray(file.contents[: attr.st_size])
            grown.extend(bytes(attr.st_size - len(grown)))
            file.contents, entry.st_size = grown, len(grown)
        if fields.update_mode:
            entry.st_mode = attr.st_mode
        if fields.update_uid:
            entry.st_uid = attr.st_uid
        if fields.update_gid:
            entry.st_gid = attr.st_gid
        if fields.update_atime:
            entry.st_atime_ns = attr.st_atime_ns
        if fields.update_mtime:
            entry.st_mtime_ns = attr.st_mtime_ns
        entry.st_ctime_ns = time.time_ns()
        return entry

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        found = pyfuse3.StatvfsData()
        found.f_bsize = found.f_frsize = BLOCK
        found.f_blocks = found.f_bfree = found.f_bavail = SPACE_BLOCKS
        found.f_files = found.f_ffree = found.f_favail = SPACE_BLOCKS
        found.f_namemax = 255
        return found

    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        raise pyfuse3.FUSEError(pyfuse3.ENOATTR)

    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        return []

    # ---- files: a handle is the number of its inode

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        inode = self._make(parent_inode, name, stat.S_IFREG | mode, ctx)
        inode.opens = 1
        return pyfuse3.FileInfo(inode.entry.st_ino, keep_cache=True), inode.entry

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        file = self._table[inode]
        file.opens += 1
        if flags & os.O_TRUNC:
            file.contents, file.entry.st_size = b"", 0
        return pyfuse3.FileInfo(inode, keep_cache=True)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return bytes(self._table[fh].contents[off : off + size])

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        file = self._table[fh]
        if not file.contents and off == 0:
            file.contents = buf  # of a small file that is all there ever comes
        else:
            contents = file.contents
            if not isinstance(contents, bytearray):
                contents = file.contents = bytearray(contents)
            if off > len(contents):
                contents.extend(bytes(off - len(contents)))
            contents[off : off + len(buf)] = buf
        file.entry.st_size = len(file.contents)
        self._touch(file)
        return len(buf)

    async def flush(self, fh: int) -> None:
        pass

    async def fsync(self, fh: int, datasync: bool) -> None:
        pass

    async def release(self, fh: int) -> None:
        file = self._table[fh]
        file.opens -= 1
        self._drop_unused(file)

    # ---- directories

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        number, self._next_listing = self._next_listing, self._next_listing + 1
        self._listings[number] = Listing(self._table[inode])
        return number

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self._listings[fh]
        inode = listing.inode
        if start_id == 0:
            listing.entries = [(b".", inode), (b"..", inode.parent), *inode.children.items()]
        entries = listing.entries
        for index in range(start_id, len(entries)):
            name, child = entries[index]
            if not pyfuse3.readdir_reply(token, name, child.entry, index + 1):
                break
            if index > 1:  # of . and .. the kernel keeps no count
                child.nlookup += 1

    async def releasedir(self, fh: int) -> None:
        del self._listings[fh]

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("mountpoint", type=Path)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--bytes", type=int, default=4096)
    parser.add_argument("-o", dest="options", default="")
    args = parser.parse_args()
    options = parse_options(args.options).apply(MountConfig()).mount
    path = Path(os.path.realpath(args.mountpoint))
    kernel.prepare(path, recover=True)
    mountpoint = kernel.mount(path, "floor", options)
    floor = Floor(args.files, args.bytes, options)
    pyfuse3.init(floor, f"/dev/fd/{mountpoint.fd}", {"default_permissions"})
    try:
        trio.run(serve, floor, path, options)
    finally:
        pyfuse3.close(unmount=mountpoint.fd is None)


async def serve(floor: Floor, path: Path, options: MountOptions) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tune, floor, path, options)
        await pyfuse3.main(min_tasks=options.tasks, max_tasks=options.tasks)


async def tune(floor: Floor, path: Path, options: MountOptions) -> None:
    """After the kernel's INIT, which sets its own."""
    await floor.begun.wait()
    kernel.tune(path, options)


if __name__ == "__main__":
    main()
