"""The pool's numbers as Prometheus reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from harness.kvbench import GRANULE, LAYOUT, Bench, DiskBench, chain
from superfs.data.kvcache.metrics import PoolMetrics

if TYPE_CHECKING:
    from pathlib import Path


def figures(bench: Bench) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(PoolMetrics(bench.pool))
    lines = generate_latest(registry).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name.removeprefix("superfs_kvcache_"): float(value) for name, value in pairs}


def test_a_pool_without_a_disk(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert figures(bench) == {
        'capacity_bytes{tier="memory"}': 16 * GRANULE,
        'damaged_blocks_total{tier="memory"}': 0,
        "leases": 0,
        "puts": 0,
    }
    bench.pool.slab.close()


def test_what_happened_is_counted(tmp_path: Path) -> None:
    bench = DiskBench(tmp_path)
    space = bench.pool.open("a", LAYOUT, 4 * GRANULE, "lru", 6 * GRANULE)
    bench.pool.open("memory", LAYOUT, 0, "lru", 0)
    one, two = chain(0, 8), chain(0, 9)
    bench.put(space, one)
    bench.pool.pin(space, one[:1], 60)
    bench.write_behind()
    assert bench.put(space, two, first=3)[0].name == "OK"
    assert figures(bench)["waiting_blocks"] == 1
    bench.write_behind()
    assert len(bench.read(space, one)) == 4
    found = figures(bench)
    assert {name: value for name, value in found.items() if value and '"memory"' not in name} == {
        'capacity_bytes{tier="disk"}': 32 * GRANULE,
        "written_blocks_total": 5,
        "segment_bytes": 8 * GRANULE,
        'blocks{namespace="a",tier="disk"}': 5,
        'used_bytes{namespace="a",tier="disk"}': 5 * GRANULE,
        'quota_bytes{namespace="a",tier="disk"}': 6 * GRANULE,
        'asked_blocks_total{namespace="a"}': 4,
        'found_blocks_total{namespace="a"}': 4,
        'promoted_blocks_total{namespace="a"}': 1,
        'pinned_bytes{namespace="a"}': GRANULE,
    }
    assert found['evicted_blocks_total{namespace="a",tier="memory"}'] == 2
    assert found['blocks{namespace="a",tier="memory"}'] == 4
    assert not any('namespace="memory",tier="disk"' in name for name in found)
    place = space.places[one[3]]
    bench.pool.slab.write(place.at, 1, b"x")
    bench.pool.check(space, one[3], place)
    bench.put(space, [bytes(16)], size=99 * GRANULE)
    assert figures(bench)['damaged_blocks_total{tier="memory"}'] == 1
    bench.close()
