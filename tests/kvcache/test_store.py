"""The client and a real data daemon: the same bytes by shared memory and by streams, after kills,
and never others."""

from __future__ import annotations

import os
import random
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from superfs.client import ClientConfig
from superfs.core.errors import Code, FsError
from superfs.core.kvcache.policy import POLICIES
from superfs.core.limits import KIB, KV_KEYS_MAX, MIB
from superfs.core.tokens import Authority, Grant, Purpose, armor, parse_key
from superfs.kvcache import Fingerprint, KeyChain
from superfs.kvcache.replay import replay
from superfs.kvcache.simulate import simulate
from superfs.kvcache.store import KVStore
from superfs.kvcache.trace import Request
from superfs.rpc import window
from superfs.rpc.channel import open_channel, token_metadata
from superfs.rpc.errors import from_rpc
from superfs.v1 import kvcache_pb2 as pb
from superfs.v1 import kvcache_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.cluster import Cluster

pytestmark = pytest.mark.slow

BLOCK = 2 * MIB + 100 * KIB + 1
CHAIN = KeyChain(Fingerprint("w", "float32", 2, 1, 8, block_tokens=4))


@pytest.fixture
def store(pooled: Cluster, request: pytest.FixtureRequest) -> Iterator[Callable[..., KVStore]]:
    """Opens stores in the namespace of this test."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:60]
    config = ClientConfig(cluster=(pooled.target("clusterd"),), token_file=pooled.token_file)
    with ExitStack() as opened:

        def make(**more: Any) -> KVStore:  # noqa: ANN401
            return opened.enter_context(KVStore.open(config, name.strip("-"), CHAIN, **more))

        yield make
    assert not pooled.trouble()


def slab_of(cluster: Cluster) -> Path:
    (path,) = Path(cluster.settings["datad"]["kvcache"]["slab_dir"]).glob("*.slab")
    return path


def chain(count: int, start: int = 0) -> list[bytes]:
    return CHAIN.keys(range(start, start + 4 * count))


def blocks_of(keys: list[bytes], size: int = BLOCK) -> list[bytes]:
    return [(key * (size // 16 + 1))[:size] for key in keys]


@pytest.mark.parametrize("writer", [True, False], ids=["memory", "stream"])
@pytest.mark.parametrize("reader", [True, False], ids=["memory", "stream"])
def test_the_same_bytes_either_way(
    store: Callable[..., KVStore], writer: bool, reader: bool
) -> None:
    keys = chain(5, start=1000 * (1 + writer + 2 * reader))
    blocks = blocks_of(keys)
    one, two = store(shared=writer), store(shared=reader)
    assert one.put(keys[:3], blocks[:3]) == 3
    assert two.match(keys) == 3
    assert two.get(keys) == blocks[:3]
    assert two.put(keys, blocks[3:], first=3) == 5
    room = [bytearray(BLOCK) for _ in keys]
    assert one.get_into(keys, room) == 5
    assert room == blocks
    assert one.put(keys, blocks) == 5, "what is there already is there"
    (stats,) = one.stats()
    assert (stats.blocks, stats.pending, stats.leases) == (5, 0, 0)
    assert one.remove(keys[:1]) == 5
    assert two.get(keys) == []


def test_no_payload_goes_through_grpc_on_one_host(store: Callable[..., KVStore]) -> None:
    one = store()
    (home,) = one._homes.values()
    home.stub.Read = home.stub.Write = None
    keys = chain(2)
    assert one.put(keys, blocks_of(keys)) == 2
    assert one.get(keys) == blocks_of(keys)


def test_more_keys_than_a_message_holds(store: Callable[..., KVStore]) -> None:
    one = store()
    keys = chain(KV_KEYS_MAX + 50)
    small = blocks_of(keys, 16)
    assert one.put(keys, small) == 1024, "64 MiB of granules"
    assert one.match(keys) == 1024
    assert one.get(keys) == small[:1024]
    assert one.remove(keys[:1]) == 1024


def test_a_killed_daemon_has_everything_again(
    pooled: Cluster, store: Callable[..., KVStore]
) -> None:
    one = store()
    keys, other = chain(6), chain(2, start=500)
    one.put(keys, blocks_of(keys))
    (home,) = one._homes.values()
    begun = pb.KvPutStart(namespace=home.number, keys=b"".join(other), lengths=[BLOCK, BLOCK])
    home.stub.PutStart(begun, **one._call())
    used = one.stats()[0].used_bytes
    pooled.datad.kill()
    assert one.get(keys) == []
    assert one.put(keys, blocks_of(keys)) == 0
    pooled.start(["datad-2"])
    assert one.get(keys) == blocks_of(keys)
    assert store(shared=False).get(keys) == blocks_of(keys)
    (stats,) = one.stats()
    assert stats.pending == 0
    assert stats.used_bytes == used - 2 * (BLOCK // (64 * KIB) + 1) * 64 * KIB
    one.remove(keys[:1])


@pytest.mark.parametrize("shared", [True, False], ids=["memory", "stream"])
def test_killed_while_it_stores(
    pooled: Cluster, store: Callable[..., KVStore], shared: bool
) -> None:
    one = store(shared=shared)
    keys = chain(400)
    blocks = blocks_of(keys, 130 * KIB)
    many = threading.Event()
    stored = 0

    def put() -> None:
        nonlocal stored
        while stored < len(keys) and one.put(keys, [blocks[stored]], first=stored) > stored:
            stored += 1
            if stored == 20:
                many.set()

    thread = threading.Thread(target=put)
    thread.start()
    assert many.wait(60)
    pooled.datad.kill()
    thread.join()
    pooled.start(["datad-2"])
    found = one.get(keys)
    assert found == blocks[: len(found)]
    assert stored <= len(found) <= stored + 1, "whatever was answered, and perhaps what was not"
    assert one.put(keys[:300], blocks[len(found) : 300], first=len(found)) == 300
    assert one.get(keys) == blocks[:300]
    one.remove(keys[:1])


@pytest.mark.parametrize("shared", [True, False], ids=["memory", "stream"])
def test_other_bytes_are_a_miss(
    pooled: Cluster, store: Callable[..., KVStore], shared: bool
) -> None:
    one = store(shared=shared)
    keys = chain(4, start=9000 + 100 * shared)  # bytes that were never in the slab before
    blocks = blocks_of(keys, 200 * KIB)
    one.put(keys, blocks)
    path = slab_of(pooled)
    raw = path.read_bytes()
    at = raw.index(blocks[2])
    with path.open("r+b") as file:
        file.seek(at + 12_345)
        file.write(bytes([raw[at + 12_345] ^ 4]))
    room = [bytearray(200 * KIB) for _ in keys]
    assert one.get_into(keys, room) == 2
    assert room[:2] == blocks[:2]
    assert one.match(keys) == 2, "the daemon has looked, and dropped it with what is behind it"
    assert one.put(keys, blocks[2:], first=2) == 4
    assert one.get(keys) == blocks
    one.remove(keys[:1])


def test_a_slab_that_was_cut_short(pooled: Cluster, store: Callable[..., KVStore]) -> None:
    """By a client that may write to it: misses, until the daemon starts again with a new one."""
    one, two = store(), store(shared=False)
    keys = chain(3)
    one.put(keys, blocks_of(keys))
    path = slab_of(pooled)
    os.truncate(path, 10)
    assert one.get(keys) == []
    assert two.get(keys) == []
    assert one.put(chain(1, start=77), blocks_of(chain(1, start=77))) == 0, "no room, no SIGBUS"
    os.truncate(path, 64 * MIB + 8)
    pooled.restart("datad-2")
    fresh = store()
    assert fresh.get(keys) == []
    assert fresh.put(keys, blocks_of(keys)) == 3
    assert fresh.get(keys) == blocks_of(keys)
    assert two.get(keys) == blocks_of(keys)
    fresh.remove(keys[:1])


def test_where_the_slab_cannot_be_mapped(
    store: Callable[..., KVStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "_copy", None)
    one, keys = store(), chain(5, start=700)
    assert one.put(keys, blocks_of(keys)) == 5
    assert one.get(keys) == blocks_of(keys)
    one.remove(keys[:1])


def test_a_buffer_of_another_length_is_a_miss(store: Callable[..., KVStore]) -> None:
    one = store()
    keys = chain(2)
    one.put(keys, blocks_of(keys, 100))
    assert one.get_into(keys, [bytearray(100), bytearray(99)]) == 1
    assert one.get_into(keys, [bytearray(100)]) == 1


def test_quota_and_pins(store: Callable[..., KVStore]) -> None:
    one = store(quota_bytes=8 * 64 * KIB, policy="lru")
    old, new = chain(4), chain(6, start=400)
    one.put(old, blocks_of(old, 100))
    assert one.pin(old, ttl_s=60) == 4
    assert one.pin(new, ttl_s=60) == 0
    assert one.put(new, blocks_of(new, 100)) == 4, "what is pinned stays"
    assert one.match(old) == 4
    assert one.unpin(old) == 4
    assert one.put(new, blocks_of(new, 100)) == 6
    assert one.match(old) == 2
    (stats,) = one.stats()
    assert (stats.evicted, stats.used_bytes) == (2, stats.capacity_bytes)


def test_another_model_gets_nothing(pooled: Cluster, store: Callable[..., KVStore]) -> None:
    store()
    config = ClientConfig(cluster=(pooled.target("clusterd"),), token_file=pooled.token_file)
    other = KeyChain(Fingerprint("other", "float32", 2, 1, 8, block_tokens=4))
    with pytest.raises(FsError, match="layout"):
        KVStore.open(config, "test-another-model-gets-nothing", other)


def test_a_namespace_is_dropped_whole(store: Callable[..., KVStore]) -> None:
    one = store()
    keys = chain(3)
    one.put(keys, blocks_of(keys))
    free = one.stats()[0].used_bytes
    assert free
    one.drop()
    again = store()
    assert again.stats()[0].used_bytes == 0
    assert again.get(keys) == []
    assert one.get(keys) == [], "its number was not given to the new one"


def test_replay_equals_the_simulator(pooled: Cluster, tmp_path: Path) -> None:
    rng = random.Random(3)
    trace = []
    for _ in range(60):
        numbers = [min(rng.randrange(1, 90), rng.randrange(1, 90))]
        while numbers[-1] > 1:
            numbers.append(numbers[-1] // 2)
        trace.append(Request(0, 512 * len(numbers), tuple(reversed(numbers))))
    config = ClientConfig(cluster=(pooled.target("clusterd"),), token_file=pooled.token_file)
    for policy in POLICIES:
        ours, simulated = replay(config, trace, policy, 9), simulate(trace, policy, 9)
        assert {**ours.as_dict(), "mode": ""} == {**simulated.as_dict(), "mode": ""}
        assert ours.mode == "pool"


def test_users_are_not_let_in(pooled: Cluster, tmp_path: Path) -> None:
    authority = Authority(parse_key(pooled.key_file.read_text()))
    token = tmp_path / "token"
    grant = Grant("user", "someone", uid=1000, gid=1000)
    token.write_bytes(armor(authority.issue(Purpose.FILE, grant)))
    config = ClientConfig(cluster=(pooled.target("clusterd"),), token_file=token)
    with pytest.raises(FsError) as caught:
        KVStore.open(config, "mine", CHAIN)
    assert caught.value.code in (Code.FORBIDDEN, Code.UNAUTHENTICATED)


BAD = [
    ("Match", pb.KvKeys(namespace=1, keys=b"x"), Code.BAD_REQUEST),
    ("Match", pb.KvKeys(namespace=1, keys=bytes(32)), Code.BAD_REQUEST),
    ("Match", pb.KvKeys(namespace=1, keys=bytes(16 * 1025)), Code.BAD_REQUEST),
    ("Match", pb.KvKeys(namespace=9999, keys=bytes(16)), Code.NOT_FOUND),
    ("PutStart", pb.KvPutStart(namespace=1, keys=bytes(16)), Code.BAD_REQUEST),
    ("PutStart", pb.KvPutStart(namespace=1, parent=b"x", keys=bytes(16), lengths=[1]),
     Code.BAD_REQUEST),
    ("PutCommit", pb.KvPutCommit(puts=[1]), Code.BAD_REQUEST),
    ("PutAbort", pb.KvPutAbort(puts=range(1025)), Code.TOO_LARGE),
    ("Release", pb.KvRelease(leases=range(1025)), Code.TOO_LARGE),
    ("Release", pb.KvRelease(damaged_of=5, damaged=[1]), Code.NOT_FOUND),
    ("Open", pb.KvOpen(name="a b", layout=bytes(16)), Code.INVALID),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "request_", "code"), BAD)
def test_bad_requests(
    pooled: Cluster,
    store: Callable[..., KVStore],
    verb: str,
    request_: Any,  # noqa: ANN401
    code: Code,
) -> None:
    one = store()
    with open_channel([pooled.target("datad-2")]) as channel:
        stub = kvcache_pb2_grpc.KVCacheStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            getattr(stub, verb)(request_, metadata=token_metadata(one._token), timeout=5)
    assert from_rpc(caught.value).code is code


def test_nobody_writes_outside_of_a_put(pooled: Cluster, store: Callable[..., KVStore]) -> None:
    one, two = store(shared=False), store(shared=False)
    (home,), (other,) = one._homes.values(), two._homes.values()
    keys = chain(1)
    started = home.stub.PutStart(
        pb.KvPutStart(namespace=home.number, keys=keys[0], lengths=[10]), **one._call()
    )
    put = started.puts[0]
    for stub, call, part, code in (
        (home.stub, one._call(), pb.KvBytes(put=put, offset=5, data=b"123456"), Code.INVALID),
        (home.stub, one._call(), pb.KvBytes(put=put, data=bytes(MIB + 1)), Code.TOO_LARGE),
        (home.stub, one._call(), pb.KvBytes(put=put + 1, data=b"1"), Code.NOT_FOUND),
        (other.stub, two._call(), pb.KvBytes(put=put, data=b"1"), Code.NOT_FOUND),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            stub.Write(iter([part]), **call)
        assert from_rpc(caught.value).code is code
    assert two.get(keys) == []


def test_a_daemon_without_a_pool_says_so(cluster: Cluster) -> None:
    config = ClientConfig(cluster=(cluster.target("clusterd"),), token_file=cluster.token_file)
    with pytest.raises(FsError, match="slab_bytes"):
        KVStore.open(config, "any", CHAIN)
