"""The client and a data daemon with a disk tier: killed at any moment, its memory lost, its
segments damaged, its disk full. Always the bytes that were stored, or a miss."""

from __future__ import annotations

import json
import random
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest

from harness.cluster import Cluster
from harness.disks import small_disk
from harness.waiting import wait_until
from superfs.client import ClientConfig
from superfs.core.limits import KIB, MIB
from superfs.kvcache import Fingerprint, KeyChain
from superfs.kvcache.store import KVStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow

BLOCK = 200 * KIB + 1
TAKES = 256 * KIB
CHAIN = KeyChain(Fingerprint("w", "float32", 2, 1, 8, block_tokens=4))
SETTINGS = {
    "slab_bytes": 8 * MIB, "granule_bytes": 64 * KIB, "disk_bytes": 64 * MIB,
    "block_bytes_max": 4 * MIB, "disk_segment_bytes": 8 * MIB, "disk_free_bytes_min": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    slab = tmp_path_factory.mktemp("slab")
    with Cluster(settings={"datad": {"kvcache": {**SETTINGS, "slab_dir": str(slab)}}}) as cluster:
        yield cluster


@pytest.fixture
def store(pooled: Cluster, request: pytest.FixtureRequest) -> Iterator[Callable[..., KVStore]]:
    """Opens stores in the namespace of this test, which is dropped at its end."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:60].strip("-")
    config = ClientConfig(cluster=(pooled.target("clusterd"),), token_file=pooled.token_file)
    with ExitStack() as opened:

        def make(**more: Any) -> KVStore:  # noqa: ANN401
            return opened.enter_context(KVStore.open(config, name, CHAIN, **more))

        yield make
        make().drop()
    assert not pooled.trouble()


def lose_memory(cluster: Cluster, *, cleanly: bool = False) -> None:
    """As when the machine was started again: the daemon is killed, its slab is gone."""
    (cluster.datad.stop if cleanly else cluster.datad.kill)()
    for path in Path(cluster.settings["datad"]["kvcache"]["slab_dir"]).iterdir():
        path.unlink()
    cluster.start(["datad-2"])


def segments(cluster: Cluster) -> list[Path]:
    return sorted((cluster.state_dir("datad-2") / "kvcache").glob("*.slab"))


def chain(count: int, start: int = 0) -> list[bytes]:
    return CHAIN.keys(range(start, start + 4 * count))


def blocks_of(keys: list[bytes], size: int = BLOCK) -> list[bytes]:
    return [(key * (size // 16 + 1))[:size] for key in keys]


@pytest.mark.parametrize("shared", [True, False], ids=["memory", "stream"])
def test_durable_is_durable(pooled: Cluster, store: Callable[..., KVStore], shared: bool) -> None:
    one = store(shared=shared)
    keys = chain(20, start=100_000 * shared)
    blocks = blocks_of(keys)
    assert one.put(keys[:12], blocks[:12], durable=True) == 12
    assert one.put(keys, blocks[12:], first=12, durable=True) == 20
    lose_memory(pooled)
    assert one.match(keys) == 20
    assert one.get(keys) == blocks
    (stats,) = one.stats()
    assert (stats.promoted, stats.disk_blocks, stats.blocks) == (20, 20, 20)
    room = [bytearray(BLOCK) for _ in keys]
    assert one.get_into(keys, room) == 20
    assert room == blocks
    assert one.stats()[0].promoted == 20, "from memory, the second time"


def test_more_than_memory_holds(store: Callable[..., KVStore]) -> None:
    """Four times as much: everything is found, and several clients at once find the same."""
    one = store()
    prompts = [chain(6, start=1000 * n) for n in range(1, 21)]
    for keys in prompts:
        assert one.put(keys, blocks_of(keys), durable=True) == 6
    (stats,) = one.stats()
    assert (stats.blocks, stats.disk_blocks) == (8 * MIB // TAKES, 120)
    wrong: list[str] = []

    def read(seed: int, shared: bool) -> None:
        mine = store(shared=shared)
        rng = random.Random(seed)
        for _ in range(30):
            keys = rng.choice(prompts)
            found = mine.get(keys)
            if found != blocks_of(keys)[: len(found)]:
                wrong.append("other bytes")
            if not found:
                wrong.append("nothing")

    threads = [threading.Thread(target=read, args=(n, bool(n % 2))) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    for keys in prompts:
        assert one.get(keys) == blocks_of(keys)
    assert one.stats()[0].dropped == 0


def test_the_daemon_says_what_it_has(pooled: Cluster, store: Callable[..., KVStore]) -> None:
    one = store()
    keys = chain(3)
    assert one.put(keys, blocks_of(keys), durable=True) == 3
    serving = [line for line in pooled.datad.log.read_text().splitlines() if '"serving"' in line]
    with urlopen(f"http://{json.loads(serving[-1])['metrics']}/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    name = "test-the-daemon-says-what-it-has"
    for tier in ("memory", "disk"):
        assert f'superfs_kvcache_blocks{{namespace="{name}",tier="{tier}"}} 3.0' in lines


def test_memory_only(pooled: Cluster, store: Callable[..., KVStore]) -> None:
    one = store(disk_bytes=0)
    keys = chain(2)
    assert one.put(keys, blocks_of(keys), durable=True) == 0, "stored, but not on a disk"
    assert one.get(keys) == blocks_of(keys)
    lose_memory(pooled)
    assert one.get(keys) == []


def test_a_stop_writes_everything(pooled: Cluster, store: Callable[..., KVStore]) -> None:
    one = store()
    keys = chain(16)
    assert one.put(keys, blocks_of(keys)) == 16
    lose_memory(pooled, cleanly=True)
    assert one.get(keys) == blocks_of(keys)


@pytest.mark.parametrize("memory_too", [False, True], ids=["killed", "machine lost"])
def test_killed_while_it_stores(
    pooled: Cluster, store: Callable[..., KVStore], memory_too: bool
) -> None:
    """What was committed more than two seconds before is there again, all of it."""
    one = store()
    committed: list[tuple[list[bytes], float]] = []
    enough = threading.Event()

    def put() -> None:
        for number in range(10_000):
            keys = chain(2, start=1000 * number)
            if one.put(keys, blocks_of(keys, 20 * KIB)) < 2:
                return
            committed.append((keys, time.monotonic()))
            if committed[-1][1] - committed[0][1] > 2.5:
                enough.set()
            time.sleep(0.05)  # a rate, so that memory holds what was stored

    thread = threading.Thread(target=put)
    thread.start()
    assert enough.wait(60)
    killed = time.monotonic()
    if memory_too:
        lose_memory(pooled)
    else:
        pooled.restart("datad-2", kill=True)
    thread.join()
    old = [keys for keys, when in committed if when < killed - 2]
    assert len(old) >= 5
    for keys in old:
        assert one.get(keys) == blocks_of(keys, 20 * KIB)
    for keys, _ in committed:
        found = one.get(keys)
        assert found == blocks_of(keys, 20 * KIB)[: len(found)]


@pytest.mark.parametrize("shared", [True, False], ids=["memory", "stream"])
def test_other_bytes_on_disk_are_a_miss(
    pooled: Cluster, store: Callable[..., KVStore], shared: bool
) -> None:
    one = store(shared=shared)
    keys = chain(6, start=500_000 + 1000 * shared)
    blocks = blocks_of(keys)
    assert one.put(keys, blocks, durable=True) == 6
    for path in segments(pooled):
        at = path.read_bytes().find(blocks[3])
        if at >= 0:
            with path.open("r+b") as file:
                file.seek(at + 77_777)
                file.write(b"?")
    assert one.get(keys) == blocks, "memory is as it was"
    lose_memory(pooled)
    assert one.get(keys) == blocks[:3]
    assert one.match(keys) == 3
    assert one.put(keys, blocks[3:], first=3, durable=True) == 6
    lose_memory(pooled)
    assert one.get(keys) == blocks


def test_segments_are_cut_short_while_it_runs(
    pooled: Cluster, store: Callable[..., KVStore]
) -> None:
    one = store()
    keys = chain(6)
    assert one.put(keys, blocks_of(keys), durable=True) == 6
    lose_memory(pooled)
    for path in segments(pooled):
        with path.open("r+b") as file:
            file.truncate(2 * TAKES + 5)
    found = one.get(keys)
    assert found == blocks_of(keys)[: len(found)]
    assert len(found) < 6
    pooled.restart("datad-2")
    assert one.put(keys, blocks_of(keys), durable=True) == 6
    lose_memory(pooled)
    assert one.get(keys) == blocks_of(keys)


@pytest.mark.fuse  # for a file system of its own
def test_a_full_disk(tmp_path: Path) -> None:
    """It stores what there is room for, and goes on; nobody waits."""
    with small_disk(tmp_path / "disk", 20) as disk:
        settings = {**SETTINGS, "slab_dir": str(tmp_path), "disk_dir": str(disk / "kv")}
        with Cluster(settings={"datad": {"kvcache": settings}}) as cluster:
            config = ClientConfig(
                cluster=(cluster.target("clusterd"),), token_file=cluster.token_file
            )
            with KVStore.open(config, "full", CHAIN) as one:
                prompts = [chain(8, start=1000 * n) for n in range(16)]
                for keys in prompts:
                    assert one.put(keys, blocks_of(keys), durable=True) == 8
                assert len(list((disk / "kv").glob("*.slab"))) == 2
                (stats,) = one.stats()
                assert stats.disk_blocks == 2 * 8 * MIB // TAKES
                for keys in prompts[-8:]:
                    assert one.get(keys) == blocks_of(keys)
                assert one.get(prompts[0]) == []
                (disk / "others").write_bytes(bytes(3 * MIB))
                keys = chain(8, start=90_000)
                assert one.put(keys, blocks_of(keys), durable=True) == 8
            assert not cluster.trouble()


def test_others_need_the_disk(tmp_path: Path) -> None:
    """Below the reserve the tier gives back what it has, and memory serves alone."""
    slab = {**SETTINGS, "slab_dir": str(tmp_path)}
    with Cluster(settings={"datad": {"kvcache": slab}}) as cluster:
        config = ClientConfig(cluster=(cluster.target("clusterd"),), token_file=cluster.token_file)
        with KVStore.open(config, "reserve", CHAIN) as one:
            keys = chain(8)
            assert one.put(keys, blocks_of(keys), durable=True) == 8
            cluster.settings["datad"]["kvcache"]["disk_free_bytes_min"] = 1 << 60
            text = cluster.config_file("datad-2").read_text()
            changed = text.replace("disk_free_bytes_min = 0", f"disk_free_bytes_min = {1 << 60}")
            cluster.config_file("datad-2").write_text(changed)
            cluster.restart("datad-2")
            wait_until(lambda: not segments(cluster), "all segments given back")
            assert one.get(keys) == blocks_of(keys)
            assert one.put(keys, blocks_of(keys), durable=True) == 0
        assert not cluster.trouble()
