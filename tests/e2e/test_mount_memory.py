"""A mount stays under `memory_max` whatever is walked through it, and gives back what is unused."""

from __future__ import annotations

import ctypes
import os
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.cluster import Cluster
from harness.mount import Mount, fsck
from harness.waiting import wait_until
from superfs.client import ClientConfig, FileSystem

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

FILES_A_DIRECTORY = 1000
MS_NOSUID, MS_NODEV, MS_REMOUNT = 2, 4, 32


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        yield running
        assert not running.trouble()
        fsck(running)


def connect(cluster: Cluster) -> FileSystem:
    return FileSystem.connect(
        ClientConfig(cluster=(cluster.target("clusterd"),), token_file=cluster.token_file)
    )


def fill(sdk: FileSystem, directories: int, files: int = FILES_A_DIRECTORY) -> None:
    for d in range(directories):
        sdk.mkdir(f"/d{d:04}")
        sdk.put_many({f"/d{d:04}/file-{i:06}": b"%d" % i for i in range(files)})


def limited(cluster: Cluster, memory_max: int) -> Mount:
    settings = {"memory_max": memory_max, "metrics": "127.0.0.1:0"}
    return Mount(cluster, settings={"mount": settings}, executed=True)


def most_resident_mib(mount: Mount) -> int:
    """The most it ever was."""
    for line in Path(f"/proc/{mount.daemon.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    raise AssertionError("no VmHWM")


def figure(mount: Mount, name: str) -> int:
    log = mount.daemon.log.read_text()
    at = log.rindex("metrics at http://") + len("metrics at ")
    with urllib.request.urlopen(log[at:].partition('"')[0], timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"superfs_mount_{name} "):
                return int(float(line.split()[1]))
    raise AssertionError(f"no figure {name}")


def forget(mount: Mount) -> None:
    """The kernel lets go of what it knows of this mount and no other, unless it is in use: that is
    what it does first when the options of a mount change."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = MS_REMOUNT | MS_NOSUID | MS_NODEV
    if libc.mount(None, os.fsencode(mount.point), None, flags, None):
        raise OSError(ctypes.get_errno(), "remount", str(mount.point))


def walk(top: Path) -> int:
    found = 0
    for directory, _, names in os.walk(top, onerror=_raise):
        for name in names:
            assert os.lstat(os.path.join(directory, name)).st_size <= 6
            found += 1
    return found


def _raise(error: OSError) -> None:
    raise error


def test_a_walk_through_more_than_fits(cluster: Cluster) -> None:
    """Through a mount of 96 MiB, which would take 115."""
    with connect(cluster) as sdk, limited(cluster, 96) as mount:
        fill(sdk, 50)
        assert walk(mount.point) == 50_000
        assert most_resident_mib(mount) < 96
        assert figure(mount, "evicted") > 0
        assert figure(mount, "inodes") < 50_000, "the kernel has forgotten some"
        # What was forgotten in between is seen as it is now.
        sdk.rename("/d0000/file-000000", "/d0001/moved")
        sdk.unlink("/d0049/file-000999")
        assert not (mount.point / "d0000/file-000000").exists()
        assert (mount.point / "d0001/moved").read_bytes() == b"0"
        assert walk(mount.point / "d0049") == 999
        assert most_resident_mib(mount) < 96


def test_one_directory_of_more_than_fits(cluster: Cluster) -> None:
    with connect(cluster) as sdk, limited(cluster, 96) as mount:
        fill(sdk, 1, 50_000)
        with os.scandir(mount.point / "d0000") as entries:
            assert sum(entry.stat(follow_symlinks=False).st_size > 0 for entry in entries) == 50_000
        assert most_resident_mib(mount) < 96


@pytest.mark.skipif(os.geteuid() != 0, reason="only root remounts")
def test_what_the_kernel_forgets_goes_back(cluster: Cluster) -> None:
    with connect(cluster) as sdk, limited(cluster, 512) as mount:
        fill(sdk, 20, 200)
        assert walk(mount.point) == 4000
        assert figure(mount, "leases") > 20

        def dropped() -> bool:
            # Again and again: the kernel lets go of the directories only after what is in them.
            forget(mount)
            return figure(mount, "inodes") == 1

        wait_until(dropped, "the kernel has forgotten all", pause_s=0.5)
        wait_until(lambda: figure(mount, "leases") <= 1, "the leases are back")
        wait_until(lambda: figure(mount, "names") <= 20, "only the root's names are remembered")
        assert figure(mount, "leases_returned") >= 20
        sdk.rename("/d0001/file-000000", "/d0002/moved")
        assert walk(mount.point) == 4000
        assert (mount.point / "d0002/moved").exists()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_million_files_under_the_default(cluster: Cluster) -> None:
    with connect(cluster) as sdk, limited(cluster, 512) as mount:
        fill(sdk, 1000)
        for _ in range(2):
            assert walk(mount.point) == 1_000_000
            print(f"resident at most: {most_resident_mib(mount)} MiB")
            forget(mount)
        assert most_resident_mib(mount) < 512
        assert walk(mount.point / "d0000") == 1000
