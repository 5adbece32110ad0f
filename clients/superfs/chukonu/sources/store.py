"""Two places that files can be in, behind one face: a directory of this machine (a mount is one),
and a SuperFS cluster, past the mount (`superfs:///a/b`)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from superfs.chukonu.errors import AnalysisException
from superfs.rpc.host import host_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from superfs.client import FileSystem

SCHEME = "superfs://"
SAMPLE_FILES = 100
"""Of a read, that are asked for where they lie, when a plan is explained."""


@dataclass(frozen=True, slots=True, order=True)
class FileInfo:
    """`version` changes when the contents do."""

    path: str
    size: int
    version: str


class Store(Protocol):
    """Paths are as the program wrote them, scheme included. Errors are OSError."""

    def files(self, path: str) -> list[FileInfo]:
        """The file, or all files below the directory, sorted; names that begin with . or _ are
        not data. FileNotFoundError."""

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Fewer bytes only at the end of the file."""

    def read_many(self, paths: Sequence[str]) -> list[bytes]:
        """Whole files, together where that is cheaper."""

    def local_share(self, files: Sequence[FileInfo]) -> float | None:
        """Which part of their bytes lies on this machine; None where nobody knows."""


def hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _version(found: os.stat_result) -> str:
    return f"{found.st_dev}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"


class LocalStore:
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

    def read_many(self, paths: Sequence[str]) -> list[bytes]:
        found = []
        for path in paths:
            with open(path, "rb") as file:
                found.append(file.read())
        return found

    def local_share(self, files: Sequence[FileInfo]) -> float | None:
        return None


class SuperStore:
    """Listing takes a message for each few directories, small files come hundreds in one."""

    def __init__(self, fs: FileSystem) -> None:
        self.fs = fs

    @staticmethod
    def _bare(path: str) -> str:
        return "/" + path.removeprefix(SCHEME).strip("/")

    def files(self, path: str) -> list[FileInfo]:
        bare = self._bare(path)
        found = self.fs.stat(bare)
        if found.st_mode & 0o170000 != 0o040000:
            return [FileInfo(path, found.st_size, _version(found))]
        files: list[FileInfo] = []
        for _, folders, others in self.fs.walk(bare):
            folders[:] = [entry for entry in folders if not hidden(entry.name)]
            for entry in others:
                if not hidden(entry.name):
                    seen = entry.stat()
                    files.append(FileInfo(SCHEME + entry.path, seen.st_size, _version(seen)))
        return sorted(files)

    def read(self, path: str, offset: int, length: int) -> bytes:
        with self.fs.open(self._bare(path), "rb", buffering=0) as file:
            file.seek(offset)
            parts: list[bytes] = []
            while length > 0 and (part := file.read(length)):
                parts.append(part)
                length -= len(part)
        return b"".join(parts)

    def read_many(self, paths: Sequence[str]) -> list[bytes]:
        found = self.fs.get_many([self._bare(path) for path in paths])
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


def store_for(path: str, options: Mapping[str, Any]) -> Store:
    """`dir`, `cluster` and `token_file` say which cluster, as to fsspec (docs/fsspec.md)."""
    if path.startswith(SCHEME):
        from superfs.fsspec.pool import connection_to
        from superfs.fsspec.target import find_target

        directory, cluster, token = (options.get(n) for n in ("dir", "cluster", "token_file"))
        return SuperStore(connection_to(find_target(directory, cluster, token)))
    if "://" in path:
        raise AnalysisException("UNKNOWN_SCHEME", f"{path}: neither a path nor superfs://")
    return LocalStore()
