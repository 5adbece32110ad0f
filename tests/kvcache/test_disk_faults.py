"""Whatever can happen to the disk of a pool: no room, errors, other bytes, files cut short. Always
the bytes that were stored, or a miss."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

import pytest

from harness.kvbench import GRANULE, LAYOUT, DiskBench, chain, contents, singles
from superfs.core.errors import Code, FsError
from superfs.data.kvcache.slab import Slab

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.data.kvcache.namespaces import Namespace


def test_no_room_on_the_file_system(bench: DiskBench, space: Namespace) -> None:
    bench.free_bytes = 0
    keys = singles(3)
    for key in keys:
        assert bench.put(space, [key]) == [Code.OK]
    bench.write_behind()
    assert bench.tier.unwritten == 3
    assert not bench.tier.segments
    assert bench.read(space, keys[:1]) == [contents(keys[0], 100)]


def test_a_segment_cannot_be_made(
    bench: DiskBench, space: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int, _at: int, _size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    for key in singles(2):
        bench.put(space, [key])
        bench.write_behind()
    assert bench.warnings.seen == ["the KVCache pool cannot have more disk"], "once"
    assert not list((bench.path / "disk").iterdir())
    monkeypatch.undo()
    bench.put(space, singles(3)[2:])
    bench.write_behind()
    assert space.shelf is not None
    assert len(space.shelf.places) == 1
    bench.warnings.seen.clear()


def test_others_need_the_room(tmp_path: Path) -> None:
    """The emptiest segment goes, with what is in it and behind that; then it comes back."""
    bench = DiskBench(tmp_path, disk_free_bytes_min=100)
    space = bench.pool.open("a", LAYOUT, 0, "lru")
    keys = [struct.pack("<QQ", 0, 1 << n) for n in range(12)]
    bench.put(space, keys)
    bench.write_behind()
    assert len(bench.tier.segments) == 2
    bench.free_bytes = 99
    asyncio.run(bench.disk.behind.tidy())
    assert len(bench.tier.segments) == 1
    assert len(list((tmp_path / "disk").iterdir())) == 2
    bench.check()
    assert space.shelf is not None
    assert space.shelf.places.keys() == set(keys[:8])
    asyncio.run(bench.disk.behind.tidy())
    assert not bench.tier.segments
    bench.check()
    bench.close()


@pytest.mark.parametrize("where", ["write", "sync", "write_record"])
def test_a_disk_that_fails(
    bench: DiskBench, space: Namespace, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    keys = chain(0, 8)
    bench.put(space, keys)
    bench.tier.add(*bench.tier.next_segment())
    (segment,) = bench.tier.segments.values()

    def fail(slab: Slab, *_: object) -> None:
        if slab is segment:
            raise FsError(Code.IO, "bad") if where == "write" else OSError(5, "bad")

    monkeypatch.setattr(Slab, where, fail)
    bench.write_behind()
    assert bench.warnings.seen == ["the KVCache pool cannot write to its disk"]
    monkeypatch.undo()
    assert space.stored(keys) == 4, "memory has it"
    bench.check()
    bench.restart()
    bench.write_behind()
    bench.restart(reboot=True)
    assert bench.pool.spaces[1].stored(keys) == 4
    bench.warnings.seen.clear()


def test_other_bytes_on_disk_are_a_miss(bench: DiskBench, space: Namespace) -> None:
    keys = chain(0, 8)
    bench.put(space, keys)
    bench.write_behind()
    assert space.shelf is not None
    place = space.shelf.places[keys[2]]
    place.slab.write(place.at, 50, b"x")
    bench.restart(reboot=True)
    space = bench.pool.spaces[1]
    assert bench.read(space, keys) == [contents(key, 100) for key in keys[:2]]
    assert bench.tier.damaged == 1
    assert space.stored(keys) == 2


def test_other_bytes_in_memory_are_not_written(bench: DiskBench, space: Namespace) -> None:
    keys = chain(0, 8)
    bench.put(space, keys)
    bench.pool.slab.write(space.places[keys[1]].at, 50, b"x")
    bench.write_behind()
    assert space.stored(keys) == 1
    assert bench.pool.damaged == 1
    bench.restart(reboot=True)
    assert bench.pool.spaces[1].stored(keys) == 1


def test_other_bytes_in_memory_disk_has_the_right_ones(bench: DiskBench, space: Namespace) -> None:
    keys = chain(0, 8)
    bench.put(space, keys)
    bench.write_behind()
    place = space.places[keys[1]]
    bench.pool.slab.write(place.at, 50, b"x")
    bench.pool.check(space, keys[1], place)
    assert bench.read(space, keys) == [contents(key, 100) for key in keys]


@pytest.mark.parametrize("what", ["cut", "gone", "map-cut", "map-gone", "other"])
def test_a_segment_is_damaged(bench: DiskBench, space: Namespace, what: str) -> None:
    """It is empty then; what was behind it in other segments is forgotten with it."""
    keys = [struct.pack("<QQ", 0, 1 << n) for n in range(12)]
    bench.put(space, keys)
    bench.write_behind()
    path = bench.path / "disk" / "000001.slab"
    target = path.with_suffix(".map") if what.startswith("map") else path
    if what.endswith("cut"):
        with target.open("r+b") as file:
            file.truncate(4100)
    elif what.endswith("gone"):
        target.unlink()
    else:
        target.write_bytes(b"x" * target.stat().st_size)
    bench.restart(reboot=True)
    space = bench.pool.spaces[1]
    assert space.stored(keys) == 0
    bench.put(space, keys)
    bench.write_behind()
    bench.restart(reboot=True)
    assert bench.pool.spaces[1].stored(keys) == 12


def test_cut_short_under_way(bench: DiskBench, space: Namespace) -> None:
    keys = chain(0, 8)
    bench.put(space, keys)
    bench.write_behind()
    bench.restart(reboot=True)
    with (bench.path / "disk" / "000001.slab").open("r+b") as file:
        file.truncate(GRANULE + 10)
    assert bench.read(bench.pool.spaces[1], keys) == [contents(keys[0], 100)]
