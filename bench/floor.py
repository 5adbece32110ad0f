"""The floor: what FUSE itself costs. A file system in memory, mounted by the very code and with the
very options of superfs-mount, that answers every request at once and does nothing else.

    python bench/floor.py MOUNTPOINT [--files 1000] [--bytes 4096] [-o OPTIONS]

One directory `d` of so many files of so many bytes, read-only. Ends when it is unmounted.
"""

from __future__ import annotations

import argparse
import errno
import os
import stat
from pathlib import Path

import pyfuse3
import trio

from superfs.mount import kernel
from superfs.mount.options import MountConfig, MountOptions, parse_options

ROOT, DIRECTORY, FIRST_FILE = 1, 2, 3


class Floor(pyfuse3.Operations):
    supports_dot_lookup = False

    def __init__(self, files: int, size: int, options: MountOptions) -> None:
        self.enable_acl = options.acl
        self._timeouts = options.entry_timeout_s, options.attr_timeout_s
        self._data = bytes(size)
        directory = stat.S_IFDIR | 0o755
        self._entries = {
            ROOT: self._entry(ROOT, directory, 0),
            DIRECTORY: self._entry(DIRECTORY, directory, 0),
        }
        self._names = {(ROOT, b"d"): DIRECTORY}
        self._listing = [(b".", DIRECTORY), (b"..", ROOT)]
        for i in range(files):
            name, ino = b"f%06d" % i, FIRST_FILE + i
            self._entries[ino] = self._entry(ino, stat.S_IFREG | 0o644, size)
            self._names[DIRECTORY, name] = ino
            self._listing.append((name, ino))

    def _entry(self, ino: int, mode: int, size: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino, entry.st_mode, entry.st_size = ino, mode, size
        entry.entry_timeout, entry.attr_timeout = self._timeouts
        return entry

    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        try:
            return self._entries[self._names[parent_inode, name]]
        except KeyError:
            raise pyfuse3.FUSEError(errno.ENOENT) from None

    async def forget(self, inode_list: object) -> None:
        pass

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._entries[inode]

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(inode, keep_cache=True)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return self._data[off : off + size]

    async def flush(self, fh: int) -> None:
        pass

    async def release(self, fh: int) -> None:
        pass

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        return inode

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self._listing if fh == DIRECTORY else [(b"d", DIRECTORY)]
        for index in range(start_id, len(listing)):
            name, ino = listing[index]
            if not pyfuse3.readdir_reply(token, name, self._entries[ino], index + 1):
                break

    async def releasedir(self, fh: int) -> None:
        pass

    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        raise pyfuse3.FUSEError(pyfuse3.ENOATTR)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
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
    pyfuse3.init(floor, mountpoint.for_libfuse, kernel.fuse_options(mountpoint, options))
    kernel.tune(path, options)
    try:
        trio.run(serve, options.tasks)
    finally:
        pyfuse3.close(unmount=mountpoint.fd is None)


async def serve(tasks: int) -> None:
    await pyfuse3.main(min_tasks=tasks, max_tasks=tasks)


if __name__ == "__main__":
    main()
