"""A client of the KVCache pool in a process that forks."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from harness.forking import busy, forked
from harness.waiting import wait_until
from superfs.client import ClientConfig
from superfs.core.limits import KIB, MIB
from superfs.kvcache import Fingerprint, KeyChain
from superfs.kvcache.store import KVStore
from superfs.rpc.forks import GATE
from superfs.v1 import kvcache_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.cluster import Cluster

pytestmark = pytest.mark.slow

CHAIN = KeyChain(Fingerprint("w", "float32", 2, 1, 8, block_tokens=4))


@pytest.fixture
def store(pooled: Cluster) -> Iterator[Callable[..., KVStore]]:
    config = ClientConfig(cluster=(pooled.target("clusterd"),), token_file=pooled.token_file)
    with ExitStack() as opened:

        def make(**more: Any) -> KVStore:  # noqa: ANN401
            return opened.enter_context(KVStore.open(config, "forks", CHAIN, **more))

        yield make
    assert not pooled.trouble()


def chain(count: int, start: int) -> list[bytes]:
    return CHAIN.keys(range(start, start + 4 * count))


def blocks_of(keys: list[bytes], size: int = 100 * KIB) -> list[bytes]:
    return [(key * (size // 16 + 1))[:size] for key in keys]


@pytest.mark.parametrize("shared", [True, False], ids=["memory", "stream"])
def test_forks_while_threads_put_and_get(store: Callable[..., KVStore], shared: bool) -> None:
    stores = [store(shared=shared) for _ in range(3)]
    fixed = chain(2, start=90_000)
    assert stores[0].put(fixed, blocks_of(fixed)) == 2

    def work(thread: int, number: int) -> None:
        keys = chain(2, start=100_000 + 1000 * thread + 8 * (number % 3))
        blocks = blocks_of(keys)
        assert stores[thread].put(keys, blocks) == 2
        assert stores[thread].get(keys) in (blocks, [])  # cut off by a fork: not there

    def own() -> bool:
        with store(shared=shared) as mine:
            return mine.get(fixed) == blocks_of(fixed)

    with busy(work) as all_go_on:
        for _ in range(4):
            assert forked(own) == 0
            all_go_on()


def test_a_pool_is_not_for_the_child(store: Callable[..., KVStore]) -> None:
    one = store()
    keys = chain(2, start=300_000)
    assert one.put(keys, blocks_of(keys)) == 2

    def refused() -> bool:
        one.behind(Future(), lambda: False)  # of a thread that is not here
        try:
            one.get(keys)
        except RuntimeError as error:
            one.close()
            return "fork" in str(error)
        return False

    assert forked(refused) == 0
    assert one.get(keys) == blocks_of(keys)


def test_a_stream_that_nobody_reads_to_its_end_is_over(store: Callable[..., KVStore]) -> None:
    one = store(shared=False)
    keys = chain(4, start=200_000)
    assert one.put(keys, blocks_of(keys, 3 * MIB)) == 4
    (home,) = one._homes.values()
    places = home.stub.Get(pb.KvKeys(namespace=home.number, keys=b"".join(keys)), **one._call())
    parts = home.stub.Read(pb.KvRead(lease=places.lease), **one._call(60.0))
    next(parts)
    assert GATE._visits
    del parts
    wait_until(lambda: not GATE._visits, "the call is over")
    home.stub.Release(pb.KvRelease(leases=[places.lease]), **one._call())
    one.remove(keys[:1])
