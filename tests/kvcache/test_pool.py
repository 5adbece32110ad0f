"""The pool without a wire: random chains, pins, removals, gets in progress and tenants, against
what must always be so; what a restart finds; and the simulator, block for block."""

from __future__ import annotations

import os
import random
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.kvbench import GRANULE, LAYOUT, Bench, chain, singles
from superfs.core.errors import Code, FsError
from superfs.core.kvcache.policy import POLICIES
from superfs.data.kvcache.slab import HEADER_BYTES, RECORD_BYTES
from superfs.kvcache.simulate import Simulator
from superfs.kvcache.trace import Request

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["put", "put", "put", "start", "commit", "abort", "get", "release", "pin", "unpin",
             "remove", "wait", "restart"]
        ),
        st.integers(0, 1),
        st.integers(1, 40),
        st.integers(1, 3 * GRANULE),
    ),
    max_size=60,
)  # fmt: skip


@settings(max_examples=80)
@given(steps=steps, policy=st.sampled_from(POLICIES))
def test_whatever_is_done(
    tmp_path_factory: pytest.TempPathFactory, policy: str, steps: list[tuple[str, int, int, int]]
) -> None:
    bench = Bench(tmp_path_factory.mktemp("slab"))
    quotas = (10 * GRANULE, 9 * GRANULE)
    for number, quota in enumerate(quotas):
        bench.pool.open(f"tenant-{number}", LAYOUT, quota, policy)
    puts: list[int] = []
    leases: list[int] = []
    for verb, tenant, leaf, size in steps:
        pool, space, keys = bench.pool, bench.pool.spaces[1 + tenant], chain(tenant, leaf)
        if verb == "put":
            bench.put(space, keys, size=size)
        elif verb == "start":
            puts += [n for _, n, _ in pool.start(1, space, b"", keys, [size] * len(keys)) if n]
        elif verb == "commit" and puts:
            bench.finish(puts.pop(leaf % len(puts)))
        elif verb == "abort" and puts:
            pool.abort(1, puts.pop(leaf % len(puts)))
        elif verb == "get":
            lease, places = pool.get(1, space, keys)
            leases += [lease] if lease else []
            assert len(places) <= len(keys)
        elif verb == "release" and leases:
            pool.release(1, leases.pop(leaf % len(leases)))
        elif verb == "pin":
            pool.pin(space, keys, 5.0)
            assert space.pinned_bytes <= quotas[tenant] // 2
        elif verb == "unpin":
            pool.unpin(space, keys)
        elif verb == "remove":
            pool.remove(space, keys[-1:])
        elif verb == "wait":
            bench.clock.advance(size / GRANULE * 12)
            pool.expire()
        elif verb == "restart":
            puts, leases = [], []
            bench.restart()
        bench.check()
    assert not {k for k in bench.pool.spaces[1].places if k in bench.pool.spaces[2].places}
    bench.pool.slab.close()


def test_what_is_committed_survives_and_nothing_else(bench: Bench) -> None:
    space = bench.pool.open("a", LAYOUT, 0, "lfu")
    keys = chain(0, 8)
    assert bench.put(space, keys[:2]) == [Code.OK, Code.OK]
    bench.pool.get(1, space, keys)
    bench.pool.start(1, space, keys[1], keys[2:], [10, 10])
    before = {key: (b.uses, b.last) for key, b in space.table.blocks.items() if key in keys[:2]}
    bench.restart()
    again = bench.pool.open("a", LAYOUT, 0, "")
    assert again.made == space.made
    assert {key: (b.uses, b.last) for key, b in again.table.blocks.items()} == before
    assert again.committed(keys) == keys[:2]
    bench.check()


def test_what_has_gone_stays_away(bench: Bench) -> None:
    space = bench.pool.open("a", LAYOUT, 4 * GRANULE, "lru")
    keys = chain(0, 8)
    bench.put(space, keys)
    bench.pool.remove(space, keys[3:])
    bench.restart()
    space = bench.pool.spaces[1]
    assert space.places.keys() == set(keys[:3])
    other = [struct.pack("<QQ", 9, n) for n in range(3)]
    bench.put(space, other)
    bench.restart()
    assert bench.pool.spaces[1].places.keys() == {keys[0], *other}
    bench.pool.drop(bench.pool.spaces[1])
    bench.restart()
    assert not bench.pool.spaces
    assert not bench.pool.slab.records()
    assert bench.pool.open("a", LAYOUT, 0, "").made.number == 2, "never the same number again"


def test_a_slab_of_another_size_is_made_anew(bench: Bench) -> None:
    space = bench.pool.open("a", LAYOUT, 0, "")
    bench.put(space, chain(0, 1))
    bench.pool.slab.close()
    other = Bench(bench.path, granules=32)
    assert not other.pool.spaces[1].table.blocks
    other.check()


def test_records_are_not_believed(bench: Bench) -> None:
    """A flipped bit anywhere in a record, or a record in another's place, is no record."""
    space = bench.pool.open("a", LAYOUT, 0, "")
    bench.put(space, chain(0, 4))
    (first, _), *_ = records = bench.pool.slab.records()
    assert len(records) == 3
    path = bench.pool.slab.path.with_suffix(".map")
    descriptor = os.open(path, os.O_RDWR)
    place = HEADER_BYTES + first * RECORD_BYTES
    raw = os.pread(descriptor, RECORD_BYTES, place)
    for at in range(RECORD_BYTES - 8):
        os.pwrite(descriptor, bytes([raw[at] ^ 1]), place + at)
        assert len(bench.pool.slab.records()) == 2, at
        os.pwrite(descriptor, raw[at : at + 1], place + at)
    free = bench.pool.slab.granules - 1
    os.pwrite(descriptor, raw, HEADER_BYTES + free * RECORD_BYTES)
    os.close(descriptor)
    assert len(bench.pool.slab.records()) == 3
    bench.restart()
    bench.check()


def test_a_child_is_nothing_without_its_parent(bench: Bench) -> None:
    space = bench.pool.open("a", LAYOUT, 0, "")
    keys = chain(0, 4)
    assert bench.put(space, keys, first=1) == [Code.NOT_FOUND, Code.NOT_FOUND]
    started = bench.pool.start(1, space, b"", keys, [9, 9, 9])
    assert bench.finish(started[1][1]) is Code.NOT_FOUND, "before its parent"
    assert bench.finish(started[2][1]) is Code.NOT_FOUND, "its parent is gone"
    assert bench.finish(started[0][1]) is Code.OK
    assert space.committed(keys) == keys[:1]
    bench.check()


def test_somebody_elses_put(bench: Bench) -> None:
    space = bench.pool.open("a", LAYOUT, 0, "")
    keys = chain(0, 2)
    (_, number, _), _ = bench.pool.start(1, space, b"", keys, [9, 9])
    assert [code for code, _, _ in bench.pool.start(2, space, b"", keys, [9, 9])] == [Code.BUSY] * 2
    assert bench.pool.commit(2, number, 0) is Code.NOT_FOUND
    assert bench.pool.abort(2, number) is Code.NOT_FOUND
    with pytest.raises(FsError):
        bench.pool.put_of(2, number)
    bench.clock.advance(31)
    bench.pool.expire()
    assert not bench.pool.puts
    assert bench.put(space, keys, session=2) == [Code.OK, Code.OK]
    assert bench.put(space, keys, session=2) == [Code.EXISTS, Code.EXISTS]
    bench.check()


def test_a_get_in_progress_is_not_evicted_and_ends(bench: Bench) -> None:
    space = bench.pool.open("a", LAYOUT, 4 * GRANULE, "lru")
    keys = chain(0, 8)
    bench.put(space, keys)
    lease, places = bench.pool.get(1, space, keys)
    other = [struct.pack("<QQ", 9, n) for n in range(2)]
    assert bench.put(space, other) == [Code.NO_SPACE, Code.NOT_FOUND]
    assert len(places) == 4
    assert bench.pool.release(2, lease) is Code.NOT_FOUND
    bench.clock.advance(31)
    bench.pool.expire()
    assert bench.put(space, other) == [Code.OK, Code.OK]
    assert space.committed(keys) == keys[:2]
    bench.check()


def test_room_that_is_read_waits_for_its_reader(bench: Bench) -> None:
    space = bench.pool.open("a", LAYOUT, 0, "")
    keys = chain(0, 2)
    bench.put(space, keys)
    lease, _ = bench.pool.get(1, space, keys)
    assert bench.pool.remove(space, keys[:1]) == 2
    assert bench.pool.slab.runs.free == bench.pool.slab.granules - 2
    bench.check()
    assert bench.pool.release(1, lease) is Code.OK
    assert bench.pool.slab.runs.free == bench.pool.slab.granules


def test_looking_changes_nothing(bench: Bench) -> None:
    space = bench.pool.open("a", LAYOUT, 2 * GRANULE, "lru")
    first, second, third = ([struct.pack("<QQ", 9, n)] for n in range(3))
    bench.put(space, first)
    bench.put(space, second)
    assert space.committed(first) == first
    bench.put(space, third)
    assert not space.committed(first), "it was the oldest still"


def test_namespaces_are_what_they_were_made(bench: Bench) -> None:
    bench.pool.open("a", LAYOUT, GRANULE, "lfu")
    assert bench.pool.open("a", LAYOUT, 5, "lru").made.quota_bytes == GRANULE
    for name, layout, policy in (
        ("a", b"m" * 16, ""), ("A", LAYOUT, ""), ("", LAYOUT, ""), ("x" * 65, LAYOUT, ""),
        ("../x", LAYOUT, ""), ("b", b"short", ""), ("b", LAYOUT, "best"),
    ):  # fmt: skip
        with pytest.raises(FsError):
            bench.pool.open(name, layout, 0, policy)
    for number in range(63):
        bench.pool.open(f"n{number}", LAYOUT, 0, "")
    with pytest.raises(FsError):
        bench.pool.open("one-more", LAYOUT, 0, "")
    bench.restart()
    assert len(bench.pool.spaces) == 64


def test_who_has_most_makes_way(bench: Bench) -> None:
    one = bench.pool.open("one", LAYOUT, 0, "")
    two = bench.pool.open("two", LAYOUT, 0, "")
    for number in range(16):
        bench.put(one, [struct.pack("<QQ", 1, number)])
    for number in range(8):
        assert bench.put(two, [struct.pack("<QQ", 2, number)]) == [Code.OK]
    assert len(one.table) == len(two.table) == 8
    assert one.evicted == 8
    bench.check()


def test_damage_is_looked_at(bench: Bench) -> None:
    space = bench.pool.open("a", LAYOUT, 0, "")
    keys = chain(0, 4)
    bench.put(space, keys)
    _, places = bench.pool.get(1, space, keys)
    bench.pool.check(space, keys[1], places[1])
    assert space.committed(keys) == keys, "a client's word is not enough"
    bench.pool.slab.write(places[1].at, 5, b"x")
    bench.pool.check(space, keys[1], places[1])
    assert space.committed(keys) == keys[:1]
    assert bench.pool.damaged == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_equal_to_the_simulator(bench: Bench, policy: str) -> None:
    """Request by request, block by block."""
    capacity = 12
    space = bench.pool.open("a", LAYOUT, capacity * GRANULE, policy)
    simulator = Simulator(policy, capacity)
    rng = random.Random(7)
    for _ in range(400):
        leaf = min(rng.randrange(1, 200), rng.randrange(1, 200))
        keys = chain(0, leaf)
        numbers = tuple(struct.unpack("<QQ", key)[1] for key in keys)
        before = simulator.rates.prefix_blocks
        simulator.request(Request(0, 512 * len(keys), numbers))
        lease, places = bench.pool.get(1, space, keys)
        assert len(places) == simulator.rates.prefix_blocks - before
        bench.pool.release(1, lease)
        bench.put(space, keys, first=len(places))
        stored = {struct.unpack("<QQ", key)[1] for key in space.places}
        assert stored == {int.from_bytes(key, "little") for key in simulator.table.blocks}
    assert space.evicted > 300


def test_what_is_stored_of_keys_that_are_no_chain(tmp_path: Path) -> None:
    """As many as are there from the first on, whatever is asked."""
    bench = Bench(tmp_path)
    space = bench.pool.open("a", LAYOUT, 0, "lru")
    first, second, alone = chain(1, 16), chain(2, 16), singles(6)
    for keys in (first, second, *([key] for key in alone[:4])):
        bench.put(space, keys)
    rng = random.Random(7)
    known = {*first, *second, *alone[:4]}
    pool = [*first, *second, *alone]
    for _ in range(500):
        asked = rng.sample(pool, rng.randrange(len(pool)))
        if rng.random() < 0.5:
            asked = first[: rng.randrange(6)] + asked
        asked = list(dict.fromkeys(asked))
        count = 0
        while count < len(asked) and asked[count] in known:
            count += 1
        assert space.stored(asked) == count
    bench.pool.slab.close()


def test_pins_have_a_cap(bench: Bench) -> None:
    """Half of the quota, however many ask, so that there is always something that may go."""
    space = bench.pool.open("a", LAYOUT, 8 * GRANULE, "lru")
    keys = singles(8)
    for key in keys:
        bench.put(space, [key])
    assert bench.pool.pin(space, keys, 60) == 4
    assert [bench.pool.pin(space, [key], 60) for key in keys[3:6]] == [1, 0, 0]
    assert space.pinned_bytes == 4 * GRANULE
    assert bench.pool.unpin(space, keys[:1]) == 1
    assert bench.pool.pin(space, keys[4:], 60) == 1
    bench.check()
