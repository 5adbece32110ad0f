"""kill -9 at any moment: everything acknowledged as durable is there, nothing is half done, and a
program on the mount sees no more of it than a pause."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness import workload
from harness.cluster import Cluster
from harness.daemon import Daemon
from harness.mount import Mount, fsck
from harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

DAEMONS = Path(__file__).parents[2] / "daemons"
FAILPOINTS = sorted(
    {
        name
        for path in DAEMONS.rglob("*.py")
        if path.name != "lending.py"  # writers past the mount come there: test_lent.py
        for name in re.findall(r'hit\(\s*"((?:metad|datad)\.[a-z_.-]+)"', path.read_text())
    }
)
PAUSES = ["unavailable", "lost", "reconnect", "expired", "again", "epoch", "renew"]
"""Words of the warnings that clients and daemons may write about a peer that is away."""


ALL: list[Writer] = []


class Writer:
    """The workload as a process, with its manifest outside the file system."""

    def __init__(self, top: Path, outside: Path, seed: int) -> None:
        top.mkdir()
        self.top, self.manifest = top, outside / "manifest"
        self.manifest.touch()
        ALL.append(self)
        script = Path(workload.__file__)
        command = [sys.executable, "-I", script, top, self.manifest, str(seed)]
        self.process = Daemon("workload", [str(c) for c in command], outside / "workload.log")
        self.process.start()

    def lines(self) -> int:
        return self.manifest.read_bytes().count(b"\n")

    def progress(self, count: int, timeout_s: float = 60.0) -> None:
        """Until that many more lines are acknowledged; the workload's death is a failure."""
        goal = self.lines() + count

        def done() -> bool:
            assert self.process.running, f"the workload failed\n{self.process.tail()}"
            return self.lines() >= goal

        wait_until(done, f"{count} more acknowledgements", timeout_s=timeout_s, pause_s=0.005)

    def finish(self) -> None:
        if self.process.running:
            self.process.stop()
        else:
            raise AssertionError(f"the workload failed\n{self.process.tail()}")

    def verify(self) -> None:
        wrong = workload.verify(self.top, self.manifest)
        assert not wrong, "\n".join(wrong[:20])


@pytest.fixture
def mount() -> Iterator[Mount]:
    """A cluster and a mount of its own."""
    with Cluster() as cluster, Mount(cluster) as mount:
        yield mount
        cluster.trouble([".*"])


@pytest.fixture(scope="module")
def busy_mount() -> Iterator[Mount]:
    """Small segments and eager compaction, so that every step of a daemon comes soon."""
    store = {"segment_bytes": 8 << 20, "sync_interval_s": 0.1, "extents_max": 8}
    compaction = {"quiet_s": 0.05, "live_percent_max": 90}
    settings = {"datad": {"store": store, "compaction": compaction}}
    with Cluster(settings=settings) as cluster, Mount(cluster) as mount:
        yield mount
        cluster.trouble([".*"])


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For what a writer on `busy_mount` knows: it is there until the last of these tests."""
    return tmp_path_factory.mktemp("writer")


def verify_twice(mount: Mount, writer: Writer) -> None:
    """Once as it stands, and once with every cache gone."""
    writer.verify()
    fsck(mount.cluster)
    mount.unmount()
    for daemon in mount.cluster.daemons.values():
        daemon.stop()
    mount.cluster.start()
    mount.start()
    writer.verify()
    fsck(mount.cluster)


def rounds(mount: Mount, writer: Writer, victims: list[str], count: int) -> None:
    rng = random.Random(count)
    try:
        for _ in range(count):
            writer.progress(rng.randrange(1, 25))
            for victim in victims:
                mount.cluster.daemons[victim].kill()
            mount.cluster.start(victims)
        writer.progress(20)
        writer.finish()
    finally:
        writer.process.kill()
    writer.verify()


@pytest.mark.parametrize(
    "victims",
    [["metad-1"], ["datad-2"], ["clusterd"], ["datad-2", "metad-1"]],
    ids=lambda v: "+".join(v),
)
def test_kill_daemons(busy_mount: Mount, outside: Path, victims: list[str]) -> None:
    writer = Writer(busy_mount.point / "+".join(victims), outside, 1)
    rounds(busy_mount, writer, victims, 5)
    fsck(busy_mount.cluster)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("victim", ["metad-1", "datad-2"])
def test_kill_daemons_a_hundred_times(mount: Mount, tmp_path: Path, victim: str) -> None:
    writer = Writer(mount.point / "work", tmp_path, 2)
    rounds(mount, writer, [victim], 100)
    verify_twice(mount, writer)


@pytest.mark.parametrize("point", FAILPOINTS)
def test_kill_at_every_failpoint(busy_mount: Mount, outside: Path, point: str) -> None:
    """The daemon dies at exactly this point, the second time it comes there."""
    cluster = busy_mount.cluster
    daemon = cluster.metad if point.startswith("metad") else cluster.datad
    cluster.start()
    writer = Writer(busy_mount.point / point, outside, 3)
    try:
        writer.progress(3)
        daemon.stop()
        daemon.env = {**cluster.env, "SUPERFS_FAILPOINTS": f"{point}=kill*2"}
        daemon.start()
        wait_until(lambda: not daemon.running, f"{point} is reached", timeout_s=25)
        assert daemon.wait() == -signal.SIGKILL, daemon.tail()
        daemon.env = cluster.env
        cluster.start([daemon.name])
        writer.progress(10)
        writer.finish()
    finally:
        writer.process.kill()
        if daemon.env is not cluster.env:
            daemon.kill()
            daemon.env = cluster.env
    writer.verify()
    fsck(cluster)


def test_nothing_is_lost_after_all_of_them(busy_mount: Mount) -> None:
    """Everything that the tests above have written, with every cache gone."""
    busy_mount.unmount()
    busy_mount.cluster.stop()
    busy_mount.cluster.start()
    busy_mount.start()
    writers = [writer for writer in ALL if writer.top.parent == busy_mount.point]
    assert writers
    for writer in writers:
        writer.verify()
    fsck(busy_mount.cluster)


def test_restart_of_everything_under_load(mount: Mount, tmp_path: Path) -> None:
    """A planned restart, one daemon at a time: no error at all."""
    writer = Writer(mount.point / "work", tmp_path, 4)
    try:
        for name in mount.cluster.daemons:
            writer.progress(10)
            mount.cluster.restart(name)
        writer.progress(10)
        writer.finish()
    finally:
        writer.process.kill()
    verify_twice(mount, writer)


def test_kill_the_mount(mount: Mount, tmp_path: Path) -> None:
    """What a program had synced is there after the mount itself was killed."""
    writer = Writer(mount.point / "work", tmp_path, 5)
    try:
        writer.progress(40)
        mount.daemon.kill()
        writer.process.wait()
    finally:
        writer.process.kill()
    subprocess.run(["umount", "-l", mount.point], check=True)
    mount.start()
    writer.verify()
    fsck(mount.cluster)


def test_open_files_live_through_a_restart_of_metad(mount: Mount) -> None:
    """Unlinked but open: the file is there until its close, whatever happens to metad."""
    path = mount.point / "f"
    path.write_bytes(b"contents" * 5000)
    small = mount.point / "small"
    small.write_bytes(b"inline")
    with open(path, "r+b") as held, open(small, "r+b") as held_small:
        path.unlink()
        small.unlink()
        mount.cluster.daemons["metad-1"].kill()
        mount.cluster.start(["metad-1"])
        assert held.read() == b"contents" * 5000
        assert held_small.read() == b"inline"
        held.write(b"more")
        held.flush()
        held.seek(40_000)
        assert held.read() == b"more"
    fsck(mount.cluster)
