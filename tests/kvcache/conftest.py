"""Pools: one with a disk tier, whole at the end, and one of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.cluster import Cluster
from harness.kvbench import LAYOUT, DiskBench
from superfs.core.limits import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from superfs.data.kvcache.namespaces import Namespace


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[DiskBench]:
    found = DiskBench(tmp_path)
    yield found
    found.check()
    found.close()
    assert not found.warnings.seen


@pytest.fixture
def space(bench: DiskBench) -> Namespace:
    return bench.pool.open("a", LAYOUT, 0, "lru")


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    slab = tmp_path_factory.mktemp("slab")
    settings = {"slab_bytes": 64 * MIB, "slab_dir": str(slab), "granule_bytes": 64 * KIB}
    with Cluster(settings={"datad": {"kvcache": settings}}) as cluster:
        yield cluster
