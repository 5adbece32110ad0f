"""AsyncFileSystem: `FileSystem` for trio. The same coroutines, driven by the calling task.

    async with await AsyncFileSystem.connect(ClientConfig(...)) as fs:
        await fs.write_bytes("/a", b"hello")
        async with await fs.open("/a", "rb") as file:
            data = await file.read()

A cancelled call may have happened or not, as with any interrupted request.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from superfs.client import bulk
from superfs.client.connection import Connection
from superfs.client.exporting import Export
from superfs.client.fileobj import check_usable, parse_mode
from superfs.client.importing import Import
from superfs.client.opening import Handle, open_file, read_bytes, write_bytes
from superfs.client.paths import Paths
from superfs.client.progress import Progress, Reporter
from superfs.client.results import os_error, os_errors, stat_result, statvfs_result
from superfs.core.errors import Code, FsError
from superfs.rpc.bridge import drive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
    from types import TracebackType

    from superfs.client.bulk import Files, Location
    from superfs.client.config import ClientConfig
    from superfs.client.resolve import AnyPath
    from superfs.core.attrs import Attr

T = TypeVar("T")


class AsyncFile:
    """Bytes with a position. Not to be used by two tasks at once (two files may)."""

    def __init__(self, handle: Handle, path: AnyPath) -> None:
        self._handle = handle
        self._path = path
        self._position = 0

    async def __aenter__(self) -> AsyncFile:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with trio.CancelScope(shield=error is not None):
            await self.close()

    async def _run(self, coro: Coroutine[Any, Any, T]) -> T:
        with os_errors(self._path):
            return await drive(coro)

    @property
    def size(self) -> int:
        return self._handle.inode.size

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The end is where it was last seen: `size`."""
        check_usable(self._handle)
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}
        if whence not in bases:
            raise ValueError(f"invalid whence: {whence}")
        base = bases[whence]
        if base + offset < 0:
            raise os_error(FsError(Code.INVALID), self._path)
        self._position = base + offset
        return self._position

    async def read(self, length: int = -1) -> bytes:
        """-1: to the end."""
        check_usable(self._handle, self._handle.readable)
        at = self._position
        reading = self._handle.read_all(at) if length < 0 else self._handle.read(at, length)
        data = await self._run(reading)
        self._position = at + len(data)
        return data

    async def pread(self, length: int, offset: int) -> bytes:
        check_usable(self._handle, self._handle.readable)
        return await self._run(self._handle.read(offset, length))

    async def write(self, data: bytes | bytearray | memoryview) -> int:
        check_usable(self._handle, self._handle.writable)
        view = memoryview(data).cast("B")
        self._position = await self._run(self._handle.write(self._position, view))
        return len(view)

    async def truncate(self, size: int) -> None:
        check_usable(self._handle, self._handle.writable)
        await self._run(self._handle.truncate(size))

    async def flush(self) -> None:
        check_usable(self._handle)
        await self._run(self._handle.flush())

    async def fsync(self) -> None:
        check_usable(self._handle)
        await self._run(self._handle.fsync())

    async def close(self) -> None:
        await self._run(self._handle.close())


class AsyncFileSystem:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.paths = Paths(connection)
        self._device = zlib.crc32(connection.map.cluster_id.encode())

    @classmethod
    async def connect(cls, config: ClientConfig) -> AsyncFileSystem:
        with os_errors():
            return cls(await trio.to_thread.run_sync(Connection.open, config))

    async def __aenter__(self) -> AsyncFileSystem:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with trio.CancelScope(shield=error is not None):
            await self.close()

    async def close(self) -> None:
        """Flushes what is open, then ends every thread."""
        try:
            await self._run(self.paths.files.flush_all())
            await self._run(self.paths.files.release())
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self.connection.close)

    async def _run(self, coro: Coroutine[Any, Any, T], *paths: AnyPath) -> T:
        with os_errors(*paths):
            return await drive(coro)

    # ---- files

    async def open(
        self, path: AnyPath, mode: str = "rb", *, flags: int = 0, permissions: int = 0o666
    ) -> AsyncFile:
        """Binary modes of the builtin open."""
        wanted, text = parse_mode(mode)
        if text:
            raise ValueError("only binary modes: decode what you read")
        handle = await self._run(open_file(self.paths, path, wanted | flags, permissions), path)
        return AsyncFile(handle, path)

    async def read_bytes(self, path: AnyPath) -> bytes:
        return await self._run(read_bytes(self.paths, path), path)

    async def write_bytes(
        self, path: AnyPath, data: bytes | bytearray | memoryview, permissions: int = 0o666
    ) -> None:
        await self._run(write_bytes(self.paths, path, data, permissions), path)

    async def truncate(self, path: AnyPath, size: int) -> None:
        await self._run(self.paths.truncate(path, size), path)

    # ---- asking

    async def stat(self, path: AnyPath, *, follow_symlinks: bool = True) -> os.stat_result:
        attr = await self._run(self.paths.stat(path, follow=follow_symlinks), path)
        return stat_result(attr, self._device)

    async def lstat(self, path: AnyPath) -> os.stat_result:
        return await self.stat(path, follow_symlinks=False)

    async def exists(self, path: AnyPath) -> bool:
        return await self._run(self.paths.exists(path), path)

    async def access(self, path: AnyPath, mode: int) -> bool:
        return await self._run(self.paths.access(path, mode), path)

    async def listdir(self, path: AnyPath = "/") -> list[str]:
        entries = await self._run(self.paths.entries(path), path)
        return [os.fsdecode(entry.name) for entry in entries]

    async def scandir(self, path: AnyPath = "/") -> list[tuple[str, os.stat_result]]:
        """(name, attributes); a symlink's are its own."""
        entries = await self._run(self.paths.entries(path, plus=True), path)
        return [
            (os.fsdecode(entry.name), stat_result(self._attr(entry.attr), self._device))
            for entry in entries
        ]

    def _attr(self, attr: Attr | None) -> Attr:
        assert attr is not None, "a listing with attributes"
        return self.paths.files.view(attr)

    async def readlink(self, path: AnyPath) -> str:
        return os.fsdecode(await self._run(self.paths.readlink(path), path))

    async def statvfs(self) -> os.statvfs_result:
        return statvfs_result(await self._run(self.paths.statvfs()), self._device)

    # ---- names

    async def mkdir(self, path: AnyPath, mode: int = 0o777) -> None:
        await self._run(self.paths.mkdir(path, mode), path)

    async def makedirs(self, path: AnyPath, mode: int = 0o777, *, exist_ok: bool = False) -> None:
        await self._run(self.paths.makedirs(path, mode, exist_ok=exist_ok), path)

    async def mknod(self, path: AnyPath, mode: int = 0o600, device: int = 0) -> None:
        await self._run(self.paths.mknod(path, mode, device), path)

    async def rmdir(self, path: AnyPath) -> None:
        await self._run(self.paths.rmdir(path), path)

    async def unlink(self, path: AnyPath) -> None:
        await self._run(self.paths.unlink(path), path)

    async def rename(self, source: AnyPath, target: AnyPath, flags: int = 0) -> None:
        await self._run(self.paths.rename(source, target, flags), source, target)

    async def link(
        self, source: AnyPath, target: AnyPath, *, follow_symlinks: bool = False
    ) -> None:
        await self._run(self.paths.link(source, target, follow=follow_symlinks), source, target)

    async def symlink(self, contents: AnyPath, path: AnyPath) -> None:
        await self._run(self.paths.symlink(contents, path), contents, path)

    # ---- attributes

    async def chmod(self, path: AnyPath, mode: int, *, follow_symlinks: bool = True) -> None:
        await self._run(self.paths.chmod(path, mode, follow=follow_symlinks), path)

    async def chown(
        self, path: AnyPath, uid: int, gid: int, *, follow_symlinks: bool = True
    ) -> None:
        await self._run(self.paths.chown(path, uid, gid, follow=follow_symlinks), path)

    async def utime(
        self,
        path: AnyPath,
        *,
        ns: tuple[int, int] | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        await self._run(self.paths.utime(path, ns, follow=follow_symlinks), path)

    async def getxattr(
        self, path: AnyPath, name: str | bytes, *, follow_symlinks: bool = True
    ) -> bytes:
        coro = self.paths.getxattr(path, os.fsencode(name), follow=follow_symlinks)
        return await self._run(coro, path)

    async def setxattr(
        self,
        path: AnyPath,
        name: str | bytes,
        value: bytes,
        flags: int = 0,
        *,
        follow_symlinks: bool = True,
    ) -> None:
        coro = self.paths.setxattr(
            path, os.fsencode(name), bytes(value), flags, follow=follow_symlinks
        )
        await self._run(coro, path)

    async def listxattr(self, path: AnyPath, *, follow_symlinks: bool = True) -> list[str]:
        names = await self._run(self.paths.listxattr(path, follow=follow_symlinks), path)
        return [os.fsdecode(name) for name in names]

    async def removexattr(
        self, path: AnyPath, name: str | bytes, *, follow_symlinks: bool = True
    ) -> None:
        coro = self.paths.removexattr(path, os.fsencode(name), follow=follow_symlinks)
        await self._run(coro, path)

    # ---- many at once: see FileSystem

    async def put_many(self, files: Files, mode: int = 0o644) -> None:
        await self._run(bulk.put_many(self.paths, files, mode))

    async def get_many(self, paths: Iterable[AnyPath]) -> list[bytes | OSError]:
        wanted = list(paths)
        found = await self._run(bulk.get_many(self.paths, wanted))
        return [
            os_error(f, p) if isinstance(f, FsError) else f
            for p, f in zip(wanted, found, strict=True)
        ]

    async def stat_many(
        self, paths: Iterable[AnyPath], *, follow_symlinks: bool = True
    ) -> list[os.stat_result | OSError]:
        wanted = list(paths)

        def make(attr: Attr) -> os.stat_result:
            return stat_result(attr, self._device)

        found = await self._run(bulk.stat_many(self.paths, wanted, make, follow=follow_symlinks))
        return [
            os_error(f, p) if isinstance(f, FsError) else f
            for p, f in zip(wanted, found, strict=True)
        ]

    async def walk(
        self, top: str = "/"
    ) -> AsyncIterator[tuple[str, list[tuple[str, os.stat_result]]]]:
        """(directory, what is in it with attributes), breadth first, symlinks not followed."""
        level = [top]
        while level:
            batch, level = level[: bulk.WALK_WIDTH], level[bulk.WALK_WIDTH :]
            listings = await self._run(bulk.list_many(self.paths, batch), top)
            for path, entries in zip(batch, listings, strict=True):
                found = []
                for entry in entries:
                    name, attr = os.fsdecode(entry.name), self._attr(entry.attr)
                    found.append((name, stat_result(attr, self._device)))
                    if attr.is_dir:
                        level.append(os.path.join(path, name))
                yield path, found

    async def remove_tree(self, path: AnyPath) -> int:
        return await self._run(bulk.remove_tree(self.paths, path), path)

    async def locate(
        self, path: AnyPath, offset: int = 0, length: int | None = None
    ) -> list[Location]:
        return await self._run(bulk.locate(self.paths, path, offset, length), path)

    async def import_tree(
        self,
        source: str | os.PathLike[str],
        target: AnyPath,
        progress: Callable[[Progress], object] | None = None,
        exclude: Iterable[str | bytes] = (),
    ) -> Progress:
        """Reads local files in the trio thread: for a large tree use a FileSystem in a thread."""
        report = Reporter(Progress(), progress)
        names = frozenset(os.fsencode(name) for name in exclude)
        await self._run(Import(self.paths, report, names).run(os.fsencode(source), target), target)
        return report.progress

    async def export_tree(
        self,
        source: AnyPath,
        target: str | os.PathLike[str],
        progress: Callable[[Progress], object] | None = None,
    ) -> Progress:
        report = Reporter(Progress(), progress)
        await self._run(Export(self.paths, report).run(source, os.fsencode(target)), source)
        return report.progress
