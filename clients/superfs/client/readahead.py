"""Pieces of a file that are asked for before they are read.

A piece is one aligned message of a file on data daemons. Reads that follow each other open a
window that doubles up to `WINDOW_PIECES_MAX` and closes at the first jump. Pieces are dropped
when they have been read past, when something is written over them, and when the file changes.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from superfs.client.data import finish_read
from superfs.core.errors import FsError
from superfs.core.limits import MESSAGE_DATA_BYTES_MAX

if TYPE_CHECKING:
    from superfs.client.data import DataClient, StartedRead, Where

PIECE_BYTES = MESSAGE_DATA_BYTES_MAX
WINDOW_PIECES_MAX = 8
BEHIND_PIECES = 1
"""Kept behind the reader: a kernel sends its requests a little out of order."""


class Readahead:
    """Threads read and write one file at once: what was asked for before a `drop` is not kept
    behind it."""

    def __init__(self, data: DataClient) -> None:
        self._data = data
        self._pieces: dict[int, tuple[int, StartedRead]] = {}  # index -> (length, its answers)
        self._next = 0  # where a sequential reader would read next
        self._window = 0
        self._version = 0
        self._lock = threading.Lock()  # of _pieces and _version

    def drop(self, offset: int = 0, end: int | None = None) -> None:
        """What overlaps [offset, end); None: everything behind."""
        first = offset // PIECE_BYTES
        with self._lock:
            self._version += 1
            for index in list(self._pieces):
                if index >= first and (end is None or index * PIECE_BYTES < end):
                    del self._pieces[index]

    async def read(self, where: Where, size: int, offset: int, length: int) -> bytes:
        """[offset, offset + length) of a file of `size` bytes."""
        assert offset + length <= size, (offset, length, size)
        follows = self._follows(offset, length)
        first = offset // PIECE_BYTES
        last = (offset + length - 1) // PIECE_BYTES
        if not any(index in self._pieces for index in range(first, last + 1)):
            data = self._data.read_now(where, offset, length)
            if data is not None:
                return data
        if not follows:
            return await self._data.read(where, offset, length)
        with self._lock:
            for index in list(self._pieces):
                if index < first - BEHIND_PIECES:
                    del self._pieces[index]
        wanted = [await self._piece(where, size, index) for index in range(first, last + 1)]
        for index in range(last + 1, last + 1 + self._window):
            if index * PIECE_BYTES >= size or not self._data.has_room_to_read(PIECE_BYTES):
                break
            await self._piece(where, size, index)
        parts = [await finish_read(started) for started in wanted]
        start = first * PIECE_BYTES
        whole = parts[0] if len(parts) == 1 else b"".join(parts)
        return whole[offset - start : offset - start + length]

    def _follows(self, offset: int, length: int) -> bool:
        """Whether this reader reads one piece after the other; adapts the window."""
        near = abs(offset - self._next) <= BEHIND_PIECES * PIECE_BYTES and self._next > 0
        if offset == self._next and self._next > 0:
            self._window = min(max(1, 2 * self._window), WINDOW_PIECES_MAX)
        elif not (near and self._window):
            self._window = 0
        self._next = max(self._next, offset + length) if near else offset + length
        return self._window > 0

    async def _piece(self, where: Where, size: int, index: int) -> StartedRead:
        start = index * PIECE_BYTES
        length = min(PIECE_BYTES, size - start)
        with self._lock:
            piece = self._pieces.get(index)
            version = self._version
        if piece is not None and piece[0] >= length and not _has_failed(piece[1]):
            return piece[1]
        started = await self._data.start_read(where, start, length)
        with self._lock:
            if version == self._version:  # else something was written while we waited for our turn
                self._pieces[index] = (length, started)
        return started


def _has_failed(started: StartedRead) -> bool:
    """Then it is asked for anew: an outage that is over is no reader's error."""
    for _, pending in started:
        try:
            if pending.done and pending.result().code:
                return True
        except FsError:
            return True
    return False
