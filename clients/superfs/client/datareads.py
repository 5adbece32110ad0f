"""The reading half of `DataClient`: from this host's memory or disk where that can be, else asked
for, many at once, bounded in bytes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from superfs.client.bypass import Bypass, read_item
from superfs.client.smallreads import SmallReads
from superfs.client.started import StartedRead, finish_read
from superfs.core.layout import chain_of, pieces
from superfs.core.limits import CHUNK_BYTES, MESSAGE_DATA_BYTES_MAX
from superfs.core.pagecache import DropBehind
from superfs.rpc.pending import Budget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.client.data import Router, Where
    from superfs.client.datastream import DataItem
    from superfs.client.errands import Errand
    from superfs.client.sought import Sought
    from superfs.client.wire import Reply
    from superfs.core.errors import FsError
    from superfs.core.layout import Piece
    from superfs.rpc.pending import Pending


class DataReads:
    def __init__(self, router: Router) -> None:
        self._router = router
        self._reading = Budget(router.config.data_in_flight_bytes)
        self.bypass = Bypass(DropBehind(wanted=router.drops_behind))
        self._small = SmallReads(router, self._reading, self.bypass)

    def has_room_to_read(self, length: int) -> bool:
        """Whether a read would be on its way at once: nobody reads ahead at others' expense."""
        return self._reading.free >= length

    async def read(self, where: Where, offset: int, length: int) -> bytes:
        """Exactly `length` bytes."""
        data = self.read_now(where, offset, length)
        if isinstance(data, bytes):
            return data
        started = await self.start_read(where, offset, length)
        return await finish_read(started)

    def read_now(
        self, where: Where, offset: int, length: int, *, seek: bool = False
    ) -> bytes | Sought | None:
        """Exactly `length` bytes, if they can be had from memory of this host without asking;
        `seek`: or, of a few, from its disk."""
        chunk, start = divmod(offset, CHUNK_BYTES)
        if not 0 < length <= CHUNK_BYTES - start or not where.chains:
            return None
        stream = self._router.data_stream(chain_of(where.chains, chunk))
        return self.bypass.read_now(stream, where, chunk, start, length, seek=seek)

    def read_here(self, where: Where, offset: int, length: int) -> bytes | None:
        """As `read_now`, for whoever may wait for a disk of this host."""
        chunk, start = divmod(offset, CHUNK_BYTES)
        if not 0 < length <= CHUNK_BYTES - start or not where.chains:
            return None
        stream = self._router.data_stream(chain_of(where.chains, chunk))
        return self.bypass.read_here(stream, where, chunk, start, length)

    def errand(self, where: Where, offset: int, length: int) -> Errand[bytes | None] | None:
        """As `read_now`, by a thread that may wait for a disk. It has None where the bytes cannot
        be had that way, after all; None at once: nothing is known of them here."""
        chunk, start = divmod(offset, CHUNK_BYTES)
        if not 0 < length <= CHUNK_BYTES - start or not where.chains:
            return None
        stream = self._router.data_stream(chain_of(where.chains, chunk))
        return self.bypass.errand(stream, where, chunk, start, length)

    async def start_read(self, where: Where, offset: int, length: int) -> StartedRead:
        """Returns when everything is on its way, which other transfers may delay."""
        parts: StartedRead = []
        for piece in pieces(offset, length, piece_bytes_max=MESSAGE_DATA_BYTES_MAX):
            await self._reading.acquire(piece.length)
            parts.append(self._start_piece(where, piece))
        return parts

    def start_read_now(self, where: Where, offset: int, length: int) -> StartedRead | None:
        """None: other transfers are ahead of it, or it is more than one message."""
        found = list(pieces(offset, length, piece_bytes_max=MESSAGE_DATA_BYTES_MAX))
        if len(found) != 1 or not self._reading.acquire_nowait(length):
            return None
        return [self._start_piece(where, found[0])]

    def _start_piece(self, where: Where, piece: Piece) -> tuple[int, Pending[Reply]]:
        """What it has of the budget is released when it is done."""
        size = piece.length
        try:
            stream = self._router.data_stream(chain_of(where.chains, piece.chunk))
        except BaseException:
            self._reading.release(size)
            raise
        started = self.bypass.start(stream, where, piece.chunk, piece.offset, size)
        if started is None:
            item = read_item(where, piece.chunk, piece.offset, size)
            parts: StartedRead = []
            self._submit(where, piece.chunk, item, self._reading, size, parts)
            self.bypass.count_read(size, by_descriptor=False)
            return parts[0]
        if not started.on_done(partial(self._reading.release, size)):
            self._reading.release(size)
        return size, started

    def learn(self, where: Where, chunk: int) -> None:
        """Where it lies, if that is on this host: it will be read soon."""
        self.bypass.learn(self._router.data_stream(chain_of(where.chains, chunk)), where, chunk)

    async def read_many(self, wanted: Sequence[tuple[Where, int]]) -> list[bytes | FsError]:
        """The first `length` bytes of many small files: (where, length), each within a message."""
        return await self._small.read(wanted)

    @property
    def many_bytes_max(self) -> int:
        """How much of small files is better asked for at once than in parts."""
        return self._small.bytes_max

    def _submit(
        self,
        where: Where,
        chunk: int,
        item: DataItem,
        budget: Budget,
        size: int,
        parts: list[tuple[int, Pending[Reply]]],
    ) -> None:
        item.pending.on_done(lambda: budget.release(size))
        try:
            self._router.data_stream(chain_of(where.chains, chunk)).submit((item,))
        except BaseException as error:
            item.pending.fail(error)
            raise
        parts.append((size, item.pending))
