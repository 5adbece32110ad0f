"""The KVCache service: decodes, asks the pool, encodes. Only bytes for other hosts take time here:
they are read and written in threads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from superfs.core.errors import Code, FsError
from superfs.core.kvcache.keys import KEY_BYTES
from superfs.core.limits import KV_KEYS_MAX, MESSAGE_DATA_BYTES_MAX
from superfs.data.kvcache import browse
from superfs.data.kvcache.figures import stats
from superfs.data.kvcache.ranges import ranges_of
from superfs.rpc.kvbytes import Piece
from superfs.rpc.server import grant_of
from superfs.v1 import kvcache_pb2 as pb
from superfs.v1 import kvcache_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from concurrent.futures import Executor

    from superfs.data.kvcache.disk import Disk
    from superfs.data.kvcache.namespaces import Namespace
    from superfs.data.kvcache.places import Place
    from superfs.data.kvcache.pool import Lease, Pool

T = TypeVar("T")
TICK_S = 1.0


class KvCacheService(kvcache_pb2_grpc.KVCacheServicer):
    def __init__(
        self, pool: Pool | None, why: str, threads: Executor, disk: Disk | None = None
    ) -> None:
        """`pool` None: there is none, and why. `disk` None: memory only."""
        self._there = pool
        self._why = why
        self._threads = threads
        self._disk = disk

    async def expire(self) -> None:
        """Runs until it is cancelled."""
        while self._there is not None:
            await asyncio.sleep(TICK_S)
            self._there.expire()

    def _pool(self, context: Any, *, change: bool = False) -> tuple[Pool, int]:  # noqa: ANN401
        grant = grant_of(context)
        if grant.kind == "user":
            raise FsError(Code.FORBIDDEN, "the KVCache pool is not for user sessions")
        if change and grant.read_only:
            raise FsError(Code.READ_ONLY, "the session is for reading only")
        if self._there is None:
            raise FsError(Code.NOT_SUPPORTED, self._why)
        return self._there, grant.session_id

    async def Open(self, request: pb.KvOpen, context: Any) -> pb.KvOpened:  # noqa: ANN401
        pool, _ = self._pool(context, change=True)
        disk_bytes = request.disk_bytes if request.HasField("disk_bytes") else -1
        space = pool.open(
            request.name, request.layout, request.quota_bytes, request.policy, disk_bytes
        )
        return pb.KvOpened(
            namespace=space.made.number,
            quota_bytes=space.made.quota_bytes,
            policy=space.made.policy,
            slab_path=str(pool.slab.path),
            slab_id=pool.slab.id,
            block_bytes_max=pool.config.block_bytes_max,
            granule_bytes=pool.slab.granule,
        )

    async def Drop(self, request: pb.KvDrop, context: Any) -> pb.KvCount:  # noqa: ANN401
        pool, _ = self._pool(context, change=True)
        return pb.KvCount(count=pool.drop(pool.space(request.namespace)))

    async def Match(self, request: pb.KvKeys, context: Any) -> pb.KvCount:  # noqa: ANN401
        pool, _ = self._pool(context)
        space = pool.space(request.namespace)
        return pb.KvCount(count=space.stored(_keys(request.keys)))

    async def PutStart(self, request: pb.KvPutStart, context: Any) -> pb.KvPlaces:  # noqa: ANN401
        pool, session = self._pool(context, change=True)
        keys, lengths = _keys(request.keys), list(request.lengths)
        if len(lengths) != len(keys) or len(request.parent) not in (0, KEY_BYTES):
            raise FsError(Code.BAD_REQUEST, "a length for each key, and one parent or none")
        space = pool.space(request.namespace)

        def start() -> list[tuple[Code, int, Place | None]]:
            return pool.start(session, space, request.parent, keys, lengths)

        if self._disk is None:
            started = start()
        else:
            bring = self._disk.promoter.bring_before
            started = await bring(space, request.parent, keys, start)
        granule = pool.slab.granule
        return pb.KvPlaces(
            codes=[code for code, _, _ in started],
            puts=[number for _, number, _ in started],
            offsets=[place.at * granule if place else 0 for _, _, place in started],
            lengths=[place.length if place else 0 for _, _, place in started],
            lease_ms=round(pool.config.put_s * 1000),
            slab_id=pool.slab.id,
        )

    async def PutCommit(self, request: pb.KvPutCommit, context: Any) -> pb.KvCodes:  # noqa: ANN401
        pool, session = self._pool(context, change=True)
        if len(request.puts) != len(request.checksums) or len(request.puts) > KV_KEYS_MAX:
            raise FsError(Code.BAD_REQUEST, "a checksum for each put")
        pairs = zip(request.puts, request.checksums, strict=True)
        return pb.KvCodes(codes=[pool.commit(session, number, check) for number, check in pairs])

    async def PutAbort(self, request: pb.KvPutAbort, context: Any) -> pb.KvCodes:  # noqa: ANN401
        pool, session = self._pool(context, change=True)
        _few(len(request.puts))
        return pb.KvCodes(codes=[pool.abort(session, number) for number in request.puts])

    async def Get(self, request: pb.KvGet, context: Any) -> pb.KvPlaces:  # noqa: ANN401
        pool, session = self._pool(context)
        space, keys = pool.space(request.namespace), _keys(request.keys)

        def get() -> tuple[int, list[Place]]:
            return pool.get(session, space, keys)

        lease, places = await self._brought(space, keys, get)
        return pb.KvPlaces(
            lease=lease,
            offsets=[place.at * pool.slab.granule for place in places],
            lengths=[place.length for place in places],
            checksums=[place.checksum for place in places],
            lease_ms=round(pool.config.lease_s * 1000),
            slab_id=pool.slab.id,
        )

    async def Release(self, request: pb.KvRelease, context: Any) -> pb.KvCodes:  # noqa: ANN401
        pool, session = self._pool(context)
        _few(len(request.leases))
        _few(len(request.damaged))
        if request.damaged:
            lease = pool.lease_of(session, request.damaged_of)
            for number in request.damaged:
                if number < len(lease.held):
                    key, _, place = lease.held[number]
                    pool.check(lease.space, key, place)
        return pb.KvCodes(codes=[pool.release(session, number) for number in request.leases])

    async def Pin(self, request: pb.KvPin, context: Any) -> pb.KvCount:  # noqa: ANN401
        pool, _ = self._pool(context, change=True)
        space = pool.space(request.namespace)
        keys = _keys(request.keys)

        def pin() -> int:
            return pool.pin(space, keys, request.ttl_ms / 1000)

        return pb.KvCount(count=await self._brought(space, keys, pin))

    async def Persist(self, request: pb.KvKeys, context: Any) -> pb.KvCount:  # noqa: ANN401
        pool, _ = self._pool(context, change=True)
        space, keys = pool.space(request.namespace), _keys(request.keys)
        if self._disk is None:
            return pb.KvCount()
        return pb.KvCount(count=await self._disk.behind.persist(space, keys))

    async def _brought(self, space: Namespace, keys: list[bytes], then: Callable[[], T]) -> T:
        if self._disk is None:
            return then()
        return await self._disk.promoter.bring(space, keys, then)

    async def Unpin(self, request: pb.KvKeys, context: Any) -> pb.KvCount:  # noqa: ANN401
        pool, _ = self._pool(context, change=True)
        space = pool.space(request.namespace)
        return pb.KvCount(count=pool.unpin(space, _keys(request.keys)))

    async def Remove(self, request: pb.KvKeys, context: Any) -> pb.KvCount:  # noqa: ANN401
        pool, _ = self._pool(context, change=True)
        space = pool.space(request.namespace)
        return pb.KvCount(count=pool.remove(space, _keys(request.keys)))

    async def Stats(self, request: pb.KvStatsRequest, context: Any) -> pb.KvStats:  # noqa: ANN401
        pool, _ = self._pool(context)
        return stats(pool, request.namespace)

    async def Spaces(self, _: pb.KvSpacesRequest, context: Any) -> pb.KvSpaces:  # noqa: ANN401
        pool = self._pool(context)[0]
        names = [space.made.name for space in pool.spaces.values()]
        return pb.KvSpaces(namespaces=list(pool.spaces), names=names)

    async def List(self, request: pb.KvList, context: Any) -> pb.KvListed:  # noqa: ANN401
        pool, _ = self._pool(context)
        found = browse.listed(pool.space(request.namespace), request.after, request.limit)
        return pb.KvListed(
            keys=bytes(found.keys), lengths=found.lengths, afters=found.afters, next=found.next
        )

    async def Look(self, request: pb.KvKeys, context: Any) -> pb.KvLengths:  # noqa: ANN401
        pool, _ = self._pool(context)
        space = pool.space(request.namespace)
        return pb.KvLengths(lengths=browse.lengths(space, _keys(request.keys)))

    async def Peek(self, request: pb.KvPeek, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401
        pool, _ = self._pool(context)
        space, keys = pool.space(request.namespace), _keys(request.key)
        if len(keys) != 1:
            raise FsError(Code.BAD_REQUEST, "one key")
        data = await browse.contents(pool, self._disk, self._threads, space, keys[0])
        for offset in range(0, len(data), MESSAGE_DATA_BYTES_MAX):
            part = data[offset : offset + MESSAGE_DATA_BYTES_MAX]
            yield pb.KvBytes(offset=offset, data=part)

    async def Read(self, request: pb.KvRead, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401
        pool, session = self._pool(context)
        loop = asyncio.get_running_loop()
        lease = pool.lease_of(session, request.lease)
        ranges = [(one.offset, one.length) for one in request.ranges]
        _few(len(ranges))
        if request.across or not ranges:
            wanted = _across(lease, ranges) if request.across else _whole(lease)
            async for piece in self._pieces(pool, lease, request.lease, wanted):
                yield piece
            return
        for number, (key, _, place) in enumerate(lease.held):
            if pool.leases.get(request.lease) is not lease:
                raise FsError(Code.NOT_FOUND, "the lease is over")
            parts = await loop.run_in_executor(self._threads, ranges_of, place, ranges)
            if parts is None:
                pool.check(lease.space, key, place)
                return
            for offset, data, checksum in parts:
                yield Piece(block=number, offset=offset, data=data, checksum=checksum)

    async def _pieces(
        self, pool: Pool, lease: Lease, number: int, wanted: Iterator[tuple[int, int, int]]
    ) -> AsyncIterator[Piece]:
        """Each of these, the next one being read while one is sent."""
        loop = asyncio.get_running_loop()

        def read(block: int, offset: int, size: int) -> bytes:
            return pool.slab.read(lease.held[block][2].at, offset, size)

        def begin() -> tuple[int, int, asyncio.Future[bytes]] | None:
            for block, offset, size in wanted:
                return block, offset, loop.run_in_executor(self._threads, read, block, offset, size)
            return None

        following = begin()
        try:
            while following is not None:
                block, offset, reading = following
                data = await asyncio.shield(reading)
                if pool.leases.get(number) is not lease:
                    raise FsError(Code.NOT_FOUND, "the lease is over")
                following = begin()
                yield Piece(block=block, offset=offset, data=data)
        finally:
            if following is not None:  # nobody waits for it any more
                await asyncio.wait([following[2]])
                following[2].exception()

    async def Write(self, _requests: Any, context: Any) -> pb.KvCodes:  # noqa: ANN401
        pool, session = self._pool(context, change=True)
        loop = asyncio.get_running_loop()
        while (part := await context.read()) is not grpc.aio.EOF:
            if len(part.data) > MESSAGE_DATA_BYTES_MAX:
                raise FsError(Code.TOO_LARGE, f"at most {MESSAGE_DATA_BYTES_MAX} bytes a message")
            put = pool.put_of(session, part.put)
            if part.offset + len(part.data) > put.place.length:
                raise FsError(Code.INVALID, "outside of the block")
            # Held as a reader holds it: given up meanwhile, its room is not another's yet.
            put.place.readers += 1
            try:
                await loop.run_in_executor(
                    self._threads, pool.slab.write, put.place.at, part.offset, part.data
                )
            finally:
                put.place.let_go()
        return pb.KvCodes()


def _whole(lease: Lease) -> Iterator[tuple[int, int, int]]:
    """(block, offset, bytes) of messages: every block of it, one behind the other."""
    for block, (_, _, place) in enumerate(lease.held):
        yield from _cut(block, 0, place.length)


def _across(lease: Lease, ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Each of these ranges of every block, up to the first block that is shorter."""
    shortest = min((place.length for _, _, place in lease.held), default=0)
    for at, length in ranges:
        if not length and at <= shortest:
            continue  # nothing of any block: whoever reads waits for us meanwhile
        for block, (_, _, place) in enumerate(lease.held):
            if at + length > place.length:
                return
            yield from _cut(block, at, at + length)


def _cut(block: int, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    for offset in range(start, end, MESSAGE_DATA_BYTES_MAX):
        yield block, offset, min(MESSAGE_DATA_BYTES_MAX, end - offset)


def _keys(raw: bytes) -> list[bytes]:
    if len(raw) % KEY_BYTES or len(raw) > KEY_BYTES * KV_KEYS_MAX:
        raise FsError(Code.BAD_REQUEST, f"keys of {KEY_BYTES} bytes, at most {KV_KEYS_MAX}")
    keys = [raw[at : at + KEY_BYTES] for at in range(0, len(raw), KEY_BYTES)]
    if len(set(keys)) != len(keys):
        raise FsError(Code.BAD_REQUEST, "a key twice")
    return keys


def _few(count: int) -> None:
    if count > KV_KEYS_MAX:
        raise FsError(Code.TOO_LARGE, f"at most {KV_KEYS_MAX} at a time")
