"""A pool with a disk tier, whole at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.kvbench import LAYOUT, DiskBench

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
