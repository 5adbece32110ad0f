"""DataClient: bytes of files on data daemons, addressed by (inode, data generation, offset).

Knows chunks, chains and message sizes, and nothing of inodes' sizes: a read of what was never
written is zeros. Many requests are on their way at once, bounded in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from superfs.client.bypass import Bypass, read_item
from superfs.client.datastream import DataItem, new_tag
from superfs.client.payload import Payload
from superfs.client.sharedmem import SharedMemory, slot_of
from superfs.client.smallreads import SmallReads
from superfs.client.started import StartedRead, check, finish_read
from superfs.client.wire import Reply, Request, encode_write
from superfs.core.layout import chain_of, pieces
from superfs.core.limits import CHUNK_BYTES, KIB, MANY_ENTRIES_MAX, MESSAGE_DATA_BYTES_MAX
from superfs.rpc.pending import Budget
from superfs.v1 import data_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from superfs.client.config import ClientConfig
    from superfs.client.datastream import DataStream
    from superfs.client.errands import Errand
    from superfs.client.sought import Sought
    from superfs.core.attrs import Attr
    from superfs.core.errors import FsError
    from superfs.core.layout import Piece
    from superfs.rpc.pending import Pending


Bytes = bytes | bytearray | memoryview
SHARED_BYTES_MIN = 128 * KIB
"""Smaller writes carry their bytes."""
SMALL_MAX = 4
FREE_MIN = 8


@dataclass(frozen=True, slots=True)
class Where:
    """The data of one file: what its attributes say, and the right to it."""

    ino: int
    data_generation: int
    chains: tuple[int, ...]
    capability: bytes = b""  # of a user session; a host session has one for everything

    @classmethod
    def of(cls, attr: Attr, capability: bytes = b"") -> Where:
        return cls(attr.ino, attr.data_generation, attr.chains, capability)


class Router(Protocol):
    @property
    def config(self) -> ClientConfig: ...
    def data_stream(self, chain_id: int) -> DataStream: ...
    def data_streams(self) -> list[DataStream]: ...


class DataClient:
    def __init__(self, router: Router) -> None:
        self._router = router
        self._writing = Budget(router.config.data_in_flight_bytes)
        self._reading = Budget(router.config.data_in_flight_bytes)
        self.bypass = Bypass()
        self.memory = SharedMemory()
        self._small = SmallReads(router, self._reading, self.bypass)

    def greet(self, chains: Iterable[int]) -> None:
        """Connects to the daemons of these chains, and to their local sockets, before the first
        read or write has to. Nothing is waited for."""
        for stream in {self._router.data_stream(chain) for chain in chains}:
            stream.submit((DataItem.of(data_pb2.DataRequest(usage=data_pb2.Usage())),))

    def close(self) -> None:
        """Behind the streams."""
        self.bypass.close()

    # ---- reading

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

    # ---- writing

    async def write(self, where: Where, offset: int, data: Bytes) -> None:
        """Returns when every byte would survive a kill of its daemon."""
        for pending in await self.start_write(where, offset, data):
            check(await pending)

    async def start_write(self, where: Where, offset: int, data: Bytes) -> list[Pending[Reply]]:
        """Returns when everything is on its way; the answers are the caller's to `check`."""
        view = memoryview(data)
        parts: list[tuple[int, Pending[Reply]]] = []
        for piece in pieces(offset, len(view), piece_bytes_max=MESSAGE_DATA_BYTES_MAX):
            body = view[piece.position : piece.position + piece.length]
            await self._make_room(where, piece.chunk, piece.length)
            item = self._write_item(where, piece, body)
            self._submit(where, piece.chunk, item, self._writing, piece.length, parts)
        self.bypass.wrote(where.ino, where.data_generation)
        return [pending for _, pending in parts]

    def start_writes_now(
        self, where: Where, extents: Sequence[tuple[int, Bytes]]
    ) -> list[Pending[Reply]] | None:
        """As `start_write` of each, to data daemons on this host; None: other transfers are ahead
        of them, or they are not worth a message each."""
        if sum(len(data) < SHARED_BYTES_MIN for _, data in extents) > SMALL_MAX:
            return None
        ready: dict[DataStream, list[tuple[Piece, memoryview]]] = {}
        for offset, data in extents:
            view = memoryview(data)
            for piece in pieces(offset, len(view), piece_bytes_max=MESSAGE_DATA_BYTES_MAX):
                stream = self._router.data_stream(chain_of(where.chains, piece.chunk))
                body = view[piece.position : piece.position + piece.length]
                ready.setdefault(stream, []).append((piece, body))
        limit = self._router.config.data_uncommitted_bytes
        for stream, parts in ready.items():
            size = sum(piece.length for piece, _ in parts)
            if not stream.shares_memory or stream.kept_bytes + size > limit:
                return None
        if not self._writing.acquire_nowait(sum(len(data) for _, data in extents)):
            return None
        answers: list[Pending[Reply]] = []
        for stream, parts in ready.items():
            self._begin_commit(stream)
            items = [self._write_item(where, piece, body) for piece, body in parts]
            for item in items:
                item.pending.on_done(partial(self._writing.release, item.kept_bytes))
            answers += [item.pending for item in items]
            try:
                stream.submit(items)
            except BaseException as error:
                for item in items:
                    item.pending.fail(error)
        self.bypass.wrote(where.ino, where.data_generation)
        return answers

    def _write_item(self, where: Where, piece: Piece, data: memoryview) -> DataItem:
        tag = new_tag()
        item = DataItem(
            self._write_request(tag, where, piece.chunk, piece.offset, data),
            tag,
            kept_bytes=piece.length,
            inodes=frozenset((where.ino,)),
            capability=where.capability,
        )
        self._count_when_done(item, piece.length)
        return item

    def own(self, data: Bytes) -> Bytes:
        """The same bytes. Large ones do not change any more, and lie where a data daemon on this
        host can read them: as they are, or a copy."""
        if isinstance(data, bytes) or len(data) < SHARED_BYTES_MIN or slot_of(data) is not None:
            return data
        if len(data) <= MESSAGE_DATA_BYTES_MAX and self.shares_memory:
            shared = self.memory.copy(data)
            if shared is not None:
                return shared
        return bytes(data)

    def slot(self) -> memoryview | None:
        """Memory for whoever receives bytes that will be written: a page for what comes before
        them, then a message's payload. None: no data daemon would read it there, or all are in
        use."""
        return self.memory.take() if self.shares_memory else None

    @property
    def gathers(self) -> bool:
        """Whether large writes had better come many at once: they lie in shared memory, and there
        is enough of it for those that come meanwhile."""
        return self.shares_memory and self.memory.free >= FREE_MIN

    @property
    def shares_memory(self) -> bool:
        return any(stream.shares_memory for stream in self._router.data_streams())

    def _write_request(
        self, tag: int, where: Where, chunk: int, offset: int, data: memoryview
    ) -> Request:
        if self._router.data_stream(chain_of(where.chains, chunk)).shares_memory:
            shared: memoryview | None = data
            if slot_of(data) is None:
                shared = self.memory.copy(data) if len(data) >= SHARED_BYTES_MIN else None
            if shared is not None:
                stream = self._router.data_stream(chain_of(where.chains, chunk))
                return Payload(stream, tag, where, chunk, offset, shared)
        return encode_write(tag, where.ino, where.data_generation, chunk, offset, data)

    def _count_when_done(self, item: DataItem, size: int) -> None:
        request = item.request

        def count() -> None:
            by_place = isinstance(request, Payload) and request.by_place
            self.bypass.count_write(size, by_place=by_place)

        item.pending.on_done(count)

    async def start_write_many(
        self, writes: Iterable[tuple[Where, int, Bytes]]
    ) -> list[Pending[Reply]]:
        """Many small writes, (where, offset, data), packed into few messages."""
        groups: dict[tuple[DataStream, bytes], list[tuple[data_pb2.Write, int]]] = {}
        for where, offset, data in writes:
            for piece in pieces(offset, len(data), piece_bytes_max=MESSAGE_DATA_BYTES_MAX):
                write = data_pb2.Write(
                    ino=where.ino,
                    data_generation=where.data_generation,
                    chunk=piece.chunk,
                    offset=piece.offset,
                    data=bytes(data[piece.position : piece.position + piece.length]),
                )
                stream = self._router.data_stream(chain_of(where.chains, piece.chunk))
                group = groups.setdefault((stream, where.capability), [])
                group.append((write, piece.length))
        pendings: list[Pending[Reply]] = []
        for (stream, capability), group in groups.items():
            for batch in _batches(group):
                size = sum(length for _, length in batch)
                tag = new_tag()
                many = data_pb2.WriteMany(writes=[write for write, _ in batch])
                item = DataItem(
                    data_pb2.DataRequest(tag=tag, write_many=many),
                    tag,
                    kept_bytes=size,
                    inodes=frozenset(write.ino for write, _ in batch),
                    capability=capability,
                )
                await self._make_room_at(stream, size)
                item.pending.on_done(partial(self._writing.release, size))
                self._count_when_done(item, size)
                stream.submit((item,))
                pendings.append(item.pending)
                for write in many.writes:
                    self.bypass.wrote(write.ino, write.data_generation)
        return pendings

    async def commit(self, chains: Iterable[int] | None = None, ino: int = 0) -> None:
        """Everything written through this client to the daemons of these chains (None: to any)
        is on their disks when it returns. Raises what is known to be lost of this inode (0: of
        any)."""
        streams = (
            {stream for stream in self._router.data_streams() if stream.was_written_to}
            if chains is None
            else {self._router.data_stream(chain) for chain in chains}
        )
        for item in [stream.commit() for stream in streams]:
            check(await item.pending)
        for stream in streams:
            stream.raise_lost(ino)

    async def usage(self, chain: int) -> data_pb2.UsageReply:
        item = DataItem.of(data_pb2.DataRequest(usage=data_pb2.Usage()))
        self._router.data_stream(chain).submit((item,))
        return check(await item.pending).usage

    # ---- inside

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

    async def _make_room(self, where: Where, chunk: int, size: int) -> None:
        await self._make_room_at(self._router.data_stream(chain_of(where.chains, chunk)), size)

    async def _make_room_at(self, stream: DataStream, size: int) -> None:
        """Bounds what is on its way and what is kept for the case that the daemon's machine dies:
        from a quarter of the limit on one commit follows another, at the limit it is waited for."""
        if stream.kept_bytes + size > self._router.config.data_uncommitted_bytes:
            check(await stream.commit().pending)
        else:
            self._begin_commit(stream)
        await self._writing.acquire(size)

    def _begin_commit(self, stream: DataStream) -> None:
        limit = self._router.config.data_uncommitted_bytes
        if stream.kept_bytes > limit // 4 and not stream.committing:
            stream.commit()


def _batches(
    group: list[tuple[data_pb2.Write, int]],
) -> list[list[tuple[data_pb2.Write, int]]]:
    """Splits (_, bytes) into lists of at most a message each."""
    batches: list[list[tuple[data_pb2.Write, int]]] = []
    size = MESSAGE_DATA_BYTES_MAX
    for entry in group:
        if size + entry[1] > MESSAGE_DATA_BYTES_MAX or len(batches[-1]) >= MANY_ENTRIES_MAX:
            batches.append([])
            size = 0
        batches[-1].append(entry)
        size += entry[1]
    return batches
