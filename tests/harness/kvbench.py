"""A pool without a wire, on a slab in a directory, with its own clock; and a disk behind it."""

from __future__ import annotations

import asyncio
import random
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from superfs.core.limits import KIB
from superfs.daemon.clock import ManualClock
from superfs.data.kvcache.config import KvCacheConfig
from superfs.data.kvcache.disk import Disk
from superfs.data.kvcache.pool import Pool
from superfs.data.kvcache.slab import Slab
from superfs.data.kvcache.tier import DiskTier

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.core.errors import Code
    from superfs.data.kvcache.namespaces import Namespace

GRANULE = 4 * KIB
STORE = b"s" * 16
LAYOUT = b"l" * 16


class Bench:
    """A pool on a slab in a directory, with a clock of its own."""

    def __init__(self, path: Path, granules: int = 16) -> None:
        self.path = path
        self.config = KvCacheConfig(
            slab_bytes=granules * GRANULE, slab_dir=path, granule_bytes=GRANULE,
            block_bytes_max=4 * GRANULE,
        )  # fmt: skip
        self.clock = ManualClock()
        self.start()

    def start(self) -> None:
        slab = Slab.open(self.path, STORE, self.config, random.Random(1))
        self.pool = Pool(slab, self.path, self.config, random.Random(2), self.clock.monotonic)

    def restart(self) -> None:
        """As after a kill: nothing was told to anybody."""
        self.pool.slab.close()
        self.start()

    def put(
        self, space: Namespace, keys: list[bytes], first: int = 0, size: int = 100, session: int = 1
    ) -> list[Code]:
        """Stores what a put of this chain stores, with bytes made from the keys."""
        wanted = keys[first:]
        parent = keys[first - 1] if first else b""
        started = self.pool.start(session, space, parent, wanted, [size] * len(wanted))
        return [self.finish(number, session) if number else code for code, number, _ in started]

    def finish(self, number: int, session: int = 1) -> Code:
        """What a client does with a put that was started."""
        put = self.pool.puts.get(number)
        if put is None:
            return self.pool.commit(session, number, 0)
        self.pool.slab.write(put.place.at, 0, contents(put.key, put.place.length))
        checksum = self.pool.slab.checksum(put.place.at, put.place.length)
        return self.pool.commit(session, number, checksum)

    def check(self) -> None:
        """What must be so whatever happened."""
        pool = self.pool
        assert {put.place: number for number, put in pool.puts.items()} == pool._pending
        assert not any(put.place.gone or put.place.committed for put in pool.puts.values())
        taken: set[int] = set()
        for space in pool.spaces.values():
            table = space.table
            assert table.used <= table.capacity, "over its quota"
            assert table.used == sum(block.size for block in table.blocks.values())
            assert table.blocks.keys() == space.places.keys()
            assert space.pinned_bytes == sum(block.size for block, _ in space.pins.values())
            for key, block in table.blocks.items():
                if block.parent is not None:
                    assert table.blocks[block.parent.key] == block.parent
                place = space.places[key]
                rooms = set(range(place.at, place.at + place.granules))
                assert not rooms & taken, "two blocks in one room"
                taken |= rooms
                if place.committed:
                    assert pool.slab.checksum(place.at, place.length) == place.checksum
        gone = {
            at
            for lease in pool.leases.values()
            for _, _, place in lease.held
            if place.gone
            for at in range(place.at, place.at + place.granules)
        }
        assert not gone & taken, "room that is still read was given away"
        assert pool.slab.runs.free + len(taken) + len(gone) == pool.slab.granules


def contents(key: bytes, size: int) -> bytes:
    return (key * (size // len(key) + 1))[:size]


def chain(tenant: int, leaf: int) -> list[bytes]:
    found = [leaf]
    while found[-1] > 1:
        found.append(found[-1] // 2)
    return [struct.pack("<QQ", tenant, number) for number in reversed(found)]


def singles(count: int, tenant: int = 9) -> list[bytes]:
    return [struct.pack("<QQ", tenant, number) for number in range(count)]


class Warnings:
    """What was logged as one."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def warning(self, event: str, **_: Any) -> None:  # noqa: ANN401
        self.seen.append(event)

    def info(self, event: str, **_: Any) -> None:  # noqa: ANN401
        pass


class DiskBench(Bench):
    """With a disk tier, whose batches are run when the test says so."""

    def __init__(self, path: Path, granules: int = 16, **disk: int) -> None:
        settings = {"disk_bytes": 32 * GRANULE, "disk_segment_bytes": 8 * GRANULE}
        self.disk_settings = {**settings, "disk_free_bytes_min": 0, **disk}
        self.free_bytes = 1 << 40
        self.warnings = Warnings()
        self.threads = ThreadPoolExecutor(1)
        super().__init__(path, granules)

    def start(self) -> None:
        self.config = replace(self.config, **self.disk_settings)  # type: ignore[arg-type]
        super().start()
        where = self.path / "disk"
        rng = random.Random(3)
        self.tier = DiskTier(where, STORE, self.config, rng, lambda _: self.free_bytes)
        self.pool.use(self.tier)
        self.disk = Disk(self.pool, self.tier, self.threads, self.warnings)

    def close(self) -> None:
        self.tier.close()
        self.pool.slab.close()
        self.threads.shutdown()

    def restart(self, *, reboot: bool = False) -> None:
        """`reboot`: the memory is lost."""
        self.tier.close()
        self.pool.slab.close()
        if reboot:
            self.pool.slab.path.unlink()
            self.pool.slab.path.with_suffix(".map").unlink()
        self.start()

    def write_behind(self) -> None:
        async def until_done() -> None:
            while self.tier.dirty:
                await self.disk.behind.batch()
            await self.disk.behind.tidy()

        asyncio.run(until_done())

    def read(self, space: Namespace, keys: list[bytes]) -> list[bytes]:
        """What a get of these returns: what does not match its checksum is left out, and told."""
        bring = self.disk.promoter.bring
        lease, places = asyncio.run(bring(space, keys, lambda: self.pool.get(1, space, keys)))
        found = [self.pool.slab.read(p.at, 0, p.length) for p in places]
        if lease:
            self.pool.release(1, lease)
        return found

    def check(self) -> None:
        super().check()
        taken: dict[Slab, set[int]] = {slab: set() for slab in self.tier.segments.values()}
        for space in self.pool.spaces.values():
            shelf = space.shelf
            assert shelf is not None
            assert shelf.table.used <= shelf.table.capacity, "over its quota"
            assert shelf.table.blocks.keys() == shelf.places.keys()
            for key, block in shelf.table.blocks.items():
                if block.parent is not None:
                    assert shelf.table.blocks[block.parent.key] == block.parent
                place = shelf.places[key]
                rooms = set(range(place.at, place.at + place.granules))
                assert not rooms & taken[place.slab], "two blocks in one room"
                taken[place.slab] |= rooms
        for slab, rooms in taken.items():
            assert slab.runs.free + len(rooms) == slab.granules
