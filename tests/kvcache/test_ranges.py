"""Parts of blocks and ends of chains: the same bytes by shared memory and by streams, or a miss."""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from harness.cluster import Cluster
from superfs.client import ClientConfig
from superfs.core.errors import FsError
from superfs.core.limits import KIB, MIB
from superfs.data.kvcache.service import _across
from superfs.kvcache import Fingerprint, KeyChain, KVStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow

CHAIN = KeyChain(Fingerprint("w", "float32", 2, 1, 8, block_tokens=4))
BLOCK = 2 * MIB + 100 * KIB + 1
RANGES = [(5, 10), (0, 1), (17, MIB + 77), (BLOCK - 3, 3), (9, 0)]
SIZE = sum(length for _, length in RANGES)
WAYS = pytest.mark.parametrize("shared", [True, False], ids=["memory", "stream"])


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    slab = tmp_path_factory.mktemp("slab")
    settings = {"slab_bytes": 48 * MIB, "slab_dir": str(slab), "granule_bytes": 64 * KIB}
    with Cluster(data=2, settings={"datad": {"kvcache": settings}}) as cluster:
        yield cluster
        assert not cluster.trouble()


@pytest.fixture
def store(pooled: Cluster) -> Iterator[Callable[..., KVStore]]:
    config = ClientConfig(cluster=(pooled.target("clusterd"),), token_file=pooled.token_file)
    with ExitStack() as opened:

        def make(**more: Any) -> KVStore:  # noqa: ANN401
            return opened.enter_context(KVStore.open(config, "ranges", CHAIN, **more))

        yield make


def stored(one: KVStore, seed: int, count: int) -> tuple[list[bytes], list[bytes]]:
    rng = random.Random(seed)
    keys = CHAIN.keys([rng.getrandbits(31) for _ in range(4 * count)])
    blocks = [rng.randbytes(BLOCK) for _ in keys]
    assert one.put(keys, blocks) == count
    return keys, blocks


def parts(block: bytes) -> bytes:
    return b"".join(block[offset : offset + length] for offset, length in RANGES)


@WAYS
def test_parts_of_blocks(store: Callable[..., KVStore], shared: bool) -> None:
    one = store(shared=shared)
    keys, blocks = stored(one, 10 + shared, 4)
    room = [bytearray(SIZE) for _ in keys]
    assert one.get_ranges(keys, RANGES, room) == 4
    assert room == [parts(block) for block in blocks]
    room = [bytearray(SIZE) for _ in keys]
    assert one.get_ranges(keys, RANGES, room[:2], first=1) == 2
    assert room[:2] == [parts(block) for block in blocks[1:3]]
    one.remove(keys[:1])
    assert one.get_ranges(keys, RANGES, room) == 0


@WAYS
def test_ends_of_chains(store: Callable[..., KVStore], shared: bool) -> None:
    """From the data daemon of the chain's first key, wherever one that began there would be."""
    one = store(shared=shared)
    homes = set()
    for seed in range(20, 28):
        keys, blocks = stored(one, 10 * seed + shared, 3)
        homes.add(one._home(keys) is one._home(keys[2:]))
        room = [bytearray(BLOCK)]
        assert one.get_into(keys, room, first=2) == 1
        assert room == blocks[2:]
        one.remove(keys[:1])
    assert homes == {True, False}, "both cases were tried"


@WAYS
def test_a_block_that_is_shorter_is_a_miss(store: Callable[..., KVStore], shared: bool) -> None:
    one = store(shared=shared)
    keys = CHAIN.keys(range(100 + shared, 112 + shared))
    one.put(keys, [b"a" * 100, b"b" * 50, b"c" * 100])
    room = [bytearray(10) for _ in keys]
    assert one.get_ranges(keys, [(60, 10)], room) == 1
    assert room[0] == b"a" * 10
    assert one.match(keys) == 3, "nothing is wrong with it"
    one.remove(keys[:1])


@WAYS
def test_a_part_of_a_damaged_block_is_a_miss(
    pooled: Cluster, store: Callable[..., KVStore], shared: bool
) -> None:
    """Though the damage is elsewhere: nobody can tell from a part."""
    one = store(shared=shared)
    keys, blocks = stored(one, 30 + shared, 3)
    home = one._home(keys)
    path = Path(home.slab.path) if home.slab is not None else slab_with(pooled, blocks[1])
    raw = path.read_bytes()
    at = raw.index(blocks[1]) + BLOCK - 9
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([raw[at] ^ 1]))
    room = [bytearray(8) for _ in keys]
    assert one.get_ranges(keys, [(0, 8)], room) == 1
    assert room[0] == blocks[0][:8]
    assert one.match(keys) == 1, "the daemon has looked, and dropped it"
    one.remove(keys[:1])


def slab_with(pooled: Cluster, block: bytes) -> Path:
    slabs = Path(str(pooled.settings["datad"]["kvcache"]["slab_dir"])).glob("*.slab")
    return next(path for path in slabs if block in path.read_bytes())


def test_buffers_have_the_length_of_the_ranges(store: Callable[..., KVStore]) -> None:
    one = store()
    keys = CHAIN.keys(range(4))
    for ranges in ([(0, 3)], [(-1, 4)]):
        with pytest.raises(FsError, match="length"):
            one.get_ranges(keys, ranges, [bytearray(4)])


def test_ranges_of_no_bytes_take_no_look_at_every_block() -> None:
    """The daemon's loop waits while it looks: a thousand of them of a thousand blocks."""
    looks = 0

    class Held(list[Any]):
        def __iter__(self) -> Any:  # noqa: ANN401
            nonlocal looks
            looks += 1
            return super().__iter__()

    lease = SimpleNamespace(held=Held([(b"", 0, SimpleNamespace(length=10))] * 3))
    ranges = [(at % 10, 0) for at in range(1000)]
    assert list(_across(cast("Any", lease), [*ranges, (9, 1)])) == [(n, 9, 1) for n in range(3)]
    assert looks == 2
    assert list(_across(cast("Any", lease), [(11, 0), (0, 1)])) == [], "they are all shorter"
