"""Clients of the library, and a cluster to break."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.cluster import Cluster
from harness.mount import fsck
from superfs.client import ClientConfig, FileSystem

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """One to break; whole at the end."""
    with Cluster() as cluster:
        yield cluster
        fsck(cluster)


@pytest.fixture
def sdk(cluster: Cluster) -> Iterator[FileSystem]:
    with FileSystem.connect(ClientConfig((cluster.target("clusterd"),), cluster.token_file)) as fs:
        yield fs


@pytest.fixture
def fs(sdk: FileSystem) -> Iterator[FileSystem]:
    """Of which nothing is left at the end."""
    yield sdk
    for name in sdk.listdir(b"/"):
        sdk.remove_tree(b"/" + name)
