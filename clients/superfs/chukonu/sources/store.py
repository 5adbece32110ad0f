"""Two places that files can be in, behind one face: a directory of this machine (a mount is one),
and a SuperFS cluster, past the mount (`superfs:///a/b`)."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Protocol

from superfs.chukonu.errors import AnalysisException
from superfs.chukonu.sources.collector import collector_off
from superfs.core.layout import chain_of
from superfs.core.limits import CHUNK_BYTES
from superfs.rpc.host import host_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from superfs.client import FileSystem
    from superfs.client.results import DirEntry

SCHEME = "superfs://"
PAST_THE_MOUNT = "superfs"
SAMPLE_FILES = 100
"""Of a read, that are asked for where they lie, when a plan is explained."""


Place = tuple[int, int, tuple[str, ...]]
"""Bytes of a file: where they begin and end, and on which hosts they are."""


@dataclass(frozen=True, slots=True, order=True)
class FileInfo:
    """`version` changes when the contents do."""

    path: str
    size: int
    version: str
    attr: Any = field(default=None, compare=False, repr=False)
    """What the store knows of it besides, for itself."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Other processes ask for themselves."""
        return FileInfo, (self.path, self.size, self.version)


class Readable(Protocol):
    """Paths are as the program wrote them, scheme included. Errors are OSError."""

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Fewer bytes only at the end of the file."""

    def read_many(self, files: Sequence[FileInfo]) -> list[bytes]:
        """Whole files, together where that is cheaper."""


class Store(Readable, Protocol):
    def files(self, path: str) -> list[FileInfo]:
        """The file, or all files below the directory, sorted; names that begin with . or _ are
        not data. FileNotFoundError."""

    def local_share(self, files: Sequence[FileInfo]) -> float | None:
        """Which part of their bytes lies on this machine; None where nobody knows."""

    def places(self, file: FileInfo) -> list[Place]:
        """Where its bytes are, in order; nothing where nobody knows."""

    @property
    def way(self) -> str:
        """By which bytes come from here; `moved` has finer ones."""

    @property
    def identity(self) -> int:
        """Stores with the same one count what has moved together."""

    def moved(self) -> dict[str, int]:
        """Bytes of files that came by each way since this process began."""


def hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _version(found: os.stat_result) -> str:
    return f"{found.st_dev}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"


def _file_system(path: str) -> str:
    """The kind of the file system that the path is on, as the kernel lists it."""
    whole = os.path.realpath(path)
    best, kind = "", ""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                _, point, found, *_ = line.split(" ")
                point = point.replace("\\040", " ")
                inside = whole == point or whole.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best):
                    best, kind = point, found
    except OSError:
        pass  # not Linux: then nothing of ours is mounted
    return kind


class LocalStore:
    def __init__(self, path: str = "/") -> None:
        self._path = path
        self.identity = id(self)

    @cached_property
    def way(self) -> str:
        return "mount" if _file_system(self._path).startswith("fuse") else "directory"

    def moved(self) -> dict[str, int]:
        return {}

    def files(self, path: str) -> list[FileInfo]:
        if not os.path.isdir(path):
            found = os.stat(path)
            return [FileInfo(path, found.st_size, _version(found))]
        files: list[FileInfo] = []
        for folder, folders, names in os.walk(path):
            folders[:] = [name for name in folders if not hidden(name)]
            for name in names:
                if not hidden(name):
                    whole = os.path.join(folder, name)
                    found = os.stat(whole)
                    files.append(FileInfo(whole, found.st_size, _version(found)))
        return sorted(files)

    def read(self, path: str, offset: int, length: int) -> bytes:
        with open(path, "rb", buffering=0) as file:
            parts: list[bytes] = []
            while length > 0 and (part := os.pread(file.fileno(), length, offset)):
                parts.append(part)
                offset, length = offset + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_many(self, files: Sequence[FileInfo]) -> list[bytes]:
        found = []
        for info in files:
            with open(info.path, "rb") as file:
                found.append(file.read())
        return found

    def local_share(self, files: Sequence[FileInfo]) -> float | None:
        return None

    def places(self, file: FileInfo) -> list[Place]:
        return []


class SuperStore:
    """Listing takes a message for each few directories, small files come hundreds in one."""

    way = PAST_THE_MOUNT

    def __init__(self, fs: FileSystem, options: Mapping[str, Any]) -> None:
        self.fs = fs
        self.identity = id(fs)
        self._options = dict(options)

    def __reduce__(self) -> tuple[Any, ...]:
        """For workers of other processes, which connect by themselves."""
        return store_for, (SCHEME, self._options)

    def moved(self) -> dict[str, int]:
        moved = self.fs.connection.data.bypass.moved
        return {"descriptor": moved.read_descriptor, "grpc": moved.read_grpc}

    @staticmethod
    def _bare(path: str) -> str:
        return "/" + path.removeprefix(SCHEME).strip("/")

    def files(self, path: str) -> list[FileInfo]:
        with collector_off():
            return self._files(path)

    def _files(self, path: str) -> list[FileInfo]:
        bare = self._bare(path)
        found = self.fs.stat(bare)
        if found.st_mode & 0o170000 != 0o040000:
            return [FileInfo(path, found.st_size, _version(found))]
        files: list[FileInfo] = []
        for _, folders, others in self.fs.walk(bare):
            folders[:] = [entry for entry in folders if not hidden(entry.name)]
            for entry in others:
                if not hidden(entry.name):
                    files.append(_listed(entry))
        return sorted(files)

    def read(self, path: str, offset: int, length: int) -> bytes:
        with self.fs.open(self._bare(path), "rb", buffering=0) as file:
            file.seek(offset)
            parts: list[bytes] = []
            while length > 0 and (part := file.read(length)):
                parts.append(part)
                length -= len(part)
        return b"".join(parts)

    def read_many(self, files: Sequence[FileInfo]) -> list[bytes]:
        paths = [self._bare(file.path) for file in files]
        with collector_off():
            found = self.fs.get_many(paths, [file.attr for file in files])
        for one in found:
            if isinstance(one, OSError):
                raise one
        return found  # type: ignore[return-value]

    def local_share(self, files: Sequence[FileInfo]) -> float | None:
        """Of many files, those at regular distances are asked for."""
        here = host_id()
        asked = files[:: max(1, len(files) // SAMPLE_FILES)]
        total = local = 0
        for file in asked:
            for place in self.fs.locate(self._bare(file.path)):
                total += place.length
                local += place.length if place.host_id == here else 0
        return local / total if total and here else None

    def places(self, file: FileInfo) -> list[Place]:
        """From what the listing said, without asking again."""
        if file.attr is None:
            found = self.fs.locate(self._bare(file.path))
            return [(f.offset, f.offset + f.length, hosts_of(f.addresses)) for f in found]
        return self._listed_places(file)

    def _listed_places(self, file: FileInfo) -> list[Place]:
        known = self.fs.connection.map
        if file.attr.is_inline or not file.attr.chains:
            node = known.meta_node(file.attr.place)
            return [(0, file.size, hosts_of(known.addresses(node)))]
        return [
            (
                start,
                min(start + CHUNK_BYTES, file.size),
                hosts_of(known.addresses(known.data_node(chain_of(file.attr.chains, number)))),
            )
            for number, start in enumerate(range(0, file.size, CHUNK_BYTES))
        ]


def _listed(entry: DirEntry[str]) -> FileInfo:
    attr = entry.attr
    if attr.is_symlink:
        seen = entry.stat()
        return FileInfo(SCHEME + entry.path, seen.st_size, _version(seen))
    version = f"{entry.device}-{attr.ino}-{attr.size}-{attr.mtime_ns}"
    return FileInfo(SCHEME + entry.path, attr.size, version, attr)


class Fetching:
    """The same store for one task, whose bytes are counted."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.fetched_bytes = 0

    def read(self, path: str, offset: int, length: int) -> bytes:
        data = self._store.read(path, offset, length)
        self.fetched_bytes += len(data)
        return data

    def read_many(self, files: Sequence[FileInfo]) -> list[bytes]:
        found = self._store.read_many(files)
        self.fetched_bytes += sum(map(len, found))
        return found


@cache
def hosts_of(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Of a daemon: as its address is written, which is what Spark must call its worker there. One
    that can be reached by a Unix socket only is on this host."""
    for address in addresses:
        if not address.startswith("unix:"):
            return (address.rpartition(":")[0].strip("[]"),)
    return (socket.gethostname(),)


def store_for(path: str, options: Mapping[str, Any]) -> Store:
    """`dir`, `cluster` and `token_file` say which cluster, as to fsspec (docs/fsspec.md)."""
    if path.startswith(SCHEME):
        from superfs.fsspec.pool import connection_to
        from superfs.fsspec.target import find_target

        directory, cluster, token = (options.get(n) for n in ("dir", "cluster", "token_file"))
        fs = connection_to(find_target(directory, cluster, token))
        return SuperStore(fs, options)
    if "://" in path:
        raise AnalysisException("UNKNOWN_SCHEME", f"{path}: neither a path nor superfs://")
    return LocalStore(path)
