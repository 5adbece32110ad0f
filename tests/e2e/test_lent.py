"""Writers past the mount that put their bytes into lent segments, against real daemons."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.cluster import Cluster
from harness.descriptors import moved
from harness.mount import Mount, fsck
from harness.waiting import wait_until
from superfs.client import ClientConfig, FileSystem

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
pytestmark = [
    pytest.mark.slow,
    pytest.mark.allow_log("connect", "grace", "unavailable", "lost", "reconnect", "again", "epoch"),
]
LENDING = Path(__file__).parents[2] / "daemons/superfs/data/lending.py"
FAILPOINTS = sorted(re.findall(r'hit\("(datad\.[a-z.]+)"', LENDING.read_text()))


def connect(cluster: Cluster) -> FileSystem:
    return FileSystem.connect(ClientConfig((cluster.target("clusterd"),), cluster.token_file))


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    settings: dict[str, dict[str, dict[str, Any]]] = {
        "datad": {
            "store": {"segment_bytes": 16 * MIB, "sync_interval_s": 0.05},
            "compaction": {"quiet_s": 0.0, "live_percent_max": 90, "live_percent_max_full": 95},
        }
    }
    with Cluster(settings=settings) as cluster:
        yield cluster
        fsck(cluster)


def borrowed() -> list[str]:
    """Segments that this process holds for writing."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{name}")
            flags = int(re.findall(r"flags:\s*(\d+)", _info(name))[0], 8)
        except FileNotFoundError:
            continue
        if ".seg" in path and flags & os.O_ACCMODE == os.O_RDWR:
            found.append(path)
    return found


def _info(name: str) -> str:
    return Path(f"/proc/self/fdinfo/{name}").read_text()


class Writer:
    """Writes pieces over one file, and knows what must be there."""

    def __init__(self, fs: FileSystem, path: str, seed: int) -> None:
        self._fs, self._path = fs, path
        self._rng = random.Random(seed)
        self.model = bytearray(24 * MIB)
        fs.write_bytes(path, bytes(self.model))

    def write(self, times: int) -> None:
        with self._fs.open(self._path, "r+b", buffering=0) as file:
            for _ in range(times):
                at = self._rng.randrange(19 * MIB)
                size = self._rng.choice((4096, 200_000, MIB, 2 * MIB - 5, 5 * MIB))
                data = self._rng.randbytes(size)
                file.seek(at)
                file.write(data)
                self.model[at : at + size] = data
                if self._rng.random() < 0.2:
                    at = self._rng.randrange(20 * MIB)
                    file.seek(at)
                    assert file.read(MIB) == self.model[at : at + MIB], "what it wrote itself"

    def check(self, *others: FileSystem) -> None:
        for fs in (self._fs, *others):
            assert fs.read_bytes(self._path) == self.model


def test_large_writes_go_where_they_stay(own_cluster: Cluster) -> None:
    with connect(own_cluster) as fs, connect(own_cluster) as other:
        writer = Writer(fs, "/f", 1)
        writer.write(60)
        writer.check(other)
        assert moved(fs).written_descriptor > 30 * MIB
        fsck(own_cluster)
        wait_until(lambda: not borrowed(), "what nobody uses is given back")
        writer.write(60)
        writer.check(other)
        fs.unlink("/f")


def test_segments_are_given_back_in_time(own_cluster: Cluster) -> None:
    """A file of many of them: more than a client may have at a time."""
    with connect(own_cluster) as fs:
        data = random.Random(2).randbytes(4 * MIB)
        most = 0
        with fs.open("/f", "wb", buffering=0) as file:
            for _ in range(64):
                file.write(data)
                most = max(most, len(borrowed()))
            file.sync()  # type: ignore[attr-defined]
        assert most, "those that are lent, and those whose bytes are not committed"
        wait_until(lambda: not borrowed(), "they are given back, and their bytes committed")
        assert moved(fs).written_descriptor > 100 * MIB
        with fs.open("/f", "rb", buffering=0) as file:
            for _ in range(64):
                assert file.read(4 * MIB) == data
        fs.unlink("/f")


@pytest.mark.fuse
def test_a_mount_sees_what_was_written_past_it(own_cluster: Cluster) -> None:
    with Mount(own_cluster) as mount, connect(own_cluster) as fs:
        path = mount.point / "f"
        path.write_bytes(b"old" * MIB)
        assert len(path.read_bytes()) == 3 * MIB
        data = random.Random(3).randbytes(20 * MIB)
        with path.open("rb", buffering=0) as reader, fs.open("/f", "r+b", buffering=0) as file:
            for turn in range(3):
                file.seek(turn)
                file.write(data)
                file.sync()  # type: ignore[attr-defined]
                assert os.pread(reader.fileno(), 21 * MIB, turn) == data
        assert path.stat().st_size == 20 * MIB + 2
        assert moved(fs).written_descriptor > 20 * MIB


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_datad_goes_under_a_writer(own_cluster: Cluster, how: str) -> None:
    with connect(own_cluster) as fs, connect(own_cluster) as other:
        writer = Writer(fs, "/f", 4)
        for _ in range(4):
            before = moved(fs).written_descriptor
            thread = threading.Thread(target=writer.write, args=(60,))
            thread.start()
            wait_until(
                lambda before=before, thread=thread: (  # type: ignore[misc]
                    moved(fs).written_descriptor > before or not thread.is_alive()
                ),
                "writes go to lent segments",
            )
            getattr(own_cluster.datad, how)()
            own_cluster.start(["datad-2"])
            thread.join()
            writer.check(other)
        assert moved(fs).written_descriptor
        fs.unlink("/f")


@pytest.mark.parametrize("point", FAILPOINTS)
def test_kill_at_every_failpoint(own_cluster: Cluster, point: str) -> None:
    daemon = own_cluster.datad
    with connect(own_cluster) as fs, connect(own_cluster) as other:
        writer = Writer(fs, "/f", 5)
        daemon.stop()
        daemon.env = {**own_cluster.env, "SUPERFS_FAILPOINTS": f"{point}=kill*2"}
        daemon.start()
        thread = threading.Thread(target=writer.write, args=(200,))
        thread.start()
        wait_until(lambda: not daemon.running, f"{point} is reached", timeout_s=25)
        assert daemon.wait() == -signal.SIGKILL, daemon.tail()
        daemon.env = own_cluster.env
        own_cluster.start([daemon.name])
        thread.join()
        writer.check(other)


def test_a_socket_that_is_cut_again_and_again(own_cluster: Cluster) -> None:
    """What was written and not placed is read back and sent with its bytes."""
    with connect(own_cluster) as fs, connect(own_cluster) as other:
        writer = Writer(fs, "/f", 6)
        stop = threading.Event()

        def cut() -> None:
            while not stop.wait(0.05):
                for stream in fs.paths.connection.data_streams():
                    if stream.local is not None:
                        stream.local.close()
                    stream._local_due_s = 0.0

        thread = threading.Thread(target=cut)
        thread.start()
        try:
            writer.write(100)
            writer.check(other)
        finally:
            stop.set()
            thread.join()
