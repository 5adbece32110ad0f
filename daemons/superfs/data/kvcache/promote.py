"""Bringing blocks back from disk to memory, where clients can have them.

What is asked for is brought whole, its first blocks first, as far as memory has room: a namespace's
memory is the longest prefix that can be read. Each block is compared with its checksum on the way;
one that does not match goes from the disk, with what is behind it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from xxhash import xxh3_64_intdigest

from superfs.core.errors import Code, FsError
from superfs.core.limits import MIB
from superfs.data.kvcache.pool import PROMOTING

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from superfs.data.kvcache.namespaces import Namespace
    from superfs.data.kvcache.places import Place
    from superfs.data.kvcache.pool import Pool
    from superfs.data.kvcache.tier import DiskTier

T = TypeVar("T")
Job = tuple[int, bytes, "Place", "Place"]  # number of the put, key, from, to

BATCH_BYTES = 32 * MIB


class Promoter:
    def __init__(self, pool: Pool, tier: DiskTier, threads: Executor) -> None:
        self._pool = pool
        self._tier = tier
        self._threads = threads
        self._running: set[asyncio.Task[Any]] = set()

    async def bring(self, space: Namespace, keys: list[bytes], then: Callable[[], T]) -> T:
        """The longest stored prefix of these, with what is before it; `then` is called when it is
        there, before anybody else can have it evicted."""
        if space.stored(keys) == len(space.committed(keys)):
            return then()
        # To its end, though the client that asked may have gone.
        task = asyncio.create_task(self._bring(space, keys, then))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def bring_before(
        self, space: Namespace, parent: bytes, keys: list[bytes], then: Callable[[], T]
    ) -> T:
        """What must be in memory for the rest of these to be stored behind it."""
        count = space.stored(keys)
        last = keys[count - 1] if count else parent
        return await self.bring(space, [last] if last and count < len(keys) else [], then)

    async def _bring(self, space: Namespace, keys: list[bytes], then: Callable[[], T]) -> T:
        async with space.promoting:
            while True:
                count = space.stored(keys)
                missing = self._missing(space, keys[count - 1]) if count else []
                jobs = self._start(space, missing)
                if not jobs:
                    return then()
                loop = asyncio.get_running_loop()
                good = await loop.run_in_executor(self._threads, _copy, jobs)
                if not self._settle(space, jobs, good):
                    return then()

    def _missing(self, space: Namespace, last: bytes) -> list[bytes]:
        """What is on disk only, of the chain up to this one."""
        if last in space.places or space.shelf is None:
            return []
        chain = space.shelf.table.chain(space.shelf.table.blocks[last])
        return [block.key for block in chain if block.key not in space.places]

    def _start(self, space: Namespace, keys: list[bytes]) -> list[Job]:
        jobs: list[Job] = []
        size = 0
        for key in keys:
            assert space.shelf is not None
            source = space.shelf.places[key]
            before = space.shelf.table.blocks[key].parent
            parent = before.key if before is not None else b""
            ((code, number, to),) = self._pool.start(
                PROMOTING, space, parent, [key], [source.length]
            )
            if code is not Code.OK or to is None:
                break
            source.readers += 1
            to.readers += 1
            jobs.append((number, key, source, to))
            size += source.length
            if size >= BATCH_BYTES:
                break
        return jobs

    def _settle(self, space: Namespace, jobs: list[Job], good: list[bool]) -> bool:
        """Whether all is well, and to be gone on with."""
        before = space.promoted
        for (number, key, source, to), right in zip(jobs, good, strict=True):
            to.let_go()
            source.let_go()
            if right:
                if self._pool.commit(PROMOTING, number, source.checksum) is Code.OK:
                    space.promoted += 1
                continue
            self._pool.abort(PROMOTING, number)
            self._tier.lose(space, key, source)
        return space.promoted - before == len(jobs)


def _copy(jobs: list[Job]) -> list[bool]:
    """In a thread."""
    return [_copied(source, to) for _, _, source, to in jobs]


def _copied(source: Place, to: Place) -> bool:
    try:
        data = source.slab.read(source.at, 0, source.length)
        if xxh3_64_intdigest(data) != source.checksum:
            return False
        to.slab.write(to.at, 0, data)
    except (FsError, OSError):
        return False
    return True
