"""Carrying out a DataRequest: checks who asks, does it, and says what is to be waited for.

`begin` does everything whose order matters at once, on the event loop's thread: a write is
visible, a read has its plan. What remains, a disk or a sync, is in the reply it returns as a
coroutine. So requests of a stream take effect in order, and only their answers wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from superfs.core.errors import Code, FsError
from superfs.core.limits import (
    MANY_ENTRIES_MAX,
    MESSAGE_DATA_BYTES_MAX,
    REQUESTS_PER_MESSAGE_MAX,
)
from superfs.data.keys import ChunkKey, FileKey
from superfs.data.lending import Placed
from superfs.data.locate import locate, locate_many
from superfs.data.reading import SCRATCH_BYTES, DamagedError, ReadPlan
from superfs.data.segments import Blob
from superfs.data.shared import SharedBuffers
from superfs.v1.data_pb2 import Boot, DataReply, DataRequest, Read, ReadResult, UsageReply, Write

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from superfs.daemon.world import World
    from superfs.data.access import Access
    from superfs.data.cuts import Cut
    from superfs.data.metrics import DataMetrics
    from superfs.data.store import DataStore
    from superfs.data.syncer import Syncer

Begun = DataReply | Coroutine[Any, Any, DataReply]

READ_THREADS = 4


class Requests:
    def __init__(
        self,
        store: DataStore,
        syncer: Syncer,
        metrics: DataMetrics,
        world: World,
        threads: Executor,
    ) -> None:
        self.boot_epoch = store.boot_epoch
        self.local_socket = ""  # its path, once there is one
        self._store = store
        self._syncer = syncer
        self._metrics = metrics
        self._world = world
        self._scratch = bytearray(SCRATCH_BYTES)
        self.shared = SharedBuffers(world.rng)
        self._threads = threads
        self._begin: dict[str, Callable[[DataRequest, Access], Begun]] = {
            "write": self._write,
            "write_many": self._write_many,
            "read": self._read,
            "read_many": self._read_many,
            "commit": self._commit,
            "truncate": self._truncate,
            "reap": self._reap,
            "usage": self._usage,
            "fence": self._fence,
            "locate": self._locate,
            "locate_many": self._locate_many,
            "promise": self._promise,
        }

    def begin(self, request: DataRequest, access: Access) -> Begun:
        """Never raises FsError: what goes wrong is in the reply. An error of the disk at an
        append ends the process."""
        try:
            access.show(request.capability)
            body = request.WhichOneof("body")
            if body is None:
                raise FsError(Code.BAD_REQUEST, "a request without a body that is known here")
            begun = self._begin[body](request, access)
        except FsError as error:
            if error.code is Code.DAMAGED and not isinstance(error, DamagedError):
                self._damaged(error)  # a segment that is gone: nothing has said so yet
            return self._refused(request.tag, error)
        except OSError as error:
            self._world.fatal(f"the disk failed: {error}; the next start verifies what is on it")
        self._world.failpoints.hit("datad.reply.before")
        return begun if isinstance(begun, DataReply) else self._later(request.tag, begun)

    async def _later(self, tag: int, answer: Coroutine[Any, Any, DataReply]) -> DataReply:
        """Never raises: the answers behind it on the stream wait for it."""
        try:
            return await answer
        except FsError as error:
            return self._refused(tag, error)
        except Exception as error:
            self._world.log.exception("request failed")
            return self._refused(tag, FsError(Code.INTERNAL, type(error).__name__))

    def _refused(self, tag: int, error: FsError) -> DataReply:
        self._metrics.refused.labels(error.code.name).inc()
        return DataReply(tag=tag, code=error.code, detail=error.detail, boot_epoch=self.boot_epoch)

    def _done(self, tag: int) -> DataReply:
        return DataReply(tag=tag, boot_epoch=self.boot_epoch)

    def _store_all(self, blobs: list[Blob], request: DataRequest, access: Access) -> DataReply:
        session = _session(access) if request.promised else 0
        self._store.write(blobs, session)
        self._syncer.nudge()
        version = self._store.position.version
        scarce = bool(session) and self._store.promises.scarce
        return DataReply(
            tag=request.tag, boot_epoch=self.boot_epoch, version=version, scarce=scarce
        )

    # ---- writes

    def _blob(self, write: Write, access: Access) -> Blob:
        access.may_write(write.ino)
        data: bytes | memoryview = write.data
        if write.HasField("shared"):
            assert access.grant is not None
            data = self.shared.view(access.grant.session_id, write.shared)
        if len(data) > MESSAGE_DATA_BYTES_MAX:
            raise FsError(Code.TOO_LARGE, f"a write has at most {MESSAGE_DATA_BYTES_MAX} bytes")
        shared, drop_behind = write.HasField("shared"), write.shared.drop_behind
        return Blob(
            write.ino, write.data_generation, write.chunk, write.offset, data, shared, drop_behind
        )

    def _write(self, request: DataRequest, access: Access) -> Begun:
        if request.write.HasField("placed"):
            return self._place(request, access)
        blob = self._blob(request.write, access)
        reply = self._store_all([blob], request, access)
        if request.write.HasField("shared"):
            self._metrics.written_by_memfd.inc(len(blob.data))
        else:
            self._metrics.written_bytes.inc(len(blob.data))
        return reply

    def _place(self, request: DataRequest, access: Access) -> Begun:
        write, said = request.write, request.write.placed
        access.may_write(write.ino)
        key = ChunkKey(write.ino, write.data_generation, write.chunk)
        placed = Placed(said.segment, said.place, write.offset, said.length, said.crcs)
        self._store.place(_session(access), key, placed)
        self._syncer.nudge()
        self._metrics.written_by_descriptor.inc(placed.length)
        version = self._store.position.version
        return DataReply(tag=request.tag, boot_epoch=self.boot_epoch, version=version)

    def _write_many(self, request: DataRequest, access: Access) -> Begun:
        writes = request.write_many.writes
        if len(writes) > MANY_ENTRIES_MAX:
            raise FsError(Code.TOO_LARGE, f"at most {MANY_ENTRIES_MAX} writes in one request")
        if any(write.HasField("shared") or write.HasField("placed") for write in writes):
            raise FsError(Code.INVALID, "shared memory and placed bytes are for single writes")
        blobs = [self._blob(write, access) for write in writes]
        reply = self._store_all(blobs, request, access)
        self._metrics.written_bytes.inc(sum(len(blob.data) for blob in blobs))
        return reply

    def _promise(self, request: DataRequest, access: Access) -> Begun:
        access.may_write_all()
        self._store.promises.make(_session(access), request.promise.bytes)
        return self._done(request.tag)

    # ---- reads

    def _plan(self, read: Read, access: Access) -> ReadPlan:
        access.may_read(read.ino)
        if read.length > MESSAGE_DATA_BYTES_MAX:
            raise FsError(Code.TOO_LARGE, f"a read has at most {MESSAGE_DATA_BYTES_MAX} bytes")
        key = ChunkKey(read.ino, read.data_generation, read.chunk)
        return self._store.read(key, read.offset, read.length)

    def _read(self, request: DataRequest, access: Access) -> Begun:
        plan = self._plan(request.read, access)
        try:
            data = plan.cached(self._scratch)
        except DamagedError as error:
            raise self._damaged(error) from None
        if data is None:
            return self._read_disk(request.tag, plan)
        self._metrics.read_bytes.inc(len(data))
        return DataReply(tag=request.tag, boot_epoch=self.boot_epoch, data=data)

    async def _read_disk(self, tag: int, plan: ReadPlan) -> DataReply:
        data = await self._fetch(plan)
        return DataReply(tag=tag, boot_epoch=self.boot_epoch, data=data)

    async def _fetch(self, plan: ReadPlan) -> bytes:
        self._metrics.disk_reads.inc()
        loop = asyncio.get_running_loop()
        try:
            data = await loop.run_in_executor(self._threads, plan.wait)
        except DamagedError as error:
            raise self._damaged(error) from None
        self._metrics.read_bytes.inc(len(data))
        return data

    def _damaged(self, error: FsError) -> FsError:
        self._metrics.damaged.inc()
        self._world.log.error("damaged data", where=error.detail)
        return error

    def _read_many(self, request: DataRequest, access: Access) -> Begun:
        reads = request.read_many.reads
        if len(reads) > MANY_ENTRIES_MAX:
            raise FsError(Code.TOO_LARGE, f"at most {MANY_ENTRIES_MAX} reads in one request")
        if sum(read.length for read in reads) > MESSAGE_DATA_BYTES_MAX:
            raise FsError(Code.TOO_LARGE, f"at most {MESSAGE_DATA_BYTES_MAX} bytes in one reply")
        results: list[ReadResult] = []
        waiting: list[tuple[ReadResult, ReadPlan]] = []
        for read in reads:
            result = ReadResult()
            results.append(result)
            try:
                plan = self._plan(read, access)
                data = plan.cached(self._scratch)
            except FsError as error:
                if error.code is Code.DAMAGED:
                    self._damaged(error)
                result.code = error.code
                continue
            if data is None:
                waiting.append((result, plan))
            else:
                result.data = data
                self._metrics.read_bytes.inc(len(data))
        if waiting:
            return self._read_many_disk(request.tag, results, waiting)
        return DataReply(tag=request.tag, boot_epoch=self.boot_epoch, reads=results)

    async def _read_many_disk(
        self, tag: int, results: list[ReadResult], waiting: list[tuple[ReadResult, ReadPlan]]
    ) -> DataReply:
        async def fetch(result: ReadResult, plan: ReadPlan) -> None:
            try:
                result.data = await self._fetch(plan)
            except FsError as error:
                result.code = error.code

        await asyncio.gather(*(fetch(result, plan) for result, plan in waiting))
        return DataReply(tag=tag, boot_epoch=self.boot_epoch, reads=results)

    def _locate(self, request: DataRequest, access: Access) -> Begun:
        located = locate(self._store, request.locate, access)
        return DataReply(tag=request.tag, boot_epoch=self.boot_epoch, located=located)

    def _locate_many(self, request: DataRequest, access: Access) -> Begun:
        located = locate_many(self._store, request.locate_many, access)
        return DataReply(tag=request.tag, boot_epoch=self.boot_epoch, located_many=located)

    # ---- what ends with a sync

    def _commit(self, request: DataRequest, access: Access) -> Begun:
        return self._synced(request.tag, [])

    def _truncate(self, request: DataRequest, access: Access) -> Begun:
        access.may_command()
        body = request.truncate
        cut = self._store.truncate(FileKey(body.ino, body.data_generation), body.size)
        return self._synced(request.tag, [] if cut is None else [cut])

    def _reap(self, request: DataRequest, access: Access) -> Begun:
        """The tombstone is what has to be durable: pieces may go later."""
        access.may_command()
        items = request.reap.items
        if len(items) > MANY_ENTRIES_MAX:
            raise FsError(Code.TOO_LARGE, f"at most {MANY_ENTRIES_MAX} items in one request")
        for item in items:
            self._store.reap(FileKey(item.ino, item.data_generation))
        return self._synced(request.tag, [])

    def _fence(self, request: DataRequest, access: Access) -> Begun:
        access.may_command()
        self._store.fence(request.fence.session_id, request.fence.epoch)
        return self._synced(request.tag, [])

    def _synced(self, tag: int, cuts: list[Cut]) -> Begun:
        if not cuts and not self._store.has_changes and not self._syncer.busy:
            return self._done(tag)
        waiter = self._syncer.ask() if all(cut.done for cut in cuts) else None
        return self._answer_synced(tag, cuts, waiter)

    async def _answer_synced(
        self, tag: int, cuts: list[Cut], waiter: asyncio.Future[None] | None
    ) -> DataReply:
        for cut in cuts:
            await self._store.cuts.finish(cut)
        await (waiter or self._syncer.ask())
        self._world.failpoints.hit("datad.synced.reply")
        return self._done(tag)

    # ---- the rest

    def _usage(self, request: DataRequest, access: Access) -> Begun:
        """Needs no capability: it is also how a stream says hello."""
        found = self._store.usage()
        usage = UsageReply(
            bytes_total=found.bytes_total,
            bytes_free=found.bytes_free,
            bytes_live=found.bytes_live,
            segments=found.segments,
            extents=found.extents,
            boots=[Boot(epoch=b.epoch, survived=b.survived) for b in self._store.boots],
            local_socket=self.local_socket,
            requests_max=REQUESTS_PER_MESSAGE_MAX,
        )
        return DataReply(tag=request.tag, boot_epoch=self.boot_epoch, usage=usage)


def _session(access: Access) -> int:
    assert access.grant is not None, "it has shown a right to write"
    return access.grant.session_id
