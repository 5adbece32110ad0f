"""The same operations on a directory of any file system: what a differential test compares."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Protocol

from harness.posix import renameat2

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.client import FileSystem

Answer = tuple[object, ...]
Tree = dict[str, Answer]


class World(Protocol):
    """Paths are relative, without a leading slash. Every method may raise OSError."""

    def mkdir(self, path: str, mode: int) -> Answer: ...
    def rmdir(self, path: str) -> Answer: ...
    def create(self, path: str, mode: int, exclusive: bool) -> Answer: ...
    def write(self, path: str, offset: int, data: bytes) -> Answer: ...
    def append(self, path: str, data: bytes) -> Answer: ...
    def read(self, path: str, offset: int, length: int) -> Answer: ...
    def truncate(self, path: str, size: int) -> Answer: ...
    def unlink(self, path: str) -> Answer: ...
    def rename(self, old: str, new: str, flags: int) -> Answer: ...
    def link(self, old: str, new: str) -> Answer: ...
    def symlink(self, target: str, path: str) -> Answer: ...
    def readlink(self, path: str) -> Answer: ...
    def stat(self, path: str) -> Answer: ...
    def chmod(self, path: str, mode: int) -> Answer: ...
    def chown(self, path: str, uid: int, gid: int) -> Answer: ...
    def utime(self, path: str, atime_ns: int, mtime_ns: int) -> Answer: ...
    def listdir(self, path: str) -> Answer: ...
    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> Answer: ...
    def getxattr(self, path: str, name: str) -> Answer: ...
    def removexattr(self, path: str, name: str) -> Answer: ...
    def listxattr(self, path: str) -> Answer: ...


def answer_of(world: World, verb: str, *args: object) -> Answer:
    """What the operation says: ("ok", …) or the errno's name. Anything else raised is a bug."""
    try:
        return ("ok", *getattr(world, verb)(*args))
    except OSError as error:
        return (errno.errorcode.get(error.errno or 0, str(error)),)


def facts(info: os.stat_result) -> Answer:
    """Of an inode, what two file systems must agree on."""
    size = 0 if stat.S_ISDIR(info.st_mode) else info.st_size
    return (oct(info.st_mode), info.st_nlink, info.st_uid, info.st_gid, size)


def tree_of(top: Path) -> Tree:
    """Everything below a directory: facts, contents, targets, xattrs."""
    found: Tree = {}
    for base, dirs, files in os.walk(top):
        for name in dirs + files:
            path = os.path.join(base, name)
            info = os.lstat(path)
            contents: object = None
            if stat.S_ISREG(info.st_mode):
                with open(path, "rb") as file:
                    contents = file.read()
            elif stat.S_ISLNK(info.st_mode):
                contents = os.readlink(path)
            xattrs = (
                {n: os.getxattr(path, n) for n in sorted(os.listxattr(path))}
                if (not stat.S_ISLNK(info.st_mode))
                else {}
            )
            found[os.path.relpath(path, top)] = (*facts(info), contents, repr(xattrs))
    return found


class OsWorld:
    """Through system calls, below a directory."""

    def __init__(self, top: Path) -> None:
        self.top = top

    def _at(self, path: str) -> str:
        return os.path.join(self.top, path)

    def mkdir(self, path: str, mode: int) -> Answer:
        os.mkdir(self._at(path), mode)
        return ()

    def rmdir(self, path: str) -> Answer:
        os.rmdir(self._at(path))
        return ()

    def create(self, path: str, mode: int, exclusive: bool) -> Answer:
        flags = os.O_CREAT | os.O_WRONLY | (os.O_EXCL if exclusive else 0)
        os.close(os.open(self._at(path), flags, mode))
        return ()

    def write(self, path: str, offset: int, data: bytes) -> Answer:
        fd = os.open(self._at(path), os.O_WRONLY)
        try:
            return (os.pwrite(fd, data, offset),)
        finally:
            os.close(fd)

    def append(self, path: str, data: bytes) -> Answer:
        fd = os.open(self._at(path), os.O_WRONLY | os.O_APPEND)
        try:
            return (os.write(fd, data),)
        finally:
            os.close(fd)

    def read(self, path: str, offset: int, length: int) -> Answer:
        fd = os.open(self._at(path), os.O_RDONLY)
        try:
            return (os.pread(fd, length, offset),)
        finally:
            os.close(fd)

    def truncate(self, path: str, size: int) -> Answer:
        os.truncate(self._at(path), size)
        return ()

    def unlink(self, path: str) -> Answer:
        os.unlink(self._at(path))
        return ()

    def rename(self, old: str, new: str, flags: int) -> Answer:
        renameat2(self._at(old).encode(), self._at(new).encode(), flags)
        return ()

    def link(self, old: str, new: str) -> Answer:
        os.link(self._at(old), self._at(new), follow_symlinks=False)
        return ()

    def symlink(self, target: str, path: str) -> Answer:
        os.symlink(target, self._at(path))
        return ()

    def readlink(self, path: str) -> Answer:
        return (os.readlink(self._at(path)),)

    def stat(self, path: str) -> Answer:
        return facts(os.lstat(self._at(path)))

    def chmod(self, path: str, mode: int) -> Answer:
        os.chmod(self._at(path), mode)
        return ()

    def chown(self, path: str, uid: int, gid: int) -> Answer:
        os.chown(self._at(path), uid, gid, follow_symlinks=False)
        return ()

    def utime(self, path: str, atime_ns: int, mtime_ns: int) -> Answer:
        os.utime(self._at(path), ns=(atime_ns, mtime_ns), follow_symlinks=False)
        info = os.lstat(self._at(path))
        return (info.st_atime_ns, info.st_mtime_ns)

    def listdir(self, path: str) -> Answer:
        return (sorted(os.listdir(self._at(path))),)

    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> Answer:
        os.setxattr(self._at(path), name, value, flags)
        return ()

    def getxattr(self, path: str, name: str) -> Answer:
        return (os.getxattr(self._at(path), name),)

    def removexattr(self, path: str, name: str) -> Answer:
        os.removexattr(self._at(path), name)
        return ()

    def listxattr(self, path: str) -> Answer:
        return (sorted(os.listxattr(self._at(path))),)


class SdkWorld:
    """Through the SDK, below a directory."""

    def __init__(self, fs: FileSystem, top: str) -> None:
        self.fs, self.top = fs, top

    def _at(self, path: str) -> str:
        return os.path.join(self.top, path)

    def mkdir(self, path: str, mode: int) -> Answer:
        self.fs.mkdir(self._at(path), mode)
        return ()

    def rmdir(self, path: str) -> Answer:
        self.fs.rmdir(self._at(path))
        return ()

    def create(self, path: str, mode: int, exclusive: bool) -> Answer:
        flags = os.O_CREAT | os.O_WRONLY | (os.O_EXCL if exclusive else 0)
        self.fs.open_raw(self._at(path), flags, mode).close()
        return ()

    def write(self, path: str, offset: int, data: bytes) -> Answer:
        with self.fs.open_raw(self._at(path), os.O_WRONLY) as file:
            file.seek(offset)
            return (file.write(data),)

    def append(self, path: str, data: bytes) -> Answer:
        with self.fs.open_raw(self._at(path), os.O_WRONLY | os.O_APPEND) as file:
            return (file.write(data),)

    def read(self, path: str, offset: int, length: int) -> Answer:
        with self.fs.open_raw(self._at(path), os.O_RDONLY) as file:
            file.seek(offset)
            return (file.read(length),)

    def truncate(self, path: str, size: int) -> Answer:
        self.fs.truncate(self._at(path), size)
        return ()

    def unlink(self, path: str) -> Answer:
        self.fs.unlink(self._at(path))
        return ()

    def rename(self, old: str, new: str, flags: int) -> Answer:
        self.fs.rename(self._at(old), self._at(new), flags)
        return ()

    def link(self, old: str, new: str) -> Answer:
        self.fs.link(self._at(old), self._at(new))
        return ()

    def symlink(self, target: str, path: str) -> Answer:
        self.fs.symlink(target, self._at(path))
        return ()

    def readlink(self, path: str) -> Answer:
        return (self.fs.readlink(self._at(path)),)

    def stat(self, path: str) -> Answer:
        return facts(self.fs.lstat(self._at(path)))

    def chmod(self, path: str, mode: int) -> Answer:
        self.fs.chmod(self._at(path), mode)
        return ()

    def chown(self, path: str, uid: int, gid: int) -> Answer:
        self.fs.chown(self._at(path), uid, gid, follow_symlinks=False)
        return ()

    def utime(self, path: str, atime_ns: int, mtime_ns: int) -> Answer:
        self.fs.utime(self._at(path), ns=(atime_ns, mtime_ns), follow_symlinks=False)
        info = self.fs.lstat(self._at(path))
        return (info.st_atime_ns, info.st_mtime_ns)

    def listdir(self, path: str) -> Answer:
        return (sorted(self.fs.listdir(self._at(path))),)

    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> Answer:
        self.fs.setxattr(self._at(path), name, value, flags)
        return ()

    def getxattr(self, path: str, name: str) -> Answer:
        return (self.fs.getxattr(self._at(path), name),)

    def removexattr(self, path: str, name: str) -> Answer:
        self.fs.removexattr(self._at(path), name)
        return ()

    def listxattr(self, path: str) -> Answer:
        return (sorted(self.fs.listxattr(self._at(path))),)
