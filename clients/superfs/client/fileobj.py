"""File objects of the blocking API: what the builtin open returns, over a `Handle`."""

from __future__ import annotations

import io
import os
import warnings
from typing import TYPE_CHECKING

from superfs.client.lent import PLAIN
from superfs.client.results import IO_BYTES, os_errors
from superfs.core.errors import Code, FsError
from superfs.rpc.pending import run_sync

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Any

    from _typeshed import ReadableBuffer, WriteableBuffer

    from superfs.client.lent import Placing
    from superfs.client.opening import Handle
    from superfs.client.resolve import AnyPath


def parse_mode(mode: str) -> tuple[int, bool]:
    """A mode of the builtin open: (flags of open(2), whether it is text)."""
    kinds = set(mode)
    if len(kinds) != len(mode) or not kinds <= set("rwxabt+"):
        raise ValueError(f"invalid mode: {mode!r}")
    action = kinds & set("rwxa")
    if len(action) != 1 or {"b", "t"} <= kinds:
        raise ValueError(f"invalid mode: {mode!r}")
    plus = "+" in kinds
    flags = {
        "r": 0,
        "w": os.O_CREAT | os.O_TRUNC,
        "x": os.O_CREAT | os.O_EXCL,
        "a": os.O_CREAT | os.O_APPEND,
    }[action.pop()]
    access = os.O_RDWR if plus else os.O_RDONLY if "r" in kinds else os.O_WRONLY
    return flags | access, "b" not in kinds


def check_usable(handle: Handle, allowed: bool = True) -> None:
    """What file objects raise, and before anything is asked of a daemon."""
    if handle.closed:
        raise ValueError("I/O operation on closed file")
    if not allowed:
        raise io.UnsupportedOperation("the file was not opened for that")


class RawFile(io.RawIOBase):
    """Unbuffered. Not to be used by two threads at once (two files may)."""

    def __init__(
        self,
        handle: Handle,
        path: AnyPath,
        discard: Callable[[Handle], object],
        placing: Placing = PLAIN,
    ) -> None:
        """`discard` closes a handle in the background: for a file that nobody closed. `placing`:
        how large writes go straight to a disk of this host."""
        self._handle = handle
        self._placing = placing
        self._discard = discard
        self._position = 0
        self.name = os.fspath(path)
        flags = handle.flags
        self.mode = (
            "rb+" if handle.readable and handle.writable else "rb" if handle.readable else "wb"
        )
        if flags & os.O_APPEND:
            self._position = handle.inode.size

    def readable(self) -> bool:
        return self._handle.readable

    def writable(self) -> bool:
        return self._handle.writable

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        raise io.UnsupportedOperation("a file of the bypass path has no descriptor")

    def isatty(self) -> bool:
        return False

    def read(self, size: int | None = -1) -> bytes:
        """Without the copies that the base class would make."""
        return self.readall() if size is None or size < 0 else self._read(size)

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self._read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        self._check(self._handle.readable)
        with os_errors(self.name):
            data = run_sync(self._handle.read_all(self._position))
        self._position += len(data)
        return data

    def _read(self, length: int) -> bytes:
        self._check(self._handle.readable)
        found = self._handle.inode.read_now(self._position, length, wait=True)
        if isinstance(found, bytes):
            data = found
        else:
            with os_errors(self.name):
                data = run_sync(self._handle.read(self._position, length))
        self._position += len(data)
        return data

    def write(self, data: ReadableBuffer) -> int:
        self._check(self._handle.writable)
        view = memoryview(data).cast("B")
        with os_errors(self.name):
            self._position = run_sync(self._handle.write(self._position, view, self._placing))
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._check()
        base = {
            os.SEEK_SET: 0,
            os.SEEK_CUR: self._position,
            os.SEEK_END: self._end() if whence == os.SEEK_END else 0,
        }.get(whence)
        if base is None:
            raise ValueError(f"invalid whence: {whence}")
        if base + offset < 0:
            with os_errors(self.name):
                raise FsError(Code.INVALID, "a negative position")
        self._position = base + offset
        return self._position

    def _end(self) -> int:
        with os_errors(self.name):
            run_sync(self._handle.inode.refresh())
        return self._handle.inode.size

    def tell(self) -> int:
        return self._position

    @property
    def number(self) -> int:
        """The file's inode number, as a mount has it too."""
        return self._handle.inode.attr.ino

    @property
    def size(self) -> int:
        """Of the file, in bytes, as this process has written it."""
        return self._handle.inode.size

    def truncate(self, size: int | None = None) -> int:
        self._check(self._handle.writable)
        wanted = self._position if size is None else size
        with os_errors(self.name):
            run_sync(self._handle.truncate(wanted))
        return wanted

    def sync(self) -> None:
        """fsync: on disk at every daemon concerned. Flush a buffered file before."""
        self._check()
        with os_errors(self.name):
            run_sync(self._handle.fsync())

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        with os_errors(self.name):
            run_sync(self._handle.close())

    def __del__(self) -> None:
        # A finalizer may run in the middle of anything: it must not wait for a daemon.
        if not self.closed and not self._handle.closed:
            text = f"unclosed file {self.name!r}"
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)
            self._discard(self._handle)
            super().close()

    def _check(self, allowed: bool = True) -> None:
        check_usable(self._handle, allowed)


def wrap(
    raw: RawFile,
    text: bool,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
) -> IO[Any]:
    """Buffers and decodes, as the builtin open would."""
    if buffering == 0:
        if text:
            raise ValueError("can't have unbuffered text I/O")
        return raw  # type: ignore[return-value]  # typeshed: RawIOBase is no IO
    size = buffering if buffering > 1 else IO_BYTES
    buffered: io.BufferedRandom | io.BufferedWriter | io.BufferedReader
    if raw.readable() and raw.writable():
        buffered = io.BufferedRandom(raw, size)
    elif raw.writable():
        buffered = io.BufferedWriter(raw, size)
    else:
        buffered = io.BufferedReader(raw, size)
    if not text:
        return buffered
    return io.TextIOWrapper(
        buffered, encoding or "utf-8", errors, newline, line_buffering=buffering == 1
    )
