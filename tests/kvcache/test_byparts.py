"""Blocks part by part, by shared memory and by streams; and at no more than so many bytes
a second."""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.cluster import Cluster
from superfs.client import ClientConfig
from superfs.core.limits import KIB, KV_KEYS_MAX, MIB
from superfs.daemon.clock import ManualClock
from superfs.kvcache import Fingerprint, KeyChain, KVStore
from superfs.kvcache.hands import ALONE_BYTES, Hands
from superfs.kvcache.pace import LATE_S, Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHAIN = KeyChain(Fingerprint("w", "float32", 2, 1, 8, block_tokens=1))
SIZES = [70_000, 1, 2 * MIB + 5, 30_000]
WAYS = pytest.mark.parametrize("shared", [True, False], ids=["memory", "stream"])


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    slab = tmp_path_factory.mktemp("slab")
    settings = {"slab_bytes": 64 * MIB, "slab_dir": str(slab), "granule_bytes": 4 * KIB}
    with Cluster(settings={"datad": {"kvcache": settings}}) as cluster:
        yield cluster


@pytest.fixture
def store(pooled: Cluster, request: pytest.FixtureRequest) -> Iterator[Callable[..., KVStore]]:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:60]
    config = ClientConfig(cluster=(pooled.target("clusterd"),), token_file=pooled.token_file)
    with ExitStack() as opened:

        def make(**more: Any) -> KVStore:  # noqa: ANN401
            return opened.enter_context(KVStore.open(config, name.strip("-"), CHAIN, **more))

        yield make
    assert not pooled.trouble()


def blocks_of(count: int) -> list[bytes]:
    rng = random.Random(count)
    return [rng.randbytes(sum(SIZES)) for _ in range(count)]


class Rooms:
    """Buffers, and in which order they were filled."""

    def __init__(self, sizes: list[int] = SIZES, most: int = 10**6, stop_at: int = -1) -> None:
        self.sizes, self.most, self.stop_at = sizes, most, stop_at
        self.made: list[list[bytearray]] = []
        self.came: list[tuple[int, int]] = []

    def room(self, found: int) -> list[list[memoryview]]:
        self.found = found
        self.made = [[bytearray(n) for _ in range(min(found, self.most))] for n in self.sizes]
        return [[memoryview(one) for one in part] for part in self.made]

    def arrived(self, part: int, blocks: int) -> bool:
        self.came.append((part, blocks))
        return part != self.stop_at

    def get(self, store: KVStore, keys: list[bytes]) -> int:
        return store.get_parts(keys, self.sizes, self.room, self.arrived)

    @property
    def blocks(self) -> list[bytes]:
        return [b"".join(parts) for parts in zip(*self.made, strict=True)]


@pytest.mark.slow
@WAYS
def test_part_by_part(store: Callable[..., KVStore], shared: bool) -> None:
    one = store(shared=shared)
    keys, blocks = CHAIN.keys(range(5)), blocks_of(5)
    storing = one.storing(keys[:3], 3, sum(SIZES))
    assert storing is not None
    at = 0
    for size in SIZES:
        for n in range(3):
            storing.write(n, memoryview(blocks[n])[at : at + size])
        at += size
        assert one.match(keys) == 0, "nothing is there before it is committed"
    assert storing.commit() == 3
    assert one.get(keys) == blocks[:3]
    assert one.put(keys, blocks[3:], first=3) == 5
    whole = Rooms()
    assert whole.get(one, keys) == 5
    assert whole.blocks == blocks
    assert [part for part, _ in whole.came] == sorted(part for part, _ in whole.came)
    assert {(part, 5) for part in range(len(SIZES))} <= set(whole.came)
    some = Rooms(most=2)
    assert some.get(one, keys) == 2
    assert (some.found, some.blocks) == (5, blocks[:2])
    stopped = Rooms(stop_at=1)
    assert stopped.get(one, keys) == 0
    assert {part for part, _ in stopped.came} == {0, 1}
    nothing = Rooms(most=0)
    assert nothing.get(one, keys) == 0
    assert Rooms(sizes=SIZES[:-1]).get(one, keys) == 0, "blocks of another length are none"
    (stats,) = one.stats()
    assert (stats.leases, stats.pending, stats.damaged) == (0, 0, 0)


@pytest.mark.slow
@WAYS
def test_a_wrong_byte_in_any_part(
    pooled: Cluster, store: Callable[..., KVStore], shared: bool
) -> None:
    one = store(shared=shared)
    keys, blocks = CHAIN.keys(range(4)), blocks_of(4)
    one.put(keys, blocks)
    (slab,) = Path(pooled.settings["datad"]["kvcache"]["slab_dir"]).glob("*.slab")
    at = slab.read_bytes().find(blocks[2])
    with slab.open("r+b") as file:
        file.seek(at + SIZES[0])
        file.write(bytes([blocks[2][SIZES[0]] ^ 4]))
    rooms = Rooms()
    assert rooms.get(one, keys) == 2
    assert rooms.blocks[:2] == blocks[:2]
    assert one.match(keys) == 2, "the daemon has looked, and dropped it"


@pytest.mark.slow
def test_what_is_not_committed_is_not_there(store: Callable[..., KVStore]) -> None:
    one = store()
    keys, blocks = CHAIN.keys(range(2)), blocks_of(2)
    half = one.storing(keys, 2, sum(SIZES))
    assert half is not None
    half.write(0, memoryview(blocks[0]))
    half.write(1, memoryview(blocks[1])[:-1])
    with pytest.raises(ValueError, match="more bytes"):
        half.write(0, memoryview(b"x"))
    assert half.commit() == 0
    (stats,) = one.stats()
    assert (stats.blocks, stats.pending) == (0, 0)
    assert one.put(keys, blocks) == 2, "its room is nobody's"
    again = one.storing(keys, 2, sum(SIZES))
    assert again is not None
    again.write(0, memoryview(b"others"))
    assert again.commit() == 2, "they are there already"
    assert one.get(keys) == blocks


@pytest.mark.slow
@WAYS
def test_more_blocks_than_a_message_names(store: Callable[..., KVStore], shared: bool) -> None:
    one = store(shared=shared)
    keys = CHAIN.keys(range(KV_KEYS_MAX + 70))
    one.put(keys, [key * 2 for key in keys])
    rooms = Rooms(sizes=[20, 12])
    assert rooms.get(one, keys) == len(keys)
    assert rooms.blocks == [key * 2 for key in keys]


def test_a_pace() -> None:
    clock = ManualClock()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)

    pace = Pace(1000, clock.monotonic, sleep)
    for _ in range(5):
        pace.spend(500)
    assert sum(slept) == pytest.approx(2.5)
    clock.advance(60)
    pace.spend(100)
    assert slept[-1] == pytest.approx(0.1), "what was not used is not kept"
    Pace(0, clock.monotonic, sleep).spend(10**12)
    assert len(slept) == 6


def test_a_system_that_wakes_up_late_is_made_up_for() -> None:
    clock = ManualClock()
    pace = Pace(1000, clock.monotonic, lambda seconds: clock.advance(seconds + LATE_S / 2))
    started = clock.monotonic()
    for _ in range(50):
        pace.spend(100)
    assert clock.monotonic() - started == pytest.approx(5 + LATE_S / 2)
    pace = Pace(1000, clock.monotonic, lambda seconds: clock.advance(seconds + 10))
    started = clock.monotonic()
    pace.spend(100)
    pace.spend(100)
    assert clock.monotonic() - started == pytest.approx(20.2 - LATE_S), "but not for all of it"


@pytest.mark.parametrize("threads", [1, 3])
def test_many_hands(threads: int) -> None:
    hands = Hands(threads)
    try:
        for number in (0, 1, 2, 50):
            assert hands.each(number, ALONE_BYTES, lambda n: n * n) == [
                n * n for n in range(number)
            ]
        with pytest.raises(ZeroDivisionError):
            hands.each(20, ALONE_BYTES, lambda n: 1 // (n - 7))
        assert hands.each(3, ALONE_BYTES, str) == ["0", "1", "2"]
    finally:
        hands.close()
