"""Frames in a file, in the order in which they came: Arrow streams, each behind its length.

The file is there as long as its `Pieces`, their folder as long as one of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import itertools
import os
import shutil
import tempfile
import weakref
from typing import TYPE_CHECKING, Any

from superfs.chukonu.native import pl

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Frame = Any
PREFIX, LOCK = "chukonu-spill-", "lock"


class Folder:
    """A lock in it says that its process lives. Folders of processes that were killed go when
    another one makes its own beside them."""

    def __init__(self, parent: str | None) -> None:
        self.path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        self._names = itertools.count()
        lock = os.open(os.path.join(self.path, LOCK), os.O_WRONLY | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        weakref.finalize(self, _removed_all, lock, self.path)
        _sweep(os.path.dirname(self.path))

    def new(self) -> str:
        return os.path.join(self.path, str(next(self._names)))


class Pieces:
    def __init__(self, folder: Folder, empty: Frame) -> None:
        """`empty`: a frame of the columns that all of them have."""
        self._folder = folder
        self._path = path = folder.new()
        self._file: Any = open(path, "xb")  # noqa: SIM115 - closed by finish()
        self.empty = empty
        self.size_bytes = 0
        self.rows = 0
        weakref.finalize(self, _removed, self._file, path)

    def add(self, frame: Frame) -> None:
        stream = io.BytesIO()
        frame.write_ipc_stream(stream)
        data = stream.getbuffer()
        try:
            self._file.write(len(data).to_bytes(8))
            self._file.write(data)
        except OSError as error:
            where = f"{self._path} (rows that do not fit in memory; chukonu.local.dir moves it)"
            raise OSError(error.errno, error.strerror, where) from None
        self.size_bytes += frame.estimated_size()
        self.rows += frame.height

    def finish(self) -> None:
        self._file.close()

    def frames(self, columns: Sequence[str] | None = None) -> Iterator[Frame]:
        with open(self._path, "rb") as file:
            while size := file.read(8):
                data = io.BytesIO(file.read(int.from_bytes(size)))
                chosen = None if columns is None else list(columns)
                yield pl.read_ipc_stream(data, columns=chosen)

    def whole(self) -> Frame:
        found = list(self.frames())
        return pl.concat(found) if found else self.empty


def _removed_all(lock: int, path: str) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.close(lock)


def _sweep(parent: str) -> None:
    for name in os.listdir(parent):
        if not name.startswith(PREFIX):
            continue
        path = os.path.join(parent, name)
        try:
            lock = os.open(os.path.join(path, LOCK), os.O_WRONLY)
        except OSError:
            continue  # it is just being made or removed, or not ours
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            pass  # its process lives
        finally:
            os.close(lock)


def _removed(file: Any, path: str) -> None:  # noqa: ANN401
    file.close()
    with contextlib.suppress(FileNotFoundError):  # the folder of all of them has gone already
        os.unlink(path)
