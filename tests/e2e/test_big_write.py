"""A big file, written in one go through a mount while its data daemon dies again and again."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harness.cluster import Cluster
from harness.mount import Mount, fsck
from harness.waiting import wait_until
from superfs.core.limits import MIB
from superfs.daemon.failpoints import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

PIECES = 160
SCRIPT = """
import os, sys
path, pieces = sys.argv[1], int(sys.argv[2])
piece = lambda number: number.to_bytes(8, "little") * (1 << 17)
with open(path, "wb", buffering=0) as file:
    for number in range(pieces):
        file.write(piece(number))
        if number % 10 == 9:
            os.pwrite(file.fileno(), piece(number)[: (1 << 20) // 3], (number - 5) << 20)
        os.write(1, b".")
    os.fsync(file.fileno())
"""


@pytest.fixture
def mount() -> Iterator[Mount]:
    settings = {"datad": {"store": {"sync_interval_s": 0.1}}}
    with Cluster(settings=settings) as cluster, Mount(cluster) as mount:
        yield mount
        cluster.trouble([".*"])


class Writer:
    """A process: descriptors of the mount must not be inherited by a daemon that is to start, whose
    closing them would wait for that daemon."""

    def __init__(self, path: Path, outside: Path) -> None:
        self.path = path
        self._said = outside / "pieces"
        with self._said.open("wb") as said:
            command = [sys.executable, "-I", "-c", SCRIPT, str(path), str(PIECES)]
            self._process = subprocess.Popen(command, stdout=said)

    def wait_for(self, count: int) -> None:
        wait_until(lambda: self._said.stat().st_size >= count, f"{count} pieces", timeout_s=60)

    def finish(self) -> None:
        assert self._process.wait(120) == 0

    def check(self) -> None:
        with self.path.open("rb", buffering=0) as file:
            for number in range(PIECES):
                expected = piece(number)
                if number % 10 == 4:
                    expected = piece(number + 5)[: MIB // 3] + expected[MIB // 3 :]
                assert file.read(MIB) == expected, f"piece {number}"
            assert not file.read(1)


def piece(number: int) -> bytes:
    return number.to_bytes(8, "little") * (MIB // 8)


@pytest.mark.parametrize(
    "point", ["", "datad.append.head", "datad.append.after", "datad.sync.before"]
)
def test_datad_dies_under_a_big_write(mount: Mount, tmp_path: Path, point: str) -> None:
    """`point`: where it dies; else anywhere."""
    cluster, datad = mount.cluster, mount.cluster.datad
    if point:
        datad.stop()
        count = 3 if "sync" in point else 70
        datad.env = {**cluster.env, ENVIRONMENT: f"{point}=kill*{count}"}
        datad.start()
    writer = Writer(mount.point / "big", tmp_path)
    if point:
        wait_until(lambda: not datad.running, f"{point} is reached", timeout_s=60)
        datad.env = cluster.env
        cluster.start([datad.name])
    else:
        for count in (5, 60, 130):
            writer.wait_for(count)
            datad.kill()
            cluster.start([datad.name])
    writer.finish()
    writer.check()
    fsck(cluster)
    mount.unmount()
    datad.kill()
    cluster.start([datad.name])
    mount.start()
    writer.check()
    fsck(cluster)
