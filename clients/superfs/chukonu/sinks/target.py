"""The few things that committing an output asks of a file system, on a directory of this machine
and on a SuperFS cluster. Files appear whole and durable, or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import threading
from typing import TYPE_CHECKING, Any, Protocol

from superfs.chukonu.sources.store import SCHEME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from superfs.client import FileSystem
    from superfs.client.fileobj import RawFile

_EXCHANGE = 2
_AT_FDCWD = -100


class Target(Protocol):
    """Every call may be repeated. Errors are OSError."""

    def exists(self, path: str) -> bool: ...

    def makedirs(self, path: str) -> None: ...

    def put(self, path: str, data: bytes) -> None:
        """Replaces the file; durable when it returns."""

    def writer(self, path: str) -> AbstractContextManager[Callable[[bytes], Any]]:
        """Of a large file, part after part. The file is there, and durable, when the block ends."""

    def get(self, path: str) -> bytes | None:
        """None when there is no such file."""

    def names(self, path: str) -> list[str]:
        """In a directory; none when there is no such directory."""

    def publish(self, attempt: str, path: str, *, replace: bool) -> None:
        """The directory under its name, in one step; what was there goes away, and so does what a
        killed process has not finished putting into it."""

    def remove(self, path: str) -> None: ...


class LocalTarget:
    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def makedirs(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)

    def put(self, path: str, data: bytes) -> None:
        with self.writer(path) as write:
            write(data)

    @contextlib.contextmanager
    def writer(self, path: str) -> Iterator[Callable[[bytes], Any]]:
        temporary = _temporary(path)
        with open(temporary, "wb") as file:
            yield file.write
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)

    def get(self, path: str) -> bytes | None:
        try:
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def names(self, path: str) -> list[str]:
        return os.listdir(path or ".") if os.path.isdir(path or ".") else []

    def publish(self, attempt: str, path: str, *, replace: bool) -> None:
        _remove_unfinished(attempt)
        _sync_folder(attempt)
        if replace and os.path.lexists(path):
            _exchange(attempt, path)
            _sync_folder(os.path.dirname(path) or ".")
            self.remove(attempt)
        else:
            os.rename(attempt, path)
            _sync_folder(os.path.dirname(path) or ".")

    def remove(self, path: str) -> None:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def _write_all(file: RawFile, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _temporary(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}-{os.getpid()}-{threading.get_ident()}")


def _remove_unfinished(attempt: str) -> None:
    """What a killed process was putting there."""
    for folder, _, names in os.walk(attempt):
        for name in names:
            if name.startswith("."):
                os.unlink(os.path.join(folder, name))


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _exchange(one: str, other: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE):
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(number, os.strerror(number), one, None, other)
        raise OSError(number, "this file system cannot exchange two directories", one, None, other)


class SuperTarget:
    def __init__(self, fs: FileSystem, options: Mapping[str, Any]) -> None:
        self.fs = fs
        self._options = dict(options)

    def __reduce__(self) -> tuple[Any, ...]:
        """For workers of other processes, which connect by themselves."""
        return target_for, (SCHEME, self._options)

    @staticmethod
    def _bare(path: str) -> str:
        return "/" + path.removeprefix(SCHEME).strip("/")

    def exists(self, path: str) -> bool:
        return self.fs.exists(self._bare(path))

    def makedirs(self, path: str) -> None:
        self.fs.makedirs(self._bare(path), exist_ok=True)

    def put(self, path: str, data: bytes) -> None:
        self.fs.put_many([(self._bare(path), data)])

    @contextlib.contextmanager
    def writer(self, path: str) -> Iterator[Callable[[bytes], Any]]:
        temporary = self._bare(_temporary(path))
        with self.fs.open_raw(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
            yield lambda data: _write_all(file, data)
            file.sync()
        self.fs.rename(temporary, self._bare(path))

    def get(self, path: str) -> bytes | None:
        try:
            return self.fs.read_bytes(self._bare(path))
        except FileNotFoundError:
            return None

    def names(self, path: str) -> list[str]:
        return self.fs.listdir(self._bare(path)) if self.exists(path) else []

    def publish(self, attempt: str, path: str, *, replace: bool) -> None:
        for folder, _, others in self.fs.walk(self._bare(attempt)):
            for entry in others:
                if entry.name.startswith("."):
                    self.fs.unlink(f"{folder}/{entry.name}")
        if replace and self.exists(path):
            self.fs.rename(self._bare(attempt), self._bare(path), _EXCHANGE)
            self.remove(attempt)
        else:
            self.fs.rename(self._bare(attempt), self._bare(path))

    def remove(self, path: str) -> None:
        self.fs.remove_tree(self._bare(path))


def target_for(path: str, options: Mapping[str, Any]) -> Target:
    if path.startswith(SCHEME):
        from superfs.fsspec.pool import connection_to
        from superfs.fsspec.target import find_target

        directory, cluster, token = (options.get(n) for n in ("dir", "cluster", "token_file"))
        return SuperTarget(connection_to(find_target(directory, cluster, token)), options)
    return LocalTarget()
