"""DataClient: bytes of files on data daemons, addressed by (inode, data generation, offset).

Knows chunks, chains and message sizes, and nothing of inodes' sizes: a read of what was never
written is zeros. Many requests are on their way at once, bounded in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

from superfs.client.datareads import DataReads
from superfs.client.datastream import DataItem, new_tag
from superfs.client.dirty import PLACED_BYTES
from superfs.client.lent import PLAIN, Placed
from superfs.client.payload import Payload, PlacedPayload
from superfs.client.sharedmem import SharedMemory, slot_of
from superfs.client.started import check
from superfs.client.wire import Reply, Request, batches, encode_write
from superfs.core.layout import chain_of, pieces
from superfs.core.limits import CHUNK_BYTES, KIB, MESSAGE_DATA_BYTES_MAX, PLACED_BYTES_MAX
from superfs.rpc.pending import Budget
from superfs.v1 import data_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from superfs.client.config import ClientConfig
    from superfs.client.datastream import DataStream
    from superfs.client.lent import Placing
    from superfs.core.attrs import Attr
    from superfs.core.layout import Piece
    from superfs.rpc.pending import Pending


Bytes = bytes | bytearray | memoryview | Placed
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
    @property
    def drops_behind(self) -> bool: ...
    def data_stream(self, chain_id: int) -> DataStream: ...
    def data_streams(self) -> list[DataStream]: ...


class DataClient(DataReads):
    def __init__(self, router: Router) -> None:
        super().__init__(router)
        self._writing = Budget(router.config.data_in_flight_bytes)
        self.memory = SharedMemory()

    def greet(self, chains: Iterable[int]) -> None:
        """Connects to the daemons of these chains, and to their local sockets, before the first
        read or write has to. Nothing is waited for."""
        for stream in {self._router.data_stream(chain) for chain in chains}:
            stream.submit((DataItem.of(data_pb2.DataRequest(usage=data_pb2.Usage())),))

    def close(self) -> None:
        """Behind the streams."""
        self.bypass.close()

    # ---- writing

    async def write(self, where: Where, offset: int, data: Bytes) -> None:
        """Returns when every byte would survive a kill of its daemon."""
        for pending in await self.start_write(where, offset, data):
            check(await pending)

    async def start_write(self, where: Where, offset: int, data: Bytes) -> list[Pending[Reply]]:
        """Returns when everything is on its way; the answers are the caller's to `check`."""
        parts: list[tuple[int, Pending[Reply]]] = []
        if isinstance(data, Placed):
            return await self._start_placed(where, offset, data)
        view = memoryview(data)
        for piece in pieces(offset, len(view), piece_bytes_max=MESSAGE_DATA_BYTES_MAX):
            body = view[piece.position : piece.position + piece.length]
            await self._make_room(where, piece.chunk, piece.length)
            item = self._write_item(where, piece, body)
            self._submit(where, piece.chunk, item, self._writing, piece.length, parts)
        self.bypass.wrote(where.ino, where.data_generation)
        return [pending for _, pending in parts]

    async def _start_placed(self, where: Where, offset: int, data: Placed) -> list[Pending[Reply]]:
        parts: list[tuple[int, Pending[Reply]]] = []
        (piece,) = pieces(offset, len(data))
        await self._writing.acquire(PLACED_BYTES)
        item = self._write_item(where, piece, data)
        self._submit(where, piece.chunk, item, self._writing, PLACED_BYTES, parts)
        self.bypass.wrote(where.ino, where.data_generation)
        return [pending for _, pending in parts]

    def start_writes_now(
        self, where: Where, extents: Sequence[tuple[int, Bytes]]
    ) -> list[Pending[Reply]] | None:
        """As `start_write` of each, to data daemons on this host; None: other transfers are ahead
        of them, or they are not worth a message each."""
        if sum(len(data) < SHARED_BYTES_MIN for _, data in extents) > SMALL_MAX:
            return None
        if any(isinstance(data, Placed) for _, data in extents):
            return None  # of whoever may wait
        ready: dict[DataStream, list[tuple[Piece, memoryview]]] = {}
        for offset, data in extents:
            view = memoryview(cast("bytes | bytearray | memoryview", data))
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

    def _write_item(self, where: Where, piece: Piece, data: memoryview | Placed) -> DataItem:
        tag = new_tag()
        item = DataItem(
            self._write_request(tag, where, piece.chunk, piece.offset, data),
            tag,
            kept_bytes=PLACED_BYTES if isinstance(data, Placed) else piece.length,
            inodes=frozenset((where.ino,)),
            capability=where.capability,
        )
        request = item.request
        if isinstance(data, Placed) and isinstance(request, PlacedPayload):
            item.pending.on_done(partial(_placed, data, request, item.pending))
        self._count_when_done(item, piece.length)
        return item

    def placed(self, where: Where, offset: int, data: Bytes, how: Placing = PLAIN) -> Placed | None:
        """The same bytes, where they will stay: written there by whoever calls, who may wait for a
        disk of this host. None: they go another way."""
        chunk, start = divmod(offset, CHUNK_BYTES)
        limit = min(PLACED_BYTES_MAX, CHUNK_BYTES - start)
        if not SHARED_BYTES_MIN <= len(data) <= limit or isinstance(data, Placed):
            return None
        stream = self._router.data_stream(chain_of(where.chains, chunk))
        link = stream.local
        if link is None or not stream.shares_memory:
            return None
        borrowed = link.borrowed
        if not borrowed.may_place(len(data), committing=stream.committing):
            return None
        found = borrowed.write(memoryview(data), how)
        if found is not None and borrowed.note(len(found), committing=stream.committing):
            stream.commit()
        return found

    def own(self, data: Bytes) -> Bytes:
        """The same bytes. Large ones do not change any more, and lie where a data daemon on this
        host can read them: as they are, or a copy."""
        if isinstance(data, (bytes, Placed)) or len(data) < SHARED_BYTES_MIN or slot_of(data):
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
        self, tag: int, where: Where, chunk: int, offset: int, data: memoryview | Placed
    ) -> Request:
        if isinstance(data, Placed):
            stream = self._router.data_stream(chain_of(where.chains, chunk))
            return PlacedPayload(stream, tag, where, chunk, offset, data)
        if self._router.data_stream(chain_of(where.chains, chunk)).shares_memory:
            shared: memoryview | None = data
            if slot_of(data) is None:
                shared = self.memory.copy(data) if len(data) >= SHARED_BYTES_MIN else None
            if shared is not None:
                stream = self._router.data_stream(chain_of(where.chains, chunk))
                drop_behind = self._router.drops_behind
                return Payload(stream, tag, where, chunk, offset, shared, drop_behind=drop_behind)
        return encode_write(tag, where.ino, where.data_generation, chunk, offset, data)

    def _count_when_done(self, item: DataItem, size: int) -> None:
        request = item.request

        def count() -> None:
            way = request.way if isinstance(request, Payload) else "grpc"
            self.bypass.count_write(size, way)

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
            for batch in batches(group):
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


def _placed(data: Placed, request: PlacedPayload, pending: Pending[Reply]) -> None:
    if request.way == "descriptor":
        data.answered(pending)
