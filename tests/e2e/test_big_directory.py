"""Directories of 100,000 entries (1,000,000 in soak): made past the mount, listed through it."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from harness.cluster import Cluster
    from harness.mount import Mount
    from superfs.client import FileSystem

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

HUNDRED_THOUSAND, MILLION = 100_000, 1_000_000
AT_A_TIME = 2000


def resident_kib(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def fill(sdk: FileSystem, directory: str, count: int) -> None:
    sdk.mkdir(directory)
    for start in range(0, count, AT_A_TIME):
        names = range(start, min(start + AT_A_TIME, count))
        sdk.put_many({f"{directory}/file-{i:07}": b"%d" % i for i in names})


def check(mount: Mount, sdk: FileSystem, cluster: Cluster, count: int) -> None:
    before = {name: resident_kib(daemon.pid) for name, daemon in cluster.daemons.items()}
    start = time.monotonic()
    fill(sdk, "/big", count)
    made = time.monotonic()
    expected = {f"file-{i:07}" for i in range(count)}
    big = mount.point / "big"
    names = os.listdir(big)
    listed = time.monotonic()
    print(f"{count} entries: made in {made - start:.1f} s, listed in {listed - made:.1f} s")
    assert len(names) == count
    assert set(names) == expected
    assert (big / f"file-{count - 1:07}").read_bytes() == b"%d" % (count - 1)
    changing(big, expected)
    for name, daemon in cluster.daemons.items():
        grown = resident_kib(daemon.pid) - before[name]
        assert grown < 512 * 1024, f"{name} has grown by {grown} KiB"
    sdk.remove_tree("/big")
    assert not big.exists()


def changing(big: Path, expected: set[str]) -> None:
    """Listed while names come and go: what stays is seen exactly once."""
    stop = threading.Event()

    def churn() -> None:
        i = 0
        while not stop.is_set():
            (big / f"new-{i}").touch()
            if i >= 10:
                (big / f"new-{i - 10}").unlink()
            i += 1

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        names = [entry.name for entry in os.scandir(big)]
    finally:
        stop.set()
        thread.join()
    assert len(names) == len(set(names)), "an entry was listed twice"
    assert expected <= set(names), f"{len(expected - set(names))} entries were not listed"


def test_hundred_thousand_entries(
    shared_mount: Mount, sdk: FileSystem, shared_cluster: Cluster
) -> None:
    check(shared_mount, sdk, shared_cluster, HUNDRED_THOUSAND)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_million_entries(shared_mount: Mount, sdk: FileSystem, shared_cluster: Cluster) -> None:
    check(shared_mount, sdk, shared_cluster, MILLION)
