"""Open files: buffered, with what fsspec expects of a file beyond the io classes, and deferred
ones, which a transaction brings to their place or drops.

A deferred file is written under a name of its own beside the place where it belongs; `commit`
renames it there, which is atomic, `discard` unlinks it.
"""

from __future__ import annotations

import io
import os
import secrets
from typing import TYPE_CHECKING, Any

from superfs.client.paths import RENAME_NOREPLACE

if TYPE_CHECKING:
    from superfs.client import FileSystem
    from superfs.client.fileobj import RawFile
    from superfs.fsspec.filesystem import SuperFileSystem

BUFFER_BYTES = 1 << 20
"""What a buffered reader asks for at once, and a writer collects, unless block_size says else."""


class _Named:
    """`path`: in the file system. `fs`: the instance that opened it."""

    fs: SuperFileSystem
    path: str
    raw: RawFile
    blocksize: int

    @property
    def full_name(self) -> str:
        return str(self.fs.unstrip_protocol(self.path))

    @property
    def size(self) -> int:
        """Bytes, with what this process has written and flushed."""
        return self.raw.size

    @property
    def details(self) -> dict[str, Any]:
        return self.fs.info(self.path)


class ReadFile(io.BufferedReader, _Named):  # type: ignore[misc]  # `raw`: of both
    """Pickles by name and position."""

    def __init__(self, fs: SuperFileSystem, path: str, raw: RawFile, blocksize: int) -> None:
        super().__init__(raw, blocksize)
        self.fs, self.path, self.blocksize = fs, path, blocksize

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.fs, self.path, self.blocksize, self.tell())


def _reopen(fs: SuperFileSystem, path: str, blocksize: int, position: int) -> ReadFile:
    file: ReadFile = fs.open(path, "rb", block_size=blocksize)
    file.seek(position)
    return file


class WriteFile(io.BufferedWriter, _Named):  # type: ignore[misc]
    def __init__(self, fs: SuperFileSystem, path: str, raw: RawFile, blocksize: int) -> None:
        super().__init__(raw, blocksize)
        self.fs, self.path, self.blocksize = fs, path, blocksize


class UpdateFile(io.BufferedRandom, _Named):  # type: ignore[misc]
    def __init__(self, fs: SuperFileSystem, path: str, raw: RawFile, blocksize: int) -> None:
        super().__init__(raw, blocksize)
        self.fs, self.path, self.blocksize = fs, path, blocksize


OpenFile = ReadFile | WriteFile | UpdateFile


def wrap(fs: SuperFileSystem, path: str, raw: RawFile, blocksize: int | None) -> OpenFile:
    """`blocksize` in bytes; None: ours."""
    size = blocksize or BUFFER_BYTES
    if raw.readable() and raw.writable():
        return UpdateFile(fs, path, raw, size)
    return WriteFile(fs, path, raw, size) if raw.writable() else ReadFile(fs, path, raw, size)


class DeferredFile(WriteFile):
    """`commit` or `discard`, once. `exclusive`: FileExistsError at the commit when somebody was
    quicker."""

    def __init__(
        self, fs: SuperFileSystem, path: str, flags: int, blocksize: int | None = None
    ) -> None:
        client = fs.client
        self._exclusive = bool(flags & os.O_EXCL)
        self._name = _beside(path)
        made = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        super().__init__(fs, path, client.open_raw(self._name, made), blocksize or BUFFER_BYTES)
        if flags & os.O_APPEND:
            self._copy(client)

    def _copy(self, client: FileSystem) -> None:
        """What is appended to is part of the new file."""
        try:
            source = client.open(self.path, "rb", BUFFER_BYTES)
        except FileNotFoundError:
            return
        with source:
            while data := source.read(BUFFER_BYTES):
                self.write(data)

    def commit(self) -> None:
        self.close()
        flags = RENAME_NOREPLACE if self._exclusive else 0
        self.fs.client.rename(self._name, self.path, flags)

    def discard(self) -> None:
        self.close()
        self.fs.client.unlink(self._name)


def _beside(path: str) -> str:
    head, _, name = path.rpartition("/")
    return f"{head}/.{name[:200]}.{secrets.token_hex(8)}.tmp"
