"""Pieces of a file that are asked for before they are read.

A piece is one aligned message of a file on data daemons. Reads that follow each other open a
window that doubles up to `WINDOW_PIECES_MAX` and closes at the first jump. Pieces are dropped
when they have been read past, when something is written over them, and when the file changes.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from superfs.client.started import finish_read
from superfs.core.errors import FsError
from superfs.core.limits import CHUNK_BYTES, MESSAGE_DATA_BYTES_MAX

if TYPE_CHECKING:
    from superfs.client.data import DataClient, Where
    from superfs.client.sought import Sought
    from superfs.client.started import StartedRead
    from superfs.client.wire import Reply
    from superfs.rpc.pending import Pending

PIECE_BYTES = MESSAGE_DATA_BYTES_MAX
WINDOW_PIECES_MAX = 8
KNOWN_AHEAD_BYTES = 2 * CHUNK_BYTES
"""So far before they are read it is asked where the bytes lie on a disk of this host."""
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
        self._known_chunk = -1  # asked for last
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
        first = offset // PIECE_BYTES
        last = (offset + length - 1) // PIECE_BYTES
        arrived = self._read_arrived(where, size, offset, length, waits=True)
        if arrived is not None:
            return arrived
        follows = self._follows(offset, length)
        if follows:
            self._forget_behind(first)
        near = await self._read_near(where, size, offset, length, follows=follows)
        if near is not None:
            return near
        if not follows:
            return await self._data.read(where, offset, length)
        wanted = [await self._piece(where, size, index) for index in range(first, last + 1)]
        self._go_on(where, size, last, waits=True)
        parts = [await finish_read(started) for started in wanted]
        start = first * PIECE_BYTES
        whole = parts[0] if len(parts) == 1 else b"".join(parts)
        return whole[offset - start : offset - start + length]

    async def _read_near(
        self, where: Where, size: int, offset: int, length: int, *, follows: bool
    ) -> bytes | None:
        """Of a disk of this host, where nothing of it is on its way. Whoever waits in a thread
        reads by himself, in order, through one descriptor: then the kernel reads ahead, in large
        pieces, for half of what it costs to be told what to fetch or to be asked by several. It is
        not asked before what it has in memory: that costs it the order, and a fifth of the speed
        of a disk."""
        first, last = offset // PIECE_BYTES, (offset + length - 1) // PIECE_BYTES
        if any(index in self._pieces for index in range(first, last + 1)):
            return None
        errand = self._data.errand(where, offset, length)
        if errand is None:
            return None
        if follows:
            self._learn_ahead(where, size, offset + length)
        return await errand

    def read_here(self, where: Where, size: int, offset: int, length: int) -> bytes | None:
        """As `read`, of a disk of this host, by a thread that may wait for that and for nothing
        else. None: it is not known to be there, or it is on its way already."""
        first, last = offset // PIECE_BYTES, (offset + length - 1) // PIECE_BYTES
        if self._pieces and any(index in self._pieces for index in range(first, last + 1)):
            return None
        found = self._data.read_here(where, offset, length)
        if found is not None and self._follows(offset, length):
            self._forget_behind(first)
            self._learn_ahead(where, size, offset + length)
        return found

    def _learn_ahead(self, where: Where, size: int, position: int) -> None:
        chunk = min(position + KNOWN_AHEAD_BYTES, size - 1) // CHUNK_BYTES
        if chunk != self._known_chunk:
            self._known_chunk = chunk
            self._data.learn(where, chunk)

    def read_now(
        self,
        where: Where,
        size: int,
        offset: int,
        length: int,
        *,
        seek: bool = False,
    ) -> bytes | Sought | None:
        """As `read`, of a piece that has arrived, or of what is in memory of this host. `seek`: or
        what its disk has been told to bring; not what follows the last read."""
        first, last = offset // PIECE_BYTES, (offset + length - 1) // PIECE_BYTES
        if not any(index in self._pieces for index in range(first, last + 1)):
            seek = seek and not self._expects(offset)
            found = self._data.read_now(where, offset, length, seek=seek)
            if found is not None:
                self._follows(offset, length)
            return found
        return self._read_arrived(where, size, offset, length, waits=False)

    def _read_arrived(
        self, where: Where, size: int, offset: int, length: int, *, waits: bool
    ) -> bytes | None:
        """`waits`: whoever reads waits for what is not here."""
        first, last = offset // PIECE_BYTES, (offset + length - 1) // PIECE_BYTES
        start = offset - first * PIECE_BYTES
        whole = self._arrived(first) if first == last else None
        if whole is None or len(whole) < start + length:
            return None
        if self._follows(offset, length):
            self._forget_behind(first)
            self._go_on(where, size, last, waits=waits)
        return whole[start : start + length]

    def start(
        self, where: Where, size: int, offset: int, length: int
    ) -> tuple[Pending[Reply], int] | None:
        """As `read`: (what will have the bytes, how far behind its beginning). None: it has to
        wait for its turn, or is in more than one piece."""
        first, last = offset // PIECE_BYTES, (offset + length - 1) // PIECE_BYTES
        if first != last:
            return None
        start = first * PIECE_BYTES
        if first in self._pieces or self._expects(offset):
            started = self._piece_now(where, size, first)
        else:
            started, start = self._data.start_read_now(where, offset, length), offset
        if started is None or len(started) != 1 or started[0][0] < offset - start + length:
            return None
        if self._follows(offset, length):
            self._forget_behind(first)
            self._fetch_ahead(where, size, last)
        return started[0][1], offset - start

    def _arrived(self, index: int) -> bytes | None:
        piece = self._pieces.get(index)
        if piece is None or len(piece[1]) != 1:
            return None
        ((length, pending),) = piece[1]
        if not pending.done or _has_failed(piece[1]):
            return None
        data = pending.result().data
        return data if len(data) == length else data.ljust(length, b"\0")

    def _expects(self, offset: int) -> bool:
        near = abs(offset - self._next) <= BEHIND_PIECES * PIECE_BYTES
        return self._next > 0 and (offset == self._next or (near and self._window > 0))

    def _follows(self, offset: int, length: int) -> bool:
        """Whether this reader reads one piece after the other; adapts the window."""
        near = abs(offset - self._next) <= BEHIND_PIECES * PIECE_BYTES and self._next > 0
        if offset == self._next and self._next > 0:
            self._window = min(max(1, 2 * self._window), WINDOW_PIECES_MAX)
        elif not (near and self._window):
            self._window = 0
        self._next = max(self._next, offset + length) if near else offset + length
        return self._window > 0

    def _forget_behind(self, first: int) -> None:
        if not self._pieces:
            return
        with self._lock:
            for index in list(self._pieces):
                if index < first - BEHIND_PIECES:
                    del self._pieces[index]

    def _go_on(self, where: Where, size: int, last: int, *, waits: bool) -> None:
        """Behind a piece that this reader has got. Near the disk pieces come to an end."""
        position = (last + 1) * PIECE_BYTES
        if not waits or position >= size or self._data.errand(where, position, 1) is None:
            self._fetch_ahead(where, size, last)

    def _fetch_ahead(self, where: Where, size: int, last: int) -> None:
        for index in range(last + 1, last + 1 + self._window):
            if index * PIECE_BYTES >= size or not self._data.has_room_to_read(PIECE_BYTES):
                break
            if self._piece_now(where, size, index) is None:
                break

    def _known(self, index: int, length: int) -> StartedRead | None:
        piece = self._pieces.get(index)
        return piece[1] if piece and piece[0] >= length and not _has_failed(piece[1]) else None

    def _piece_now(self, where: Where, size: int, index: int) -> StartedRead | None:
        start = index * PIECE_BYTES
        length = min(PIECE_BYTES, size - start)
        known = self._known(index, length)
        if known is not None:
            return known
        version = self._version
        started = self._data.start_read_now(where, start, length)
        if started is not None:
            self._keep(index, length, started, version)
        return started

    async def _piece(self, where: Where, size: int, index: int) -> StartedRead:
        start = index * PIECE_BYTES
        length = min(PIECE_BYTES, size - start)
        known = self._known(index, length)
        if known is not None:
            return known
        version = self._version
        started = await self._data.start_read(where, start, length)
        self._keep(index, length, started, version)
        return started

    def _keep(self, index: int, length: int, started: StartedRead, version: int) -> None:
        with self._lock:
            if version == self._version:  # else something was written while we waited for our turn
                self._pieces[index] = (length, started)


def _has_failed(started: StartedRead) -> bool:
    """Then it is asked for anew: an outage that is over is no reader's error."""
    for _, pending in started:
        try:
            if pending.done and pending.result().code:
                return True
        except FsError:
            return True
    return False
