"""Copies of prefixes on a second data daemon: found when the first is away, gone when removed."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from harness.cluster import Cluster
from superfs.client import ClientConfig
from superfs.core.limits import KIB, MIB
from superfs.kvcache import Fingerprint, KeyChain
from superfs.kvcache.store import COPIED_BLOCKS, KVStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow

CHAIN = KeyChain(Fingerprint("w", "float32", 2, 1, 8, block_tokens=4))
BLOCK = 70 * KIB + 1


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    slab = tmp_path_factory.mktemp("slab")
    settings = {"slab_bytes": 16 * MIB, "slab_dir": str(slab), "granule_bytes": 64 * KIB}
    with Cluster(data=2, settings={"datad": {"kvcache": settings}}) as cluster:
        yield cluster
        assert not cluster.trouble()


@pytest.fixture
def store(pooled: Cluster) -> Iterator[Callable[..., KVStore]]:
    config = ClientConfig(cluster=(pooled.target("clusterd"),), token_file=pooled.token_file)
    with ExitStack() as opened:

        def make(**more: Any) -> KVStore:  # noqa: ANN401
            return opened.enter_context(KVStore.open(config, "copies", CHAIN, **more))

        yield make


def chain(count: int, start: int) -> list[bytes]:
    return CHAIN.keys(range(start, start + 4 * count))


def blocks_of(keys: list[bytes]) -> list[bytes]:
    return [(key * (BLOCK // 16 + 1))[:BLOCK] for key in keys]


def homes(one: KVStore, keys: list[bytes]) -> list[int]:
    """How many blocks each data daemon has of them, those asked first first."""
    found = []
    for home in one._homes_of(keys):
        found.append(one._at(home, keys, "Match"))
    return found


def node_of(one: KVStore, keys: list[bytes]) -> str:
    first = one._home(keys)
    return next(f"datad-{node}" for node, home in one._homes.items() if home is first)


def test_a_copy_serves_while_its_daemon_is_away(
    pooled: Cluster, store: Callable[..., KVStore]
) -> None:
    one, other = store(copies=2), store()
    keys = chain(COPIED_BLOCKS + 5, 0)
    blocks = blocks_of(keys)
    assert one.put(keys, blocks) == len(keys)
    assert homes(one, keys) == [len(keys), 0]
    assert one.replicate(keys) == len(keys)
    assert homes(one, keys) == [len(keys)] * 2
    assert one.replicate(keys) == len(keys), "what is there already is not copied again"
    away = node_of(one, keys)
    pooled.daemons[away].kill()
    try:
        assert one.get(keys) == blocks
        assert one.match(keys) == len(keys)
        assert other.get(keys) == [], "who did not ask for copies computes"
    finally:
        pooled.start([away])
    assert one.get(keys) == blocks


def test_removing_removes_the_copies(store: Callable[..., KVStore]) -> None:
    one = store(copies=2)
    keys = chain(4, 1000)
    one.put(keys, blocks_of(keys))
    one.replicate(keys)
    assert one.remove(keys[:1]) == 4
    assert homes(one, keys) == [0, 0]


def test_only_what_is_stored_is_copied(store: Callable[..., KVStore]) -> None:
    one = store(copies=2)
    keys = chain(6, 2000)
    one.put(keys[:3], blocks_of(keys[:3]))
    assert one.replicate(keys) == 3
    assert homes(one, keys) == [3, 3]
    assert one.replicate(chain(3, 3000)) == 0
    assert one.replicate([]) == 0
    # More than there are data daemons: all of them.
    assert one.replicate(keys[:3], copies=9) == 3
