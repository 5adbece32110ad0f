"""Segments that were lent when the data daemon was killed: all that was placed comes back."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from harness import datastore
from harness.datastore import SMALL, Tools
from harness.lentsegments import placed, put, read_all
from superfs.core.limits import BLOCK_BYTES, KIB, MIB, PAGE_BYTES
from superfs.data import recovery

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.data.records import Position

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left")


@pytest.mark.parametrize("synced", [False, True])
def test_everything_comes_back_after_a_kill_in_its_order(tmp_path: Path, synced: bool) -> None:
    """Two segments that are lent and the active one, written to in turn, over one another."""
    rng = random.Random(2)
    store = datastore.opened(tmp_path / "store")
    model = bytearray(4 * MIB)
    datastore.write(store, 1, 0, bytes(model[:MIB]))
    segments = [store.lend(7), store.lend(7)]
    free = {segment.number: list(range(2, 24)) for segment in segments}
    for turn in range(60):
        data = rng.randbytes(rng.randrange(1, 250 * KIB))
        offset = rng.randrange(4 * MIB - len(data))
        segment = rng.choice([*segments, None])
        if segment is None or not free[segment.number]:
            datastore.write(store, 1, offset, data)
        else:
            at = free[segment.number].pop(rng.randrange(len(free[segment.number])))
            placed(store, segment, at * 256 * KIB + PAGE_BYTES, data, offset)
        model[offset : offset + len(data)] = data
        if turn in (20, 40) and synced:
            store.sync()
    version = store.position.version
    for _ in range(2):
        datastore.kill(store)
        store = datastore.reopen(tmp_path / "store")
        assert store.position.version == version
        assert read_all(store, 4 * MIB) == model
    tools = Tools(store)
    assert not tools.check()
    tools.close()
    datastore.kill(store)


def test_active_segments_made_after_a_lent_one_survive(tmp_path: Path) -> None:
    """The lent one is older than the position and is still asked; the new ones are, too."""
    store = datastore.opened(tmp_path / "store", SMALL)
    segment = store.lend(7)
    for n in range(20):
        datastore.write(store, 2, n * MIB, bytes([n]) * MIB)
    store.sync()
    placed(store, segment, 2 * PAGE_BYTES, b"late" * KIB)
    for n in range(10):
        datastore.write(store, 3, n * MIB, bytes([n]) * MIB)
    datastore.kill(store)
    store = datastore.reopen(tmp_path / "store", SMALL)
    assert datastore.read(store, 1, 0, 8) == b"latelate"
    assert datastore.read(store, 3, 9 * MIB, 2) == b"\x09\x09"
    datastore.kill(store)


def test_a_torn_one_ends_the_replay(tmp_path: Path) -> None:
    """As after a loss of power: what follows it was promised to nobody."""
    store = datastore.opened(tmp_path / "store")
    segment = store.lend(7)
    placed(store, segment, 2 * PAGE_BYTES, b"a" * BLOCK_BYTES)
    placed(store, segment, MIB, b"b" * BLOCK_BYTES, BLOCK_BYTES)
    datastore.write(store, 1, 2 * BLOCK_BYTES, b"c")
    datastore.kill(store)
    put(segment, MIB + 5, b"torn")
    store = datastore.reopen(tmp_path / "store")
    assert store.position.version == 1
    assert datastore.read(store, 1, 0, 3 * BLOCK_BYTES) == b"a" * BLOCK_BYTES
    datastore.write(store, 1, BLOCK_BYTES, b"new")
    datastore.kill(store)
    store = datastore.reopen(tmp_path / "store")
    assert datastore.read(store, 1, BLOCK_BYTES, 9) == b"new"
    datastore.kill(store)


@pytest.mark.parametrize("point", ["datad.place.before", "datad.place.after"])
def test_killed_while_something_is_placed(tmp_path: Path, point: str) -> None:
    world = datastore.new_world(f"{point}=error*2")
    store = datastore.opened(tmp_path / "store", world=world)
    segment = store.lend(7)
    placed(store, segment, 2 * PAGE_BYTES, b"first")
    with pytest.raises(OSError, match="failpoint"):
        placed(store, segment, 4 * PAGE_BYTES, b"second")
    datastore.kill(store)
    store = datastore.reopen(tmp_path / "store")
    expected = b"second" if point.endswith("after") else b"first"
    assert datastore.read(store, 1, 0, 6) == expected
    datastore.kill(store)


def test_a_lent_segment_that_was_never_synced_or_used_is_gone_after_a_kill(tmp_path: Path) -> None:
    store = datastore.opened(tmp_path / "store")
    segments = [store.lend(7)]
    store.sync()
    segments.append(store.lend(7))
    datastore.kill(store)
    store = datastore.reopen(tmp_path / "store")
    assert not any(segment.path.exists() for segment in segments)
    assert len(store.segments.by_number) == 0
    datastore.kill(store)


def test_what_a_start_has_dropped_stays_dropped(tmp_path: Path) -> None:
    """Behind a torn append; nothing but placed ones follow, and those are committed."""
    store = datastore.opened(tmp_path / "store")
    segment = store.lend(7)
    placed(store, segment, 2 * PAGE_BYTES, b"kept" * KIB, MIB)
    placed(store, segment, MIB, b"b" * BLOCK_BYTES, 2 * MIB)
    placed(store, segment, 2 * MIB, b"old!" * KIB)
    datastore.kill(store)
    put(segment, MIB + 5, b"torn")
    store = datastore.reopen(tmp_path / "store")
    placed(store, store.lend(7), 2 * PAGE_BYTES, b"new!" * KIB)
    store.sync()
    datastore.kill(store)
    store = datastore.reopen(tmp_path / "store")
    assert store.position.version == 2
    assert datastore.read(store, 1, 0, 4) == b"new!"
    datastore.kill(store)


def test_a_start_opens_no_segment_that_is_in_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = datastore.opened(tmp_path / "store")
    for number in range(4):
        segment = store.lend(7)
        placed(store, segment, 2 * PAGE_BYTES, b"lent" * KIB, number * MIB)
        store.lending.give_back(7, segment.number)
    store.sync()
    sealed = {number for number, record in store.index.segments().items() if record.sealed}
    assert len(sealed) >= 4
    datastore.kill(store)
    opened: list[int] = []
    run = recovery._Recovery._open

    def recorded(self: recovery._Recovery, number: int, position: Position) -> None:
        opened.append(number)
        run(self, number, position)

    monkeypatch.setattr(recovery._Recovery, "_open", recorded)
    store = datastore.reopen(tmp_path / "store")
    assert not sealed & set(opened)
    assert datastore.read(store, 1, 3 * MIB, 4) == b"lent"
    datastore.kill(store)
