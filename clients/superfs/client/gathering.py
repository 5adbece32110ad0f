"""Contents of new files that nobody else can have heard of, sent many at a time.

A file that was made, written and closed in a directory of ours costs a message of its own, if its
contents go to a data daemon at once. Here they are kept until the file is told of, a moment later,
and go with those of others. Whoever keeps some sees to it that they are at their daemon before
anybody else hears of the file (client/delegation). Meanwhile they are read from here.

A program has been told that they are written, so there must be room for them: nothing is kept but
within what its daemon has promised (`Promise` in data.proto).
"""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Protocol

from superfs.client.data import DataClient
from superfs.client.data import Router as DataRouter
from superfs.client.datastream import DataItem, new_tag
from superfs.client.dirty import overlay, plain
from superfs.client.payload import Payload
from superfs.client.sharedmem import PAGE_BYTES, slot_of
from superfs.client.started import check
from superfs.client.wire import Reply
from superfs.core.errors import Code, FsError
from superfs.core.limits import (
    CHUNK_BYTES,
    LOG_BYTES_MAX,
    MESSAGE_DATA_BYTES_MAX,
    PROMISE_BYTES_MAX,
    REQUESTS_PER_MESSAGE_MAX,
)
from superfs.rpc.pending import Pending, completed
from superfs.v1 import data_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from superfs.client.data import Bytes, Where
    from superfs.client.datastream import DataStream
    from superfs.client.dirty import Extent
    from superfs.client.errands import Errand
    from superfs.client.sought import Sought
    from superfs.client.started import StartedRead
    from superfs.rpc.background import Background

FILE_BYTES_MAX = MESSAGE_DATA_BYTES_MAX
LOT_BYTES = CHUNK_BYTES
SLOTS_LEFT_MIN = 24
"""Of the shared memory, for those who write now."""
ASK_AGAIN_S = 1.0
IDLE_S = 5.0
"""Then room is not promised to us any more."""


class Router(DataRouter, Protocol):
    @property
    def background(self) -> Background: ...


class _Room:
    """What one daemon has promised."""

    def __init__(self, stream: DataStream) -> None:
        self._stream = stream
        self._life = 0  # of the stream, in which it was promised
        self._asked_s = self._used_s = float("-inf")
        self._given = False

    @property
    def is_promised(self) -> bool:
        return self._given and self._stream.reconnects == self._life

    def ask(self) -> None:
        """So that there is some another time."""
        now = time.monotonic()
        if now - self._asked_s > ASK_AGAIN_S:
            self._asked_s = self._used_s = now
            self._life = self._stream.reconnects
            item = self._promise(PROMISE_BYTES_MAX)
            item.pending.on_done(partial(self._answered, item))

    def _answered(self, item: DataItem) -> None:
        try:
            self._given = item.pending.result().code == Code.OK
        except FsError:
            self._given = False

    def _promise(self, size: int) -> DataItem:
        item = DataItem.of(data_pb2.DataRequest(promise=data_pb2.Promise(bytes=size)))
        self._stream.submit((item,))
        return item

    def used(self) -> None:
        self._used_s = time.monotonic()

    def is_scarce(self) -> None:
        self._given = False
        self._asked_s = time.monotonic()

    def tick(self) -> None:
        if self._given and time.monotonic() - self._used_s > IDLE_S:
            self._given = False
            self._promise(0)


class _Kept:
    """Contents of one file. `answer`: when they are at their daemon."""

    __slots__ = ("answer", "error", "extents", "left", "size", "started", "stream", "where")

    def __init__(self, where: Where, stream: DataStream, extents: list[Extent]) -> None:
        self.where = where
        self.stream = stream
        self.extents = extents
        self.size = sum(len(data) for _, data in extents)
        self.started = False
        self.left = 0  # of its requests, without an answer
        self.error: FsError | None = None
        self.answer: Pending[None] = Pending()


class GatheringData(DataClient):
    def __init__(self, router: Router) -> None:
        super().__init__(router)
        self._background = router.background
        self._guard = threading.Lock()
        self._kept: dict[int, _Kept] = {}
        """By number: new files have one data generation."""
        self._bytes = 0
        self._rooms: dict[DataStream, _Room] = {}
        self._slot: memoryview | None = None  # what is left of the one that is being filled

    # ---- keeping

    def may_keep(self, size: int, end: int) -> bool:
        """Whether `keep` would take contents of so many bytes that end there."""
        if size > FILE_BYTES_MAX or end > CHUNK_BYTES or self._bytes + size > LOG_BYTES_MAX:
            return False
        streams = self._router.data_streams()
        good = bool(streams)
        for stream in streams:
            room = self._rooms.get(stream)
            if room is None:
                room = self._rooms.setdefault(stream, _Room(stream))
            if not room.is_promised:
                good = False
                room.ask()
        return good

    def keep(self, where: Where, extents: Sequence[Extent]) -> bool:
        """All there is of a new file. False: they have to be sent now."""
        stream = self._router.data_stream(where.chains[0])
        room = self._rooms.get(stream)
        if room is None or not room.is_promised:
            return False
        room.used()
        with self._guard:
            ours = [(offset, self._shared(stream, data)) for offset, data in extents]
            kept = _Kept(where, stream, ours)
            self._kept[where.ino] = kept
            self._bytes += kept.size
        return True

    def _shared(self, stream: DataStream, data: Bytes) -> Bytes:
        """The same bytes, which do not change any more; side by side in shared memory."""
        if slot_of(data) is not None:
            return data
        left = self._slot
        if left is None or len(left) < len(data):
            left = None
            if self.shares_memory and self.memory.free > SLOTS_LEFT_MIN:
                slot = self.memory.take()
                if slot is not None:
                    left = slot[PAGE_BYTES:]
                    stream.shared_place(left)  # it hears of new memory before it has to read it
        if left is None:
            return bytes(data)
        part, self._slot = left[: len(data)], left[len(data) :] or None
        part[:] = plain(data)
        return part

    def drop(self, ino: int) -> bool:
        """The file is gone, and nobody has heard of it. False: its contents are not here only."""
        with self._guard:
            kept = self._kept.get(ino)
            if kept is None or kept.started:
                return False
            self._forget(kept)
            return True

    def drop_all(self, inos: Iterable[int]) -> None:
        """They are lost."""
        with self._guard:
            for ino in inos:
                if ino in self._kept:
                    self._forget(self._kept[ino])

    def _forget(self, kept: _Kept) -> None:
        if self._kept.get(kept.where.ino) is kept:
            del self._kept[kept.where.ino]
            self._bytes -= kept.size

    def tick(self) -> None:
        for room in list(self._rooms.values()):
            room.tick()
        if not self._kept:
            with self._guard:
                self._slot = None
        self.memory.tick()

    # ---- sending

    async def send(self, inos: Iterable[int] | None = None) -> None:
        """What is kept of these files (None: of all) is at the data daemons when it returns. Raises
        what refused it."""
        with self._guard:
            wanted = list(self._kept if inos is None else inos)
            found = [self._kept[ino] for ino in wanted if ino in self._kept]
            starting = [kept for kept in found if not kept.started]
            for kept in starting:
                kept.started = True
        if starting:
            # Whoever waits may be gone before it is sent.
            self._background.spawn(self._start(starting))
        for kept in found:
            await kept.answer

    async def _start(self, starting: list[_Kept]) -> None:
        by_stream: dict[DataStream, list[_Kept]] = {}
        for kept in starting:
            by_stream.setdefault(kept.stream, []).append(kept)
        for stream, group in by_stream.items():
            for lot in _lots(group):
                try:
                    await self._start_lot(stream, lot)
                except BaseException as error:
                    for kept in starting:
                        kept.answer.fail(error)
                    raise

    async def _start_lot(self, stream: DataStream, lot: list[_Kept]) -> None:
        await self._make_room_at(stream, sum(kept.size for kept in lot))
        items: list[DataItem] = []
        plain: list[tuple[_Kept, int, Bytes]] = []
        for kept in lot:
            kept.left = len(kept.extents)
            for offset, data in kept.extents:
                if isinstance(data, memoryview) and slot_of(data) is not None:
                    items.append(self._placed(stream, kept, offset, data))
                else:
                    plain.append((kept, offset, data))
        at = 0
        while at < len(plain):
            end, size = at, 0
            while end < len(plain) and size + len(plain[end][2]) <= MESSAGE_DATA_BYTES_MAX:
                size += len(plain[end][2])
                end += 1
            items.append(self._packed(plain[at:end], size))
            at = end
        stream.submit(items)
        for kept in lot:
            self.bypass.wrote(kept.where.ino, kept.where.data_generation)

    def _placed(self, stream: DataStream, kept: _Kept, offset: int, data: memoryview) -> DataItem:
        tag, where = new_tag(), kept.where
        request = Payload(stream, tag, where, 0, offset, data, promised=True)
        item = DataItem(
            request, tag, kept_bytes=len(data), inodes=frozenset((where.ino,)),
            capability=where.capability, patient=True,
        )  # fmt: skip
        self._watch(item, [kept], len(data))
        return item

    def _packed(self, writes: list[tuple[_Kept, int, Bytes]], size: int) -> DataItem:
        many = data_pb2.WriteMany()
        for kept, offset, data in writes:
            where = kept.where
            many.writes.add(
                ino=where.ino, data_generation=where.data_generation, offset=offset,
                data=bytes(data),
            )  # fmt: skip
        tag = new_tag()
        request = data_pb2.DataRequest(tag=tag, write_many=many, promised=True)
        item = DataItem(
            request, tag, kept_bytes=size,
            inodes=frozenset(kept.where.ino for kept, _, _ in writes),
            capability=writes[0][0].where.capability, patient=True,
        )  # fmt: skip
        self._watch(item, [kept for kept, _, _ in writes], size)
        return item

    def _watch(self, item: DataItem, kept: list[_Kept], size: int) -> None:
        self._count_when_done(item, size)
        item.pending.on_done(partial(self._writing.release, size))
        item.pending.on_done(partial(self._answered, item, kept))

    def _answered(self, item: DataItem, parts: list[_Kept]) -> None:
        error: FsError | None = None
        try:
            if check(item.pending.result()).scarce:
                self._rooms[parts[0].stream].is_scarce()
        except FsError as failed:
            error = failed
        done = []
        with self._guard:
            for kept in parts:
                kept.left -= 1
                kept.error = kept.error or error
                if not kept.left:
                    done.append(kept)
                    if kept.error is None:
                        self._forget(kept)
        for kept in done:
            if kept.error is None:
                kept.answer.complete(None)
            else:
                kept.answer.fail(kept.error)

    # ---- reading and writing what is kept

    def _peek(self, where: Where, offset: int, length: int) -> bytes | None:
        kept = self._kept.get(where.ino)
        if kept is None or kept.where.data_generation != where.data_generation:
            return None
        return overlay(bytes(length), offset, kept.extents)

    def read_now(
        self, where: Where, offset: int, length: int, *, seek: bool = False
    ) -> bytes | Sought | None:
        data = self._peek(where, offset, length) if self._kept else None
        return data if data is not None else super().read_now(where, offset, length, seek=seek)

    def read_here(self, where: Where, offset: int, length: int) -> bytes | None:
        return None if where.ino in self._kept else super().read_here(where, offset, length)

    def errand(self, where: Where, offset: int, length: int) -> Errand[bytes | None] | None:
        return None if where.ino in self._kept else super().errand(where, offset, length)

    async def start_read(self, where: Where, offset: int, length: int) -> StartedRead:
        data = self._peek(where, offset, length) if self._kept else None
        if data is not None:
            return [(length, completed(Reply(data=data)))]
        return await super().start_read(where, offset, length)

    def start_read_now(self, where: Where, offset: int, length: int) -> StartedRead | None:
        data = self._peek(where, offset, length) if self._kept else None
        if data is not None:
            return [(length, completed(Reply(data=data)))]
        return super().start_read_now(where, offset, length)

    async def read_many(self, wanted: Sequence[tuple[Where, int]]) -> list[bytes | FsError]:
        if not self._kept:
            return await super().read_many(wanted)
        here = [self._peek(where, 0, length) for where, length in wanted]
        rest = [one for one, data in zip(wanted, here, strict=True) if data is None]
        others = iter(await super().read_many(rest) if rest else ())
        return [data if data is not None else next(others) for data in here]

    async def start_write(self, where: Where, offset: int, data: Bytes) -> list[Pending[Reply]]:
        if where.ino in self._kept:
            await self.send((where.ino,))
        return await super().start_write(where, offset, data)

    def start_writes_now(
        self, where: Where, extents: Sequence[tuple[int, Bytes]]
    ) -> list[Pending[Reply]] | None:
        if where.ino in self._kept:
            return None
        return super().start_writes_now(where, extents)

    async def start_write_many(
        self, writes: Iterable[tuple[Where, int, Bytes]]
    ) -> list[Pending[Reply]]:
        writes = list(writes)
        await self.send({where.ino for where, _, _ in writes})
        return await super().start_write_many(writes)

    async def commit(self, chains: Iterable[int] | None = None, ino: int = 0) -> None:
        await self.send()
        await super().commit(chains, ino)


def _lots(group: list[_Kept]) -> Iterator[list[_Kept]]:
    """As much as is sent at once."""
    lot: list[_Kept] = []
    size = requests = 0
    for kept in group:
        full = size + kept.size > LOT_BYTES
        if lot and (full or requests + len(kept.extents) > REQUESTS_PER_MESSAGE_MAX):
            yield lot
            lot, size, requests = [], 0, 0
        lot.append(kept)
        size += kept.size
        requests += len(kept.extents)
    if lot:
        yield lot
