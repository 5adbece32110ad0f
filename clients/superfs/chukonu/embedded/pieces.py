"""Frames in a file, in the order in which they came: Arrow streams, each behind its length.

The file is there as long as its `Pieces`, their folder as long as one of them.
"""

from __future__ import annotations

import contextlib
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


class Folder:
    def __init__(self, parent: str | None) -> None:
        self.path = tempfile.mkdtemp(prefix="chukonu-spill-", dir=parent)
        self._names = itertools.count()
        weakref.finalize(self, shutil.rmtree, self.path, True)

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


def _removed(file: Any, path: str) -> None:  # noqa: ANN401
    file.close()
    with contextlib.suppress(FileNotFoundError):  # the folder of all of them has gone already
        os.unlink(path)
