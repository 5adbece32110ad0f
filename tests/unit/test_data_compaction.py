"""Compaction and the scrubber: few extents, empty segments gone, damage found and never moved."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from harness import datastore
from harness.datastore import SMALL, Tools
from superfs.core.errors import Code, FsError
from superfs.core.limits import KIB, MIB
from superfs.data import segments
from superfs.data.compaction import chunks_in
from superfs.data.config import ScrubConfig
from superfs.data.keys import ChunkKey, FileKey
from superfs.data.metrics import DataMetrics
from superfs.data.scrub import Scrubber
from superfs.data.segments import numbers_in

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.data.store import DataStore

KEY = ChunkKey(1, 1, 0)


@pytest.fixture
def store(tmp_path: Path) -> DataStore:
    return datastore.opened(tmp_path / "d")


def scribble(store: DataStore, count: int, seed: int = 1) -> bytes:
    """Small writes all over the first MiB of inode 1, chunk 0; what it holds then."""
    chance = random.Random(seed)
    model = bytearray(MIB)
    for _ in range(count):
        place, length = chance.randrange(MIB - 5000), chance.randrange(1, 5000)
        data = chance.randbytes(length)
        datastore.write(store, 1, place, data)
        model[place : place + length] = data
    return bytes(model)


def contents(store: DataStore) -> bytes:
    return datastore.read(store, 1, 0, MIB).ljust(MIB, b"\0")


def test_chunk_of_many_extents_is_rewritten(store: DataStore) -> None:
    tools = Tools(store)
    model = scribble(store, 300)
    assert len(store.chunks.get(KEY)) > SMALL.extents_max
    tools.tick()
    assert len(store.chunks.get(KEY)) <= 4
    assert contents(store) == model
    assert tools.check() == []
    assert not tools.compact(KEY), "nothing is left to do"
    tools.close()
    store.close()


def test_write_during_compaction_wins(store: DataStore, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = Tools(store)
    scribble(store, 300)
    read = tools.compactor._read

    async def read_and_write(*args: Any) -> bytes | None:  # noqa: ANN401
        data = await read(*args)
        datastore.write(store, 1, 0, b"new" * 1000)
        return data

    monkeypatch.setattr(tools.compactor, "_read", read_and_write)
    assert not tools.compact(KEY)
    assert datastore.read(store, 1, 0, 3000) == b"new" * 1000
    tools.close()
    store.close()


def test_segment_with_little_live_data_is_emptied_and_unlinked(store: DataStore) -> None:
    tools = Tools(store)
    data = random.Random(3).randbytes(512 * KIB)
    for ino in range(1, 40):
        datastore.write(store, ino, 0, data)
    store.sync()
    before = numbers_in(store.segments.directory)
    for ino in range(1, 40):
        if ino % 5:
            store.reap(FileKey(ino, 1))
    for _ in range(6):
        tools.tick()
    after = numbers_in(store.segments.directory)
    assert len(set(before) - set(after)) >= 2
    for ino in range(5, 40, 5):
        assert datastore.read(store, ino, 0, MIB) == data
    assert tools.check() == []
    tools.close()
    store.close()


def test_reader_of_an_unlinked_segment_goes_on(store: DataStore) -> None:
    datastore.write(store, 1, 0, b"before")
    plan = store.read(KEY, 0, 6)
    store.segments.seal()
    store.reap(FileKey(1, 1))
    store.sync()
    assert 1 not in numbers_in(store.segments.directory)
    assert plan.wait() == b"before"
    store.close()


@pytest.mark.allow_log("damaged data", "segment not emptied")
def test_damage_is_found_by_the_scrubber_and_not_moved(store: DataStore) -> None:
    tools = Tools(store)
    datastore.write(store, 1, 0, b"a" * 100)
    datastore.write(store, 2, 0, b"b" * 100)
    store.segments.seal()
    store.sync()
    path = store.segments.path_of(1)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"a" * 100) + 50] ^= 1
    path.write_bytes(raw)
    registry = CollectorRegistry()
    scrubber = Scrubber(
        store,
        tools.checker,
        ScrubConfig(bytes_per_s=1 << 40),
        DataMetrics(registry),
        store.world,
    )
    assert asyncio.run(scrubber.round()) == 1
    assert registry.get_sample_value("superfs_data_scrub_damaged") == 1
    assert not tools.empty(1)
    assert path.exists()
    assert store.chunks.get(ChunkKey(1, 1, 0))[0].segment == 1
    assert store.chunks.get(ChunkKey(2, 1, 0))[0].segment != 1
    assert datastore.read(store, 2, 0, 100) == b"b" * 100
    with pytest.raises(FsError) as caught:
        datastore.read(store, 1, 0, 100)
    assert caught.value.code is Code.DAMAGED
    tools.close()
    store.close()


def test_segment_that_is_written_over_while_it_is_emptied_is_tried_again(
    store: DataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = Tools(store)
    datastore.write(store, 1, 0, b"a" * 100_000)
    store.segments.seal()
    store.sync()
    read = tools.compactor._read

    async def read_and_write(*args: Any) -> bytes | None:  # noqa: ANN401
        data = await read(*args)
        datastore.write(store, 1, 40_000, b"b")
        return data

    with monkeypatch.context() as patch:
        patch.setattr(tools.compactor, "_read", read_and_write)
        assert not tools.empty(1)
    assert store.segments.by_number[1].live
    assert not tools.compactor._spared
    assert tools.empty(1)
    assert datastore.read(store, 1, 0, 100_000) == b"a" * 40_000 + b"b" + b"a" * 59_999
    tools.close()
    store.close()


def test_headers_that_cannot_be_read_are_damage_and_no_end(store: DataStore) -> None:
    datastore.write(store, 1, 0, b"a" * 100)
    nothing: Any = SimpleNamespace(fd=-1)
    assert chunks_in(store.segments.by_number[1], nothing) == []
    store.close()


@pytest.mark.allow_log("not moved", "not emptied")
def test_damage_is_told_once_whatever_else_is_in_the_segment(store: DataStore) -> None:
    tools = Tools(store)
    datastore.write(store, 1, 0, b"a" * 100)
    datastore.write(store, 2, 0, b"b" * 100)
    store.reap(FileKey(2, 1))  # its tombstone stays, and says nothing about the others
    store.segments.seal()
    path = store.segments.path_of(1)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"a" * 100) + 50] ^= 1
    path.write_bytes(raw)
    assert not tools.empty(1)
    assert tools.compactor._spared == {1}
    tools.close()
    store.close()


@pytest.mark.allow_log("not emptied")
def test_a_segment_that_is_gone_does_not_end_compaction(store: DataStore) -> None:
    tools = Tools(store)
    datastore.write(store, 1, 0, b"a" * 100)
    store.segments.seal()
    store.sync()
    store.segments._open.clear()
    store.segments.path_of(1).unlink()
    tools.tick()
    assert tools.compactor._spared == {1}
    tools.tick()
    tools.close()
    store.close()


def test_no_more_segments_are_open_than_descriptors_may_be(
    store: DataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of those that were written and never read."""
    monkeypatch.setattr(segments, "DESCRIPTORS_MAX", 3)
    data = bytes(MIB)
    for place in range(0, 64 * MIB, MIB):
        datastore.write(store, 1, place, data)
    assert len(store.segments.by_number) > 6
    assert len(store.segments._open) <= 3
    store.sync()
    assert datastore.read(store, 1, 0, MIB) == data
    assert len(store.segments._open) <= 3
