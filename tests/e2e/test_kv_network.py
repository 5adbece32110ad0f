"""The KVCache pool from a host that has its daemons by network only."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harness import kvnetclient
from harness.cluster import Cluster
from harness.cutoff import Cable, wire
from harness.waiting import wait_until
from superfs.client import ClientConfig
from superfs.core.limits import MIB
from superfs.kvcache import KVStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
SIZE = MIB + 12_345
BLOCKS = 20


@pytest.fixture
def cable() -> Iterator[Cable]:
    with Cable() as cable:
        yield cable


@pytest.fixture
def wired(cable: Cable, tmp_path: Path) -> Iterator[tuple[Cluster, Callable[[str], str]]]:
    """A cluster, and a client on the other side of the cable."""
    pool = {"slab_bytes": 32 * MIB, "slab_dir": str(tmp_path)}
    cluster = Cluster(settings={"datad": {"kvcache": pool}})
    target = wire(cluster)["clusterd"]
    with cluster:
        words = [sys.executable, kvnetclient.__file__, target, str(cluster.token_file), str(SIZE)]
        other = subprocess.Popen(
            cable.wrap(words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert other.stdin is not None
        assert other.stdout is not None
        into, out = other.stdin, other.stdout
        assert out.readline() == "ready\n"

        def ask(line: str) -> str:
            into.write(f"{line}\n")
            into.flush()
            return out.readline().strip()

        yield cluster, ask
        into.close()
        assert other.wait(20) == 0
        out.close()


def test_blocks_go_both_ways(wired: tuple[Cluster, Callable[[str], str]]) -> None:
    cluster, ask = wired
    assert ask(f"put {BLOCKS}") == str(BLOCKS)
    assert ask(f"get {BLOCKS}") == str(BLOCKS)
    config = ClientConfig(cluster=(cluster.target("clusterd"),), token_file=cluster.token_file)
    keys = kvnetclient.CHAIN.keys(range(BLOCKS))
    with KVStore.open(config, "net", kvnetclient.CHAIN) as here:
        blocks = here.get(keys)
        assert blocks == [(key * (SIZE // 16 + 1))[:SIZE] for key in keys]
        here.remove(keys[10:])
        assert ask(f"get {BLOCKS}") == "10"


def test_who_is_cut_off_finds_nothing(
    wired: tuple[Cluster, Callable[[str], str]], cable: Cable
) -> None:
    """Misses, until it is reached again; nothing of it is stored or lost by that."""
    _, ask = wired
    assert ask("put 10") == "10"
    cable.pull()
    assert ask("get 10") == "0"
    assert ask(f"put {BLOCKS}") == "0"
    cable.plug()
    wait_until(lambda: ask("get 10") == "10", "it is reached again")
    assert ask(f"put {BLOCKS}") == str(BLOCKS)
    assert ask(f"get {BLOCKS}") == str(BLOCKS)
