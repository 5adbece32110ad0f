"""FileSystem: the blocking, path-level API. `os` and `open`, without a mount.

    with FileSystem.connect(ClientConfig(...)) as fs:
        fs.makedirs("/data/raw", exist_ok=True)
        with fs.open("/data/raw/a.txt", "w") as file:
            file.write("hello")

Paths are str, bytes or PathLike, from the root of the file system whether or not they begin with
a slash; str is encoded as the os module does (surrogateescape). Errors are OSError. May be used by
many threads at once.
"""

from __future__ import annotations

import os
import zlib
from typing import IO, TYPE_CHECKING, Any, TypeVar

from superfs.client import bulk
from superfs.client.connection import Connection
from superfs.client.exporting import Export
from superfs.client.fileobj import RawFile, parse_mode, wrap
from superfs.client.importing import Import
from superfs.client.lent import PLAIN
from superfs.client.opening import Handle, open_file, read_bytes, write_bytes
from superfs.client.paths import Paths
from superfs.client.progress import Progress, Reporter
from superfs.client.results import DirEntry, os_error, os_errors, stat_result, statvfs_result
from superfs.core.errors import FsError
from superfs.rpc.pending import run_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
    from types import TracebackType

    from superfs.client.bulk import Files, Location
    from superfs.client.config import ClientConfig
    from superfs.client.lent import Placing
    from superfs.client.resolve import AnyPath
    from superfs.core.attrs import Attr

T = TypeVar("T")
Name = TypeVar("Name", str, bytes)


class FileSystem:
    def __init__(self, connection: Connection) -> None:
        """Over a connection, which `close` closes. Usually `connect` makes both."""
        self.connection = connection
        self.paths = Paths(connection)
        self._device = zlib.crc32(connection.map.cluster_id.encode())

    @classmethod
    def connect(cls, config: ClientConfig) -> FileSystem:
        with os_errors():
            return cls(Connection.open(config))

    def __enter__(self) -> FileSystem:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Flushes what is open, then ends every thread."""
        try:
            self._run(self.paths.files.flush_all())
            self._run(self.paths.files.release())
        finally:
            self.connection.close()

    def _run(self, coro: Coroutine[Any, Any, T], *paths: AnyPath) -> T:
        with os_errors(*paths):
            return run_sync(coro)

    # ---- files

    def open(
        self,
        path: AnyPath,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        *,
        flags: int = 0,
        permissions: int = 0o666,
    ) -> IO[Any]:
        """As the builtin; `flags` adds O_* flags, `permissions` are those of a new file."""
        wanted, text = parse_mode(mode)
        raw = self.open_raw(path, wanted | flags, permissions)
        return wrap(raw, text, buffering, encoding, errors, newline)

    def open_raw(
        self, path: AnyPath, flags: int, permissions: int = 0o666, *, placing: Placing = PLAIN
    ) -> RawFile:
        """As os.open, but a file object."""
        handle = self._run(open_file(self.paths, path, flags, permissions), path)
        return RawFile(handle, path, self._discard, placing)

    def _discard(self, handle: Handle) -> None:
        self.connection.background.spawn(handle.close())

    def read_bytes(self, path: AnyPath) -> bytes:
        return self._run(read_bytes(self.paths, path), path)

    def write_bytes(
        self, path: AnyPath, data: bytes | bytearray | memoryview, permissions: int = 0o666
    ) -> None:
        self._run(write_bytes(self.paths, path, data, permissions), path)

    def truncate(self, path: AnyPath, size: int) -> None:
        self._run(self.paths.truncate(path, size), path)

    # ---- asking

    def stat(self, path: AnyPath, *, follow_symlinks: bool = True) -> os.stat_result:
        attr = self._run(self.paths.stat(path, follow=follow_symlinks), path)
        return stat_result(attr, self._device)

    def lstat(self, path: AnyPath) -> os.stat_result:
        return self.stat(path, follow_symlinks=False)

    def exists(self, path: AnyPath) -> bool:
        return self._run(self.paths.exists(path), path)

    def access(self, path: AnyPath, mode: int) -> bool:
        return self._run(self.paths.access(path, mode), path)

    def listdir(
        self,
        path: Name | os.PathLike[Name] = "/",  # type: ignore[assignment]
    ) -> list[Name]:
        raw = os.fspath(path)
        entries = self._run(self.paths.entries(raw), raw)
        return [_like(raw, entry.name) for entry in entries]

    def scandir(
        self,
        path: Name | os.PathLike[Name] = "/",  # type: ignore[assignment]
    ) -> Iterator[DirEntry[Name]]:
        """Attributes come with the names."""
        raw = os.fspath(path)
        for entry in self._run(self.paths.entries(raw, plus=True), raw):
            name = _like(raw, entry.name)
            assert entry.attr is not None
            attr = self.paths.files.view(entry.attr)
            yield DirEntry(name, os.path.join(raw, name), attr, self.stat, self._device)

    def readlink(self, path: Name | os.PathLike[Name]) -> Name:
        raw = os.fspath(path)
        return _like(raw, self._run(self.paths.readlink(raw), raw))

    def statvfs(self) -> os.statvfs_result:
        return statvfs_result(self._run(self.paths.statvfs()), self._device)

    # ---- names

    def mkdir(self, path: AnyPath, mode: int = 0o777) -> None:
        self._run(self.paths.mkdir(path, mode), path)

    def makedirs(self, path: AnyPath, mode: int = 0o777, *, exist_ok: bool = False) -> None:
        self._run(self.paths.makedirs(path, mode, exist_ok=exist_ok), path)

    def mknod(self, path: AnyPath, mode: int = 0o600, device: int = 0) -> None:
        self._run(self.paths.mknod(path, mode, device), path)

    def rmdir(self, path: AnyPath) -> None:
        self._run(self.paths.rmdir(path), path)

    def unlink(self, path: AnyPath) -> None:
        self._run(self.paths.unlink(path), path)

    remove = unlink

    def rename(self, source: AnyPath, target: AnyPath, flags: int = 0) -> None:
        """`flags`: RENAME_NOREPLACE 1, RENAME_EXCHANGE 2 (superfs.client.paths)."""
        self._run(self.paths.rename(source, target, flags), source, target)

    replace = rename

    def link(self, source: AnyPath, target: AnyPath, *, follow_symlinks: bool = False) -> None:
        self._run(self.paths.link(source, target, follow=follow_symlinks), source, target)

    def symlink(self, contents: AnyPath, path: AnyPath) -> None:
        self._run(self.paths.symlink(contents, path), contents, path)

    # ---- attributes

    def chmod(self, path: AnyPath, mode: int, *, follow_symlinks: bool = True) -> None:
        self._run(self.paths.chmod(path, mode, follow=follow_symlinks), path)

    def chown(self, path: AnyPath, uid: int, gid: int, *, follow_symlinks: bool = True) -> None:
        self._run(self.paths.chown(path, uid, gid, follow=follow_symlinks), path)

    def utime(
        self,
        path: AnyPath,
        times: tuple[float, float] | None = None,
        *,
        ns: tuple[int, int] | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        """Seconds or nanoseconds, as os.utime; neither: now."""
        if times is not None and ns is not None:
            raise ValueError("utime: either times or ns, not both")
        if times is not None:
            ns = (int(times[0] * 1e9), int(times[1] * 1e9))
        self._run(self.paths.utime(path, ns, follow=follow_symlinks), path)

    def getxattr(self, path: AnyPath, name: str | bytes, *, follow_symlinks: bool = True) -> bytes:
        coro = self.paths.getxattr(path, os.fsencode(name), follow=follow_symlinks)
        return self._run(coro, path)

    def setxattr(
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
        self._run(coro, path)

    def listxattr(self, path: AnyPath, *, follow_symlinks: bool = True) -> list[str]:
        names = self._run(self.paths.listxattr(path, follow=follow_symlinks), path)
        return [os.fsdecode(name) for name in names]

    def removexattr(
        self, path: AnyPath, name: str | bytes, *, follow_symlinks: bool = True
    ) -> None:
        coro = self.paths.removexattr(path, os.fsencode(name), follow=follow_symlinks)
        self._run(coro, path)

    # ---- many at once: what POSIX lacks

    def put_many(self, files: Files, mode: int = 0o644) -> None:
        """New files with their contents, on disk when it returns; existing ones are replaced, as
        by a rename over them. Their directories must exist: FileNotFoundError else, and nothing
        is made. Another error leaves some made and some not. `mode` is subject to the umask."""
        self._run(bulk.put_many(self.paths, files, mode))

    def get_many(
        self, paths: Iterable[AnyPath], known: Sequence[Attr | None] = ()
    ) -> list[bytes | OSError]:
        """Whole contents, in order; an error in place of what could not be read. `known`: of each
        path what a DirEntry of `walk` or `scandir` had (`attr`); the metadata daemon is then not
        asked again: a file that has changed since is read as far as it went then, with zeros
        where it was cut off, and one that was removed may still be there. For inputs that nobody
        changes."""
        wanted = list(paths)
        found = self._run(bulk.get_many(self.paths, wanted, known))
        return [
            os_error(f, p) if isinstance(f, FsError) else f
            for p, f in zip(wanted, found, strict=True)
        ]

    def stat_many(
        self, paths: Iterable[AnyPath], *, follow_symlinks: bool = True
    ) -> list[os.stat_result | OSError]:
        wanted = list(paths)

        def make(attr: Attr) -> os.stat_result:
            return stat_result(attr, self._device)

        found = self._run(bulk.stat_many(self.paths, wanted, make, follow=follow_symlinks))
        return [
            os_error(f, p) if isinstance(f, FsError) else f
            for p, f in zip(wanted, found, strict=True)
        ]

    def walk(
        self,
        top: Name | os.PathLike[Name] = "/",  # type: ignore[assignment]
    ) -> Iterator[tuple[Name, list[DirEntry[Name]], list[DirEntry[Name]]]]:
        """(directory, its directories, everything else in it), breadth first, symlinks not
        followed; directories removed from the list are not entered."""
        raw = os.fspath(top)
        level: list[Name] = [raw]
        while level:
            batch, level = level[: bulk.WALK_WIDTH], level[bulk.WALK_WIDTH :]
            listings = self._run(bulk.list_many(self.paths, batch), raw)
            for path, entries in zip(batch, listings, strict=True):
                directories: list[DirEntry[Name]] = []
                others: list[DirEntry[Name]] = []
                for entry in entries:
                    assert entry.attr is not None
                    name = _like(raw, entry.name)
                    found = DirEntry(
                        name, os.path.join(path, name), entry.attr, self.stat, self._device
                    )
                    (directories if entry.attr.is_dir else others).append(found)
                yield path, directories, others
                level += [entry.path for entry in directories]

    def remove_tree(self, path: AnyPath) -> int:
        """As `rm -r`, done by the metadata daemon; how many entries went."""
        return self._run(bulk.remove_tree(self.paths, path), path)

    def locate(self, path: AnyPath, offset: int = 0, length: int | None = None) -> list[Location]:
        """Where the bytes of a file are: which daemons hold which range."""
        return self._run(bulk.locate(self.paths, path, offset, length), path)

    def import_tree(
        self,
        source: str | os.PathLike[str],
        target: AnyPath,
        progress: Callable[[Progress], object] | None = None,
        exclude: Iterable[str | bytes] = (),
    ) -> Progress:
        """Copies a local tree (or file) in, with modes, times, owners, links and xattrs; but not
        what has one of the names in `exclude`."""
        report = Reporter(Progress(), progress)
        names = frozenset(os.fsencode(name) for name in exclude)
        self._run(Import(self.paths, report, names).run(os.fsencode(source), target), target)
        return report.progress

    def export_tree(
        self,
        source: AnyPath,
        target: str | os.PathLike[str],
        progress: Callable[[Progress], object] | None = None,
    ) -> Progress:
        """Copies a tree (or file) out, as `import_tree` copies in."""
        report = Reporter(Progress(), progress)
        self._run(Export(self.paths, report).run(source, os.fsencode(target)), source)
        return report.progress


def _like(model: Name, raw: bytes) -> Name:
    return raw if isinstance(model, bytes) else os.fsdecode(raw)
