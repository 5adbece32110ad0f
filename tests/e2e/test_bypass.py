"""Reads by passed descriptors against real daemons: kills, compaction, damage, other writers."""

from __future__ import annotations

import errno
import os
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

from harness.cluster import Cluster
from harness.descriptors import moved, warm
from harness.mount import fsck
from harness.waiting import wait_until
from superfs.client import ClientConfig, FileSystem
from superfs.core.tokens import Authority, Grant, Purpose, armor, parse_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


MIB = 1 << 20
pytestmark = pytest.mark.allow_log("connect", "grace")


def connect(cluster: Cluster, *, bypass: bool = True, token: Path | None = None) -> FileSystem:
    return FileSystem.connect(
        ClientConfig((cluster.target("clusterd"),), token or cluster.token_file, bypass=bypass)
    )


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    settings: dict[str, dict[str, dict[str, Any]]] = {
        "datad": {
            "store": {"segment_bytes": 8 * MIB, "sync_interval_s": 0.05},
            "compaction": {"quiet_s": 0.0, "live_percent_max": 90, "live_percent_max_full": 95},
        }
    }
    with Cluster(settings=settings) as cluster:
        yield cluster
        fsck(cluster)


def held_segments() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return [path for path in found if ".seg" in path]


# ---- the same bytes ------------------------------------------------------------------------------


def test_any_range_is_right(fs: FileSystem) -> None:
    """Holes, overwrites, short blocks, chunk borders."""
    rng = random.Random(1)
    size = 10 * MIB + 777
    model = bytearray(size)
    with fs.open("/f", "w+b", buffering=0) as file:
        for _ in range(60):
            at = rng.randrange(size - 200_000)
            data = rng.randbytes(rng.choice((10, 5000, 16_384, 200_000)))
            file.seek(at)
            file.write(data)
            model[at : at + len(data)] = data
        file.truncate(size)
    warm(fs, "/f")
    before = moved(fs).read_descriptor
    with fs.open("/f", "rb", buffering=0) as file:
        for _ in range(300):
            at, length = rng.randrange(size), rng.choice((1, 4096, 100_000, 2 * MIB))
            file.seek(at)
            data = file.read(length)
            assert data == model[at : at + len(data)], (at, length)
            assert data
    assert moved(fs).read_descriptor - before > 30 * MIB
    assert fs.read_bytes("/f") == model


def test_the_first_read_of_a_client_goes_by_descriptor(cluster: Cluster, fs: FileSystem) -> None:
    data = random.Random(8).randbytes(9 * MIB)
    fs.write_bytes("/f", data)
    with connect(cluster) as other:  # it does not know yet that the data daemon is on this host
        with other.open("/f", "rb", buffering=0) as file:
            assert file.read(MIB) == data[:MIB]
        assert other.read_bytes("/f") == data
        assert moved(other).read_grpc == 0


def test_where_a_large_file_lies_is_asked_when_it_is_opened(
    cluster: Cluster, fs: FileSystem
) -> None:
    fs.write_bytes("/f", bytes(2 * MIB))
    with connect(cluster) as other:
        connection = other.paths.connection
        wait_until(
            lambda: any(s.local and s.local.ready for s in connection.data_streams()), "a socket"
        )
        held = len(held_segments())
        with other.open("/f", "rb"):
            wait_until(lambda: len(held_segments()) > held, "its segment, before the first read")


def test_what_another_client_has_written_is_seen_at_once(cluster: Cluster, fs: FileSystem) -> None:
    fs.write_bytes("/f", bytes(3 * MIB))
    warm(fs, "/f")
    with (
        connect(cluster) as other,
        fs.open("/f", "rb", buffering=0) as reader,
        other.open("/f", "r+b", buffering=0) as writer,
    ):
        for turn in range(1, 100):
            at = turn * 9973
            writer.seek(at)
            writer.write(bytes([turn]) * 5000)
            writer.sync()  # type: ignore[attr-defined]
            reader.seek(at)
            assert reader.read(5000) == bytes([turn]) * 5000, turn
    assert moved(fs).read_descriptor > 3 * MIB


def test_own_writes_are_seen_while_they_are_on_their_way(fs: FileSystem) -> None:
    fs.write_bytes("/f", bytes(8 * MIB))
    warm(fs, "/f")
    rng = random.Random(2)
    model = bytearray(8 * MIB)
    with fs.open("/f", "r+b", buffering=0) as file:
        for _ in range(200):
            at = rng.randrange(6 * MIB)
            data = rng.randbytes(rng.choice((300_000, 1 * MIB)))
            file.seek(at)
            file.write(data)
            model[at : at + len(data)] = data
            at = rng.randrange(7 * MIB)
            file.seek(at)
            assert file.read(150_000) == model[at : at + 150_000]


def test_truncation_by_another_client(cluster: Cluster, fs: FileSystem) -> None:
    fs.write_bytes("/f", b"x" * MIB)
    warm(fs, "/f")
    with connect(cluster) as other:
        other.truncate("/f", 300_000)
        other.truncate("/f", MIB)
    assert fs.read_bytes("/f") == b"x" * 300_000 + bytes(MIB - 300_000)


# ---- writes --------------------------------------------------------------------------------------


class Writer:
    """Writes pieces over one file, knows what must be there, and is not told of any trouble."""

    def __init__(self, fs: FileSystem, path: str, seed: int) -> None:
        self._fs, self._path = fs, path
        self._rng = random.Random(seed)
        self.model = bytearray(12 * MIB)
        fs.write_bytes(path, bytes(self.model))

    def write(self, times: int) -> None:
        with self._fs.open(self._path, "r+b", buffering=0) as file:
            for _ in range(times):
                at = self._rng.randrange(10 * MIB)
                data = self._rng.randbytes(self._rng.choice((4096, 200_000, MIB, 2 * MIB - 5)))
                file.seek(at)
                file.write(data)
                self.model[at : at + len(data)] = data

    def check(self, *others: FileSystem) -> None:
        for fs in (self._fs, *others):
            assert fs.read_bytes(self._path) == self.model


def test_large_writes_go_by_shared_memory(cluster: Cluster, fs: FileSystem) -> None:
    writer = Writer(fs, "/f", 7)
    warm(fs, "/f")
    writer.write(100)
    with connect(cluster) as other:
        writer.check(other)
    assert moved(fs).written_memfd > 30 * MIB
    assert moved(fs).written_memfd > moved(fs).written_grpc


def test_datad_dies_under_a_writer(own_cluster: Cluster) -> None:
    with connect(own_cluster) as fs, connect(own_cluster, bypass=False) as other:
        writer = Writer(fs, "/f", 8)
        for turn in range(6):
            before = moved(fs).written_memfd
            wait_until(lambda: _shares(fs), "memory is shared")
            thread = threading.Thread(target=writer.write, args=(60,))
            thread.start()
            wait_until(
                lambda before=before: moved(fs).written_memfd > before,  # type: ignore[misc]
                "writes go by shared memory",
            )
            daemon = own_cluster.datad
            daemon.kill() if turn % 2 else daemon.stop()
            own_cluster.start(["datad-2"])
            thread.join()
            writer.check(other)
        fs.unlink("/f")


def _shares(fs: FileSystem) -> bool:
    return fs.paths.connection.data.shares_memory


def test_memory_that_the_daemon_has_forgotten(cluster: Cluster, fs: FileSystem) -> None:
    """What it cannot find is sent again with its bytes, in order."""
    writer = Writer(fs, "/f", 9)
    warm(fs, "/f")
    stop = threading.Event()

    def cut() -> None:
        while not stop.wait(0.01):
            for stream in fs.paths.connection.data_streams():
                if stream.local is not None:
                    stream.local.close()
                stream._local_due_s = 0.0

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        writer.write(100)
        with connect(cluster) as other:
            writer.check(other)
    finally:
        stop.set()
        thread.join()


# ---- who gets copies -----------------------------------------------------------------------------


def test_users_get_copies(cluster: Cluster, fs: FileSystem, tmp_path: Path) -> None:
    fs.write_bytes("/f", b"x" * MIB, 0o644)
    authority = Authority(parse_key(cluster.key_file.read_text()))
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_bytes(armor(authority.issue(Purpose.FILE, Grant("user", "u", uid=5, gid=5))))
    for client in (connect(cluster, token=token), connect(cluster, bypass=False)):
        with client:
            for _ in range(5):
                assert client.read_bytes("/f") == b"x" * MIB
            assert moved(client).read_descriptor == 0
            assert moved(client).read_grpc == 5 * MIB
            assert all(s.local is None for s in client.paths.connection.data_streams())


# ---- damage --------------------------------------------------------------------------------------


@pytest.mark.allow_log("damaged data")
def test_a_flipped_byte_is_an_error(own_cluster: Cluster) -> None:
    segments = own_cluster.state_dir("datad-2") / "segments"
    data = random.Random(3).randbytes(4 * MIB)
    with connect(own_cluster) as fs:
        with fs.open("/f", "wb", buffering=0) as file:
            file.write(data)
            file.sync()  # type: ignore[attr-defined]
        warm(fs, "/f")
        needle = data[2 * MIB + 500 : 2 * MIB + 600]
        (path,) = (p for p in segments.iterdir() if needle in p.read_bytes())
        at = path.read_bytes().index(needle)
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([needle[0] ^ 1]))
        before = moved(fs).read_descriptor
        with fs.open("/f", "rb", buffering=0) as file:
            for piece in range(4):
                file.seek(piece * MIB)
                if piece == 2:
                    with pytest.raises(OSError, match=r".") as caught:
                        file.read(MIB)
                    assert caught.value.errno == errno.EIO
                else:
                    assert file.read(MIB) == data[piece * MIB : (piece + 1) * MIB]
            file.seek(2 * MIB + 16_384)
            assert file.read(100_000) == data[2 * MIB + 16_384 :][:100_000]
        assert moved(fs).read_descriptor - before > 3 * MIB
        own_cluster.datad.wait_for_log("damaged data")
        own_cluster.datad.forget_log()
        fs.unlink("/f")


# ---- segments and daemons that go ----------------------------------------------------------------


class Reader:
    """A thread that reads a file over and over and compares."""

    def __init__(self, fs: FileSystem, path: str, data: bytes) -> None:
        self._fs, self._path, self._data = fs, path, data
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self.turns = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        rng = random.Random(4)
        try:
            with self._fs.open(self._path, "rb", buffering=0) as file:
                while not self._stop.is_set():
                    at = rng.randrange(len(self._data))
                    file.seek(at)
                    found = file.read(rng.choice((4096, 200_000, MIB)))
                    assert found == self._data[at : at + len(found)], at
                    self.turns += 1
        except BaseException as error:
            self._error = error

    def go_on(self, more: int = 50) -> None:
        target = self.turns + more

        def reached() -> bool:
            if self._error is not None:
                raise self._error
            return self.turns >= target

        wait_until(reached, "the reader goes on", timeout_s=60)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is not None:
            raise self._error


def test_segments_are_emptied_and_removed_under_a_reader(own_cluster: Cluster) -> None:
    segments = own_cluster.state_dir("datad-2") / "segments"
    data = random.Random(5).randbytes(12 * MIB)
    with connect(own_cluster) as fs, connect(own_cluster) as other:
        with fs.open("/f", "wb", buffering=0) as file, other.open("/g", "wb", buffering=0) as rest:
            for at in range(0, len(data), MIB):  # both in every segment
                file.write(data[at : at + MIB])
                file.sync()  # type: ignore[attr-defined]
                rest.write(bytes([at % 251]) * MIB)
                rest.sync()  # type: ignore[attr-defined]
        warm(fs, "/f")
        before = {p.name for p in segments.iterdir()}
        with Reader(fs, "/f", data) as reader:
            reader.go_on()
            other.unlink("/g")
            wait_until(
                lambda: len(before & {p.name for p in segments.iterdir()}) <= 2,
                "segments are emptied",
                timeout_s=60,
            )
            reader.go_on()
            wait_until(
                lambda: not [p for p in held_segments() if p.endswith("(deleted)")],
                "descriptors of removed segments are closed",
            )
            descriptor = moved(fs).read_descriptor
            reader.go_on()
            assert moved(fs).read_descriptor > descriptor
        assert moved(fs).read_descriptor > 10 * moved(fs).read_grpc
        fs.unlink("/f")


@pytest.mark.parametrize("kill", [True, False])
def test_datad_goes_and_comes_back(own_cluster: Cluster, kill: bool) -> None:
    data = random.Random(6).randbytes(6 * MIB)
    with connect(own_cluster) as fs:
        fs.write_bytes("/f", data)
        warm(fs, "/f")
        with Reader(fs, "/f", data) as reader:
            for _ in range(2):
                reader.go_on()
                daemon = own_cluster.datad
                daemon.kill() if kill else daemon.stop()
                wait_until(lambda: not held_segments(), "what the dead one passed is closed")
                own_cluster.start(["datad-2"])
                reader.go_on()
                before = moved(fs).read_descriptor
                wait_until(
                    lambda before=before: moved(fs).read_descriptor > before,  # type: ignore[misc]
                    "reads go by descriptor again",
                )
    assert not held_segments()
