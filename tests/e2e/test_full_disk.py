"""A full disk gives ENOSPC, loses nothing, lets files be removed, and goes on with room."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from harness.cluster import Cluster
from harness.disks import small_disk
from harness.mount import Mount, fsck
from harness.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.fuse, pytest.mark.slow]
MIB = 1 << 20


def fill(directory: Path, size: int, most: int) -> list[Path]:
    """Files of `size` until the first error, which must be ENOSPC; says which were acknowledged."""
    good: list[Path] = []
    for i in range(most):
        path = directory / f"f{i:05}"
        try:
            with open(path, "wb", buffering=0) as file:
                data = bytes([i % 251]) * size
                for start in range(0, size, MIB):
                    file.write(data[start : start + MIB])
                os.fsync(file.fileno())
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return good
        good.append(path)
    raise AssertionError(f"{most} files of {size} bytes have found room")


def fill_with_directories(directory: Path) -> int | None:
    try:
        for i in range(100_000):
            (directory / f"more{i}").mkdir()
    except OSError as error:
        return error.errno
    return None


def check_contents(paths: list[Path], size: int) -> None:
    for path in paths:
        assert path.read_bytes() == bytes([int(path.name[1:]) % 251]) * size, path


def can_write(path: Path, size: int) -> bool:
    try:
        with open(path, "wb") as file:
            file.write(b"x" * size)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True


def test_full_data_disk(tmp_path: Path) -> None:
    store = {"segment_bytes": 8 * MIB, "reserve_bytes": 8 * MIB, "index_bytes": 8 * MIB,
             "index_reserve_bytes": MIB}  # fmt: skip
    settings = {"datad": {"store": store, "compaction": {"quiet_s": 0}}}
    with (
        small_disk(tmp_path / "disk", 96) as disk,
        Cluster(settings=settings, state_dirs={"datad-2": disk / "state"}) as cluster,
        Mount(cluster) as mount,
    ):
        before = os.statvfs(mount.point)
        assert before.f_blocks * before.f_frsize < 200 * MIB, "statfs does not know the disk"
        good = fill(mount.point, 3 * MIB, 60)
        assert len(good) >= 10
        check_contents(good, 3 * MIB)
        # small files live elsewhere: they go on
        (mount.point / "small").write_text("fits inline")
        # removing works at 100 %, and gives room
        for path in mount.point.iterdir():
            if path.name != "small" and path not in good[:5]:
                path.unlink()
        wait_until(
            lambda: can_write(mount.point / "again", 3 * MIB), "there is room again", timeout_s=60
        )
        check_contents(good[:5], 3 * MIB)
        fsck(cluster)
        cluster.restart("datad-2", kill=True)
        check_contents(good[:5], 3 * MIB)
        assert (mount.point / "again").read_bytes() == b"x" * (3 * MIB)
        cluster.trouble([".*"])


def test_full_metadata_disk(tmp_path: Path) -> None:
    meta = {
        "map_initial_bytes": 8 * MIB, "map_step_bytes": 4 * MIB, "grow_below_bytes": 3 * MIB,
        "reserve_bytes": 1 * MIB,
    }  # fmt: skip
    with (
        small_disk(tmp_path / "disk", 16) as disk,
        Cluster(settings={"metad": {"meta": meta}}, state_dirs={"metad-1": disk / "s"}) as cluster,
        Mount(cluster) as mount,
    ):
        (mount.point / "d").mkdir()
        good = fill(mount.point / "d", 3000, 20_000)
        assert len(good) >= 500
        check_contents(good[::50], 3000)
        assert fill_with_directories(mount.point) == errno.ENOSPC
        pid = cluster.metad.pid
        for path in good[100:]:
            path.unlink()
        assert can_write(mount.point / "again", 3000)
        check_contents(good[:100], 3000)
        assert cluster.metad.pid == pid
        assert cluster.metad.running
        cluster.restart("metad-1", kill=True)
        check_contents(good[:100], 3000)
        fsck(cluster)
        cluster.trouble([".*"])
