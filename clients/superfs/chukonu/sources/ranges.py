"""A file of a store as Arrow wants it: to seek in, and read parts of."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from superfs.chukonu.native import pa

if TYPE_CHECKING:
    from superfs.chukonu.sources.store import FileInfo, Readable

PARQUET_BUFFER_BYTES = 1 << 20
"""Of a column chunk, what is fetched at once."""
WHOLE_BYTES_MAX = 4 << 20
"""Smaller files are fetched whole."""


def opened(store: Readable, file: FileInfo) -> Any:  # noqa: ANN401
    """A file for Arrow."""
    if file.size <= WHOLE_BYTES_MAX:
        return pa.BufferReader(store.read(file.path, 0, file.size))
    return pa.PythonFile(_Ranges(store, file), "r")


class _Ranges(io.RawIOBase):
    def __init__(self, store: Readable, file: FileInfo) -> None:
        super().__init__()
        self._store = store
        self._about = file
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._about.size}[whence]
        self._place = base + offset
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._about.size - self._place)
        wanted = left if size is None or size < 0 else min(size, left)
        data = self._store.read(self._about.path, self._place, wanted) if wanted else b""
        self._place += len(data)
        return data
