"""The kernel believes what it was told for as long as the lease is renewed, and no longer."""

from __future__ import annotations

import os
import signal
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.cluster import Cluster
from harness.hammers import LEASE_S, QUICK, SHORT
from harness.mount import Mount, fsck
from harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.fuse, pytest.mark.slow]
MEASURED: dict[str, dict[str, Any]] = {**QUICK, "mount": {"metrics": "127.0.0.1:0"}}
ASKED = ("lookup", "getattr", "readdir")


@pytest.fixture
def mounts() -> Iterator[tuple[Mount, Mount]]:
    with (
        Cluster(settings=SHORT) as cluster,
        Mount(cluster, "m0", settings=QUICK) as first,
        Mount(cluster, "m1", settings=MEASURED) as second,
    ):
        yield first, second
        fsck(cluster)
        cluster.trouble([".*"])


def figures(mount: Mount) -> dict[str, float]:
    """How many requests of each kind the kernel has sent, and how often leases ended unrenewed."""
    line = mount.daemon.wait_for_log("metrics at")
    url = line[line.index("http://") :].split('"')[0].split()[0]
    with urllib.request.urlopen(url) as answer:
        lines = answer.read().decode().splitlines()
    count = "superfs_mount_seconds_count{operation="
    found = {line.split('"')[1]: float(line.split()[-1]) for line in lines if count in line}
    (lapses,) = (line.split()[-1] for line in lines if line.startswith("superfs_mount_lapses "))
    return {name: found.get(name, 0) for name in ASKED} | {"lapses": float(lapses)}


def guards(mount: Mount) -> list[int]:
    children = Path(f"/proc/{mount.daemon.pid}/task/{mount.daemon.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def test_what_is_held_under_a_lease_is_not_asked_for_again(mounts: tuple[Mount, Mount]) -> None:
    first, second = mounts
    (first.point / "d").mkdir()
    for number in range(100):
        (first.point / "d" / f"f{number}").write_bytes(b"x")
    files = [second.point / "d" / f"f{number}" for number in range(100)]
    os.listdir(second.point / "d")
    for _ in range(2):
        sizes = {file.stat().st_size for file in files}
    assert sizes == {1}

    def asked_nothing() -> bool:
        """After two leases; on a machine that is too busy to renew them in time, once more."""
        begun, before = time.monotonic(), figures(second)
        wait_until(lambda: time.monotonic() > begun + 2 * LEASE_S, "two leases have passed")
        assert {file.stat().st_size for file in files} == {1}
        os.listdir(second.point / "d")
        after = figures(second)
        more = sum(after[name] - before[name] for name in ASKED)
        if after["lapses"] == before["lapses"]:
            assert more == 0
        return after["lapses"] == before["lapses"]

    wait_until(asked_nothing, "leases are renewed", timeout_s=120)


def test_what_a_mount_that_is_stopped_had_told(mounts: tuple[Mount, Mount]) -> None:
    """Nobody is told the old when somebody else has been told that it is new."""
    first, second = mounts
    (first.point / "open").write_bytes(b"before")
    (first.point / "closed").write_bytes(b"before")
    with (second.point / "open").open("rb") as file:

        def sizes() -> list[int]:
            return [os.fstat(file.fileno()).st_size, (second.point / "closed").stat().st_size]

        assert sizes() == sizes() == [6, 6]
        second.daemon.signal(signal.SIGSTOP)
        seen: list[list[int]] = []
        asking = threading.Thread(target=lambda: seen.append(sizes()))
        try:
            for name in ("open", "closed"):
                os.truncate(first.point / name, 3)
            asking.start()
            asking.join(0.2)  # long enough for an answer from the kernel's memory
        finally:
            second.daemon.signal(signal.SIGCONT)
        asking.join(30)
        assert seen == [[3, 3]]


def test_a_directory_that_is_used_without_its_name(mounts: tuple[Mount, Mount]) -> None:
    """By a descriptor, as by a process that works there: no name is looked up."""
    first, second = mounts
    (first.point / "work").mkdir()
    fd = os.open(second.point / "work", os.O_PATH)
    try:
        assert os.fstat(fd).st_mode == os.fstat(fd).st_mode == 0o40755
        second.daemon.signal(signal.SIGSTOP)
        seen: list[int] = []
        asking = threading.Thread(target=lambda: seen.append(os.fstat(fd).st_mode))
        try:
            (first.point / "work").chmod(0o700)
            asking.start()
            asking.join(0.2)  # long enough for an answer from the kernel's memory
        finally:
            second.daemon.signal(signal.SIGCONT)
        asking.join(30)
        assert seen == [0o40700]
    finally:
        os.close(fd)


def test_the_guard_ends_with_its_mount_however_that_ends(mounts: tuple[Mount, Mount]) -> None:
    for mount, end in zip(mounts, (mounts[0].unmount, mounts[1].daemon.kill), strict=True):
        (pid,) = guards(mount)
        guard = Path(f"/proc/{pid}")
        end()
        wait_until(lambda gone=guard: not gone.exists(), "it ends")  # type: ignore[misc]
    mounts[1].close()
    for mount in mounts:
        mount.start()
