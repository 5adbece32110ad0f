"""Writing behind: what is committed in memory goes to disk within `write_behind_s`, or at once when
somebody waits for it.

A batch is written in a thread: bytes, which are compared with their checksums once more, then a
sync, then the records and a sync of these. So a record that a start finds stands for bytes that are
there, and whoever waits knows it. What is evicted from memory before its turn is not written;
nothing waits for a slow disk but those who ask to. A disk that fails costs what is in the batch.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xxhash import xxh3_64_intdigest

from superfs.core.errors import FsError
from superfs.core.limits import MIB
from superfs.data.kvcache.slab import record_of

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from superfs.data.kvcache.namespaces import Namespace, Shelf
    from superfs.data.kvcache.places import Place
    from superfs.data.kvcache.pool import Pool
    from superfs.data.kvcache.slab import Record
    from superfs.data.kvcache.tier import DiskTier

BATCH_BYTES = 64 * MIB
TICK_S = 1.0


@dataclass(slots=True, eq=False)
class Job:
    space: Namespace
    shelf: Shelf
    key: bytes
    source: Place
    to: Place
    record: Record
    good: bool = False


class Behind:
    def __init__(
        self,
        pool: Pool,
        tier: DiskTier,
        threads: Executor,
        log: Any,  # noqa: ANN401
    ) -> None:
        self._pool = pool
        self._tier = tier
        self._threads = threads
        self._log = log
        self._delay_s = tier.config.write_behind_s
        self._noted = asyncio.Event()
        self._urgent = asyncio.Event()
        self._over = asyncio.Event()  # of the batch in hand
        self._stopping = False
        self._failing = self._full = False  # said once, until it is better
        tier.noted = self._noted.set
        if tier.dirty:
            self._noted.set()

    async def run(self) -> None:
        """Until `finish`; then everything is written."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._noted.wait()
            if self._tier.dirty:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._delay_s):
                        await self._urgent.wait()
            stopping = self._stopping
            self._urgent.clear()
            self._noted.clear()
            while self._tier.dirty:
                await self.batch()
            await self.tidy()
            if stopping:
                return

    def finish(self) -> None:
        self._stopping = True
        self._noted.set()
        self._urgent.set()
        self._over.set()

    async def persist(self, space: Namespace, keys: list[bytes]) -> int:
        """How many of them, from the first on, are on disk, once what is in memory was written."""
        there = keys[: space.stored(keys)]
        wanted = [key for key in there if not space.shelved(key)]
        if wanted and space.shelf is not None and not self._stopping:
            for block in space.table.chain(space.table.blocks[wanted[-1]]):
                key = block.key
                self._tier.dirty.pop((space.made.number, key), None)  # parents come first
                self._tier.note(space, key, space.places[key])
        number = space.made.number
        while not self._stopping and any(self._pending(space, number, key) for key in wanted):
            self._noted.set()
            self._urgent.set()
            await self._over.wait()
        count = 0
        while count < len(there) and space.shelved(there[count]):
            count += 1
        return count

    def _pending(self, space: Namespace, number: int, key: bytes) -> bool:
        if (number, key) in self._tier.dirty:
            return True
        place = space.shelf.places.get(key) if space.shelf is not None else None
        return place is not None and not place.committed

    async def batch(self) -> None:
        """Writes what has waited longest."""
        await self._grow()
        jobs = self._pick()
        if jobs:
            loop = asyncio.get_running_loop()
            error = await loop.run_in_executor(self._threads, _write, jobs)
            self._settle(jobs, error)
        self._tier.trim()
        self._over.set()
        self._over = asyncio.Event()

    async def tidy(self) -> None:
        """What may take its time: when blocks were used last, and room that others need."""
        touched, self._tier.touched = self._tier.touched, {}
        for place in touched:
            place.readers += 1
        loop = asyncio.get_running_loop()
        try:
            if touched:
                await loop.run_in_executor(self._threads, _note, touched)
        except OSError as error:
            self._failed(error)
        finally:
            for place in touched:
                place.let_go()
        segment = self._tier.give_back()
        if segment is not None:
            self._log.info("a segment of the KVCache pool was given back", path=str(segment.path))
            await loop.run_in_executor(self._threads, segment.unlink)

    # ---- inside

    async def _grow(self) -> None:
        """Before a batch, that nothing is evicted where there could be room."""
        tier = self._tier
        granule = tier.config.granule_bytes
        needed = sum(-(-place.length // granule) for place in tier.dirty.values())
        needed = min(needed, BATCH_BYTES // granule)
        while sum(s.runs.free for s in tier.segments.values()) < needed and tier.may_grow():
            try:
                loop = asyncio.get_running_loop()
                tier.add(*await loop.run_in_executor(self._threads, tier.next_segment))
            except OSError as error:
                if not self._full:
                    self._log.warning("the KVCache pool cannot have more disk", error=str(error))
                self._full = True
                return
            self._full = False

    def _pick(self) -> list[Job]:
        jobs: list[Job] = []
        size = 0
        tier = self._tier
        while tier.dirty and size < BATCH_BYTES:
            (number, key), source = next(iter(tier.dirty.items()))
            del tier.dirty[number, key]
            space = self._pool.spaces.get(number)
            if space is None or space.shelf is None or key in space.shelf.places:
                continue
            if space.places.get(key) is not source:
                tier.unwritten += 1
                continue
            parent = space.table.blocks[key].parent
            before = parent.key if parent is not None else b""
            to = tier.take(space.shelf, key, before, source)
            if to is None:
                tier.unwritten += 1
                continue
            source.readers += 1
            record = record_of(space, space.shelf.table.blocks[key], to)
            jobs.append(Job(space, space.shelf, key, source, to, record))
            size += source.length
        return jobs

    def _settle(self, jobs: list[Job], error: Exception | None) -> None:
        for job in jobs:
            job.source.let_go()
            self._tier.settle(job.shelf, job.key, job.to, good=job.good and error is None)
            if not job.good and error is None:
                self._pool.check(job.space, job.key, job.source)
        if error is not None:
            self._failed(error)
        else:
            self._failing = False

    def _failed(self, error: Exception) -> None:
        if not self._failing:
            self._log.warning("the KVCache pool cannot write to its disk", error=str(error))
        self._failing = True


def _write(jobs: list[Job]) -> Exception | None:
    """In a thread."""
    for job in jobs:
        try:
            data = job.source.slab.read(job.source.at, 0, job.source.length)
        except (FsError, OSError):  # memory that was cut short
            continue
        if xxh3_64_intdigest(data) != job.source.checksum:
            continue
        try:
            job.to.slab.write(job.to.at, 0, data)
        except FsError as error:
            return error
        job.good = True
    segments = {job.to.slab for job in jobs if job.good}
    try:
        for segment in segments:
            segment.sync()
        for job in jobs:
            if job.good:
                job.to.slab.write_record(job.to.at, job.record)
        for segment in segments:
            segment.sync_records()
    except OSError as error:
        return error
    return None


def _note(touched: dict[Place, Record]) -> None:
    """In a thread."""
    for place, record in touched.items():
        place.slab.write_record(place.at, record)
