"""The disk tier without a wire: what is written when, what comes back, what goes; random histories
with restarts and lost memory."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.kvbench import GRANULE, LAYOUT, DiskBench, chain, contents, singles
from superfs.core.config import ConfigError
from superfs.core.errors import Code
from superfs.core.kvcache.policy import POLICIES
from superfs.core.limits import MIB
from superfs.data.kvcache import behind
from superfs.data.kvcache.config import KvCacheConfig

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.data.kvcache.namespaces import Namespace


steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["put", "put", "put", "read", "read", "write", "write", "pin", "remove", "wait",
             "restart", "reboot"]
        ),
        st.integers(0, 1),
        st.integers(1, 40),
        st.integers(1, 3 * GRANULE),
    ),
    max_size=40,
)  # fmt: skip


@settings(max_examples=60)
@given(steps=steps, policy=st.sampled_from(POLICIES))
def test_whatever_is_done(
    tmp_path_factory: pytest.TempPathFactory, policy: str, steps: list[tuple[str, int, int, int]]
) -> None:
    bench = DiskBench(tmp_path_factory.mktemp("pool"))
    bench.pool.open("tenant-0", LAYOUT, 10 * GRANULE, policy, 20 * GRANULE)
    bench.pool.open("tenant-1", LAYOUT, 9 * GRANULE, policy)
    for verb, tenant, leaf, size in steps:
        space, keys = bench.pool.spaces[1 + tenant], chain(tenant, leaf)
        if verb == "put":
            bench.put(space, keys, size=size)
        elif verb == "read":
            stored = space.stored(keys)
            found = bench.read(space, keys)
            assert found == [contents(k, len(b)) for k, b in zip(keys, found, strict=False)]
            assert len(found) <= stored
        elif verb == "write":
            bench.write_behind()
        elif verb == "pin":
            bench.pool.pin(space, keys, 5.0)
        elif verb == "remove":
            bench.pool.remove(space, keys[-1:])
            assert space.stored(keys) < len(keys)
        elif verb == "wait":
            bench.clock.advance(size / GRANULE * 12)
            bench.pool.expire()
        else:
            bench.restart(reboot=verb == "reboot")
        bench.check()
    bench.close()
    assert not bench.warnings.seen


def test_what_memory_loses_disk_has(bench: DiskBench, space: Namespace) -> None:
    keys = chain(0, 8)
    bench.put(space, keys, size=5000)
    assert bench.tier.dirty
    bench.write_behind()
    assert not bench.tier.dirty
    bench.restart(reboot=True)
    (space,) = bench.pool.spaces.values()
    assert not space.places
    assert space.stored(keys) == 4
    assert bench.read(space, keys) == [contents(key, 5000) for key in keys]
    assert space.promoted == 4
    assert list(space.places) == keys


def test_what_was_evicted_comes_back(bench: DiskBench, space: Namespace) -> None:
    """More than memory holds, from the disk, and the same bytes."""
    keys = singles(24)
    for key in keys:
        assert bench.put(space, [key]) == [Code.OK]
        bench.write_behind()
    assert len(space.table) == 16
    for key in keys:
        assert bench.read(space, [key]) == [contents(key, 100)]
    assert bench.tier.unwritten == 0
    assert space.count() == 24


def test_nothing_waits_for_the_disk(bench: DiskBench, space: Namespace) -> None:
    keys = singles(24)
    for key in keys:
        assert bench.put(space, [key]) == [Code.OK]
    bench.write_behind()
    assert bench.tier.unwritten == 8, "evicted before its turn"
    assert bench.tier.written == 16


def test_persist_waits(bench: DiskBench, space: Namespace) -> None:
    keys = chain(0, 8)
    bench.put(space, keys[:3])

    async def run() -> tuple[int, int]:
        writer = bench.disk.behind
        task = asyncio.create_task(writer.run())
        first = await writer.persist(space, keys)
        bench.tier.remove(space, keys[1])
        again = await writer.persist(space, keys)
        writer.finish()
        await task
        return first, again

    assert asyncio.run(run()) == (3, 3), "what the disk has lost meanwhile is written again"
    bench.restart(reboot=True)
    assert bench.pool.spaces[1].stored(keys) == 3


def test_everything_is_written_at_the_end(bench: DiskBench, space: Namespace) -> None:
    bench.put(space, chain(0, 8))

    async def run() -> None:
        task = asyncio.create_task(bench.disk.behind.run())
        bench.disk.behind.finish()
        await task

    asyncio.run(run())
    assert space.shelf is not None
    assert len(space.shelf.places) == 4


def test_a_restart_writes_what_was_not_written(bench: DiskBench, space: Namespace) -> None:
    keys = chain(0, 8)
    bench.put(space, keys)
    bench.restart()
    bench.write_behind()
    bench.restart(reboot=True)
    assert bench.pool.spaces[1].stored(keys) == 4


def test_what_has_gone_stays_away(bench: DiskBench, space: Namespace) -> None:
    keys = chain(0, 8)
    bench.put(space, keys)
    bench.write_behind()
    assert bench.pool.remove(space, keys[2:3]) == 2
    bench.restart()
    space = bench.pool.spaces[1]
    assert space.stored(keys) == 2
    bench.restart(reboot=True)
    space = bench.pool.spaces[1]
    assert space.stored(keys) == 2
    assert bench.pool.drop(space) == 2
    bench.restart()
    assert not any(slab.records() for slab in bench.tier.segments.values())


def test_removed_while_it_is_written(bench: DiskBench, space: Namespace) -> None:
    keys = chain(0, 8)
    bench.put(space, keys)
    bench.tier.add(*bench.tier.next_segment())
    jobs = bench.disk.behind._pick()
    assert len(jobs) == 4
    bench.pool.remove(space, keys[1:2])
    assert behind._write(jobs) is None
    bench.disk.behind._settle(jobs, None)
    bench.check()
    bench.restart(reboot=True)
    assert bench.pool.spaces[1].stored(keys) == 1


def test_nothing_on_disk_without_its_parent(bench: DiskBench, space: Namespace) -> None:
    keys = [struct.pack("<QQ", 0, 1 << n) for n in range(5)]
    bench.put(space, keys[:4])
    bench.write_behind()
    bench.tier.remove(space, keys[1])
    bench.put(space, keys, first=4)
    bench.write_behind()
    bench.restart(reboot=True)
    assert bench.pool.spaces[1].stored(keys) == 1
    assert not bench.pool.spaces[1].stored(keys[4:])


def test_storing_behind_what_is_on_disk_only(bench: DiskBench, space: Namespace) -> None:
    keys = chain(0, 8)
    bench.put(space, keys[:2])
    bench.write_behind()
    bench.restart(reboot=True)
    space = bench.pool.spaces[1]

    def start() -> list[Code]:
        return [code for code, _, _ in bench.pool.start(1, space, b"", keys, [9] * 4)]

    bring = bench.disk.promoter.bring_before
    codes = asyncio.run(bring(space, b"", keys, start))
    assert codes == [Code.EXISTS, Code.EXISTS, Code.OK, Code.OK]
    assert len(space.table) == 4


def test_a_prefix_longer_than_memory(tmp_path: Path) -> None:
    """So much of it as fits."""
    bench = DiskBench(tmp_path, granules=32)
    space = bench.pool.open("a", LAYOUT, 8 * GRANULE, "lru")
    keys = [struct.pack("<QQ", 0, 1 << n) for n in range(8)]
    bench.put(space, keys)
    bench.write_behind()
    bench.restart(reboot=True)
    space = bench.pool.spaces[1]
    bench.put(space, singles(4))
    lease, places = bench.pool.get(1, space, singles(1))
    assert (lease, len(places)) != (0, 0)
    assert bench.read(space, keys) == [contents(key, 100) for key in keys[:7]]
    bench.close()


def test_quotas_and_watermarks(tmp_path: Path) -> None:
    bench = DiskBench(tmp_path, granules=32, disk_high_percent=75, disk_low_percent=50)
    one = bench.pool.open("one", LAYOUT, 0, "lru", 5 * GRANULE)
    two = bench.pool.open("two", LAYOUT, 0, "lru")
    none = bench.pool.open("none", LAYOUT, 0, "lru", 0)
    for space, count in ((one, 8), (two, 16)):
        for key in singles(count):
            bench.put(space, [key])
            bench.write_behind()
    bench.put(none, singles(1))
    bench.write_behind()
    assert one.shelf is not None
    assert two.shelf is not None
    assert none.shelf is None
    assert set(one.shelf.places) == set(singles(8)[3:]), "the oldest left"
    assert len(two.shelf.places) == 16
    for key in singles(22)[16:]:
        bench.put(two, [key])
    bench.write_behind()
    assert bench.tier.used_bytes == 16 * GRANULE
    assert two.shelf.evicted >= 10
    bench.close()


def test_uses_survive(bench: DiskBench, space: Namespace) -> None:
    keys = chain(0, 1)
    bench.put(space, keys)
    bench.write_behind()
    for _ in range(3):
        bench.read(space, keys)
    bench.write_behind()
    bench.restart(reboot=True)
    shelf = bench.pool.spaces[1].shelf
    assert shelf is not None
    assert shelf.table.blocks[keys[0]].uses == 4


def test_bad_configurations() -> None:
    good: dict[str, Any] = {"disk_bytes": 1024 * MIB}
    KvCacheConfig(**good)
    for bad in (
        {"disk_bytes": 100}, {"disk_bytes": -512 * MIB}, {"disk_bytes": 512 * 257 * MIB},
        {"disk_segment_bytes": MIB}, {"disk_free_bytes_min": -1}, {"write_behind_s": 2.0},
        {"disk_low_percent": 96}, {"disk_low_percent": 0}, {"disk_high_percent": 101},
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            KvCacheConfig(**{**good, **bad})


def test_removing_counts_each_block_once(
    bench: DiskBench, space: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory, on disk or in both; and looks at no others, of which there may be millions."""
    one, other = chain(1, 40), chain(1, 41)
    bench.put(space, one)
    bench.write_behind()
    bench.put(space, other, first=len(one) - 1)
    monkeypatch.setattr(type(space), "count", None)
    assert bench.pool.remove(space, [one[-1]]) == 1
    assert bench.pool.remove(space, [one[1], other[-1]]) == len(one) - 1
    assert set(space.places) == {one[0]}
