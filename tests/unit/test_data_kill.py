"""A real data daemon, killed at each of its failpoints under load: everything acknowledged is there
afterwards, nothing is half-done, a check finds nothing. And what it does on a full disk."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from harness import leftovers
from harness.cluster import Cluster
from harness.waiting import wait_until
from superfs.core.errors import Code
from superfs.core.limits import CHUNK_BYTES, KIB, MIB
from superfs.core.tokens import Authority, parse_key
from superfs.daemon.failpoints import ENVIRONMENT
from superfs.daemon.membership import daemon_token
from superfs.rpc.channel import open_channel, token_metadata
from superfs.v1.data_pb2 import (
    Commit,
    DataCheckRequest,
    DataReply,
    DataRequest,
    Read,
    Reap,
    ReapItem,
    Truncate,
    Usage,
    Write,
)
from superfs.v1.data_pb2_grpc import DataStub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

DATAD = "datad-2"
STORE: dict[str, Any] = {
    "segment_bytes": 8 * MIB, "index_bytes": 4 * MIB, "index_reserve_bytes": MIB,
    "reserve_bytes": 0, "extents_max": 8, "sync_interval_s": 0.05,
}  # fmt: skip
COMPACTION = {"quiet_s": 0, "live_percent_max": 90, "live_percent_max_full": 98}
SETTINGS: dict[str, Any] = {"datad": {"store": STORE, "compaction": COMPACTION}}
FAILPOINTS = [
    ("datad.append.before", 400),
    ("datad.append.after", 400),
    ("datad.reply.before", 400),
    ("datad.sync.before", 3),
    ("datad.commit.before", 3),
    ("datad.commit.after", 3),
    ("datad.synced.reply", 4),
    ("datad.seal", 2),
    ("datad.unlink.after", 2),
    ("datad.compact.chunk", 5),
    ("datad.compact.move", 30),
    ("datad.compact.emptied", 1),
]
WINDOW = 16


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster(settings=SETTINGS)
    try:
        start(made)
        yield made
    finally:
        made.close()


def start(cluster: Cluster) -> None:
    for name in ("clusterd", DATAD):
        cluster.format(name)
        cluster.start([name])


class Client:
    def __init__(self, cluster: Cluster) -> None:
        self.channel = open_channel([cluster.target(DATAD)])
        self.stub = DataStub(self.channel)
        key = parse_key(cluster.key_file.read_text())
        token = daemon_token(Authority(key), time.time_ns(), "test")
        self.metadata = token_metadata(token)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.channel.close()

    def ask(self, **body: Any) -> DataReply:  # noqa: ANN401
        request = DataRequest(tag=1, **body)
        reply: DataReply = self.stub.Execute(request, metadata=self.metadata, timeout=30)
        return reply

    def check(self) -> list[Any]:
        request = DataCheckRequest(verify_data=True)
        return list(self.stub.Check(request, metadata=self.metadata, timeout=60))


Sent = tuple[str, int, int, int]  # what, inode, block, stamp


class Window:
    """What was sent and is not answered. A thread of gRPC's takes the requests: it waits here for
    room, and no longer when there is nobody any more to answer."""

    def __init__(self) -> None:
        self._sent: deque[Sent] = deque()
        self._changed = threading.Condition()
        self._is_closed = False

    def append(self, one: Sent) -> None:
        self._sent.append(one)

    def answered(self) -> Sent:
        with self._changed:
            self._changed.notify()
            return self._sent.popleft()

    def has_room(self) -> bool:
        """Waits until there is; False when it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or len(self._sent) < WINDOW)
            return not self._is_closed

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()


@dataclass
class Load:
    """Writes, truncates and reaps in blocks of many files; knows what may be read afterwards."""

    chance: random.Random
    acked: dict[tuple[int, int], int] = field(default_factory=dict)  # (ino, block) -> stamp
    sent: dict[tuple[int, int], set[int]] = field(default_factory=dict)  # may have happened too
    reaped: set[int] = field(default_factory=set)
    reaping: set[int] = field(default_factory=set)
    stamp: int = 0
    acks: int = 0

    BLOCK = 12_000
    BLOCKS = 40
    FILES = 8

    def requests(self, waiting: Window) -> Iterator[DataRequest]:
        ino_base = 1 + (self.acks + self.stamp) % 3
        while waiting.has_room():
            ino = self.chance.randrange(ino_base, ino_base + self.FILES)
            roll = self.chance.random()
            if ino in self.reaped | self.reaping:
                continue
            if roll < 0.9:
                block = self.chance.randrange(self.BLOCKS)
                self.stamp += 1
                self.sent.setdefault((ino, block), set()).add(self.stamp)
                waiting.append(("write", ino, block, self.stamp))
                yield DataRequest(write=self.write(ino, block))
            elif roll < 0.997:
                waiting.append(("commit", 0, 0, 0))
                yield DataRequest(commit=Commit())
            elif len(self.reaped) < 4:
                self.reaping.add(ino)
                waiting.append(("reap", ino, 0, 0))
                yield DataRequest(reap=Reap(items=[ReapItem(ino=ino, data_generation=1)]))

    def write(self, ino: int, block: int) -> Write:
        place = block * self.BLOCK
        return Write(
            ino=ino, data_generation=1, chunk=place // CHUNK_BYTES,
            offset=place % CHUNK_BYTES, data=self.contents(self.stamp),
        )  # fmt: skip

    def contents(self, stamp: int) -> bytes:
        return stamp.to_bytes(8, "big") * (self.BLOCK // 8)

    def run(self, client: Client) -> None:
        """Until the daemon is gone."""
        waiting = Window()
        call = client.stub.Session(self.requests(waiting), metadata=client.metadata)
        try:
            for reply in call:
                kind, ino, block, stamp = waiting.answered()
                assert reply.code in (Code.OK, Code.STALE_DATA), reply
                self.acks += 1
                if kind == "reap":
                    self.reaped.add(ino)
                elif kind == "write" and reply.code == Code.OK:
                    self.acked[ino, block] = stamp
                    older = {s for s in self.sent[ino, block] if s <= stamp}
                    self.sent[ino, block] -= older
        except grpc.RpcError:
            return
        finally:
            waiting.close()

    def verify(self, client: Client) -> None:
        for ino, block in set(self.acked) | set(self.sent):
            place = block * self.BLOCK
            reply = client.ask(
                read=Read(ino=ino, data_generation=1, offset=place, length=self.BLOCK)
            )
            if ino in self.reaped:
                assert reply.code == Code.STALE_DATA
                continue
            if reply.code == Code.STALE_DATA and ino in self.reaping:
                continue
            assert reply.code == Code.OK, reply
            data = reply.data.ljust(self.BLOCK, b"\0")
            stamp = int.from_bytes(data[:8], "big")
            assert data == self.contents(stamp), f"a mixture in inode {ino} block {block}"
            allowed = self.sent.get((ino, block), set()) | {self.acked.get((ino, block), 0)}
            assert stamp in allowed, (ino, block, stamp, allowed)
            self.acked[ino, block] = stamp  # one of them it was; from now on it is that one
        self.sent.clear()
        for ino in self.reaping - self.reaped:
            client.ask(reap=Reap(items=[ReapItem(ino=ino, data_generation=1)]))
            self.reaped.add(ino)


def restart(cluster: Cluster, failpoints: str) -> None:
    daemon = cluster.daemons[DATAD]
    daemon.kill()
    assert daemon.env is not None
    daemon.env[ENVIRONMENT] = failpoints
    cluster.start([DATAD])


def test_killed_at_every_failpoint(cluster: Cluster) -> None:
    load = Load(random.Random(20))
    for name, count in FAILPOINTS:
        restart(cluster, f"{name}=kill*{count}")
        with Client(cluster) as client:
            load.run(client)
        assert cluster.daemons[DATAD].wait() == -signal.SIGKILL, name
        restart(cluster, "")
        with Client(cluster) as client:
            load.verify(client)
            assert client.check() == [], name
    assert load.acks > 2000
    cluster.daemons[DATAD].stop()


def test_error_of_the_disk_ends_the_daemon(cluster: Cluster) -> None:
    load = Load(random.Random(3))
    for name in ("datad.append.after", "datad.sync.before", "datad.commit.before"):
        restart(cluster, f"{name}=error*3")
        with Client(cluster) as client:
            load.run(client)
        assert cluster.daemons[DATAD].wait() == 75, name
        restart(cluster, "")
        with Client(cluster) as client:
            load.verify(client)
            assert client.check() == []
    cluster.daemons[DATAD].stop()


def test_stops_cleanly_and_keeps_everything(cluster: Cluster) -> None:
    with Client(cluster) as client:
        client.ask(write=Write(ino=1, data_generation=1, data=b"kept"))
        client.ask(truncate=Truncate(ino=1, data_generation=1, size=3))
        epoch = client.ask(usage=Usage()).boot_epoch
    cluster.daemons[DATAD].stop()
    cluster.start([DATAD])
    with Client(cluster) as client:
        reply = client.ask(read=Read(ino=1, data_generation=1, length=100))
        assert reply.data == b"kep"
        assert reply.boot_epoch != epoch
    cluster.daemons[DATAD].stop()


def test_damaged_index_ends_with_78(cluster: Cluster) -> None:
    daemon = cluster.daemons[DATAD]
    daemon.stop()
    path = cluster.state_dir(DATAD) / "index" / "data.mdb"
    original = path.read_bytes()
    for damaged in (b"", original[:4096], bytes(len(original))):
        path.write_bytes(damaged)
        daemon.start()
        assert daemon.wait() == 78
        assert path.read_bytes() == damaged
        assert "Nothing was changed" in daemon.tail()
    path.write_bytes(original)
    cluster.start([DATAD])
    daemon.stop()


# ---- a full disk ---------------------------------------------------------------------------------


@contextmanager
def small_disk(path: Path, mib: int) -> Iterator[Path]:
    path.mkdir(parents=True)
    leftovers.directories.add(path)
    size = f"size={mib}m,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)
        path.rmdir()
        leftovers.directories.discard(path)


def fill(client: Client, inos: Iterator[int], contents: bytes) -> list[int]:
    """Files of one size until there is no room; which of them were acknowledged."""
    good: list[int] = []
    for ino in inos:
        reply = client.ask(write=Write(ino=ino, data_generation=1, data=contents))
        if reply.code:
            assert reply.code == Code.NO_SPACE, reply
            return good
        good.append(ino)
    raise AssertionError("it never ends")


def test_full_disk(tmp_path: Path) -> None:
    contents = random.Random(1).randbytes(64 * KIB)
    with small_disk(tmp_path / "disk", 64) as disk:
        cluster = Cluster(settings=SETTINGS, state_dirs={DATAD: disk / "state"})
        try:
            start(cluster)
            with Client(cluster) as client:
                good = fill(client, iter(range(1, 10_000)), contents)
                assert len(good) > 300
                # reaping every second file leaves every segment half full: compaction makes room
                gone = good[::2]
                items = [ReapItem(ino=ino, data_generation=1) for ino in gone]
                assert client.ask(reap=Reap(items=items)).code == Code.OK
                more: list[int] = []
                inos = itertools.count(20_000)

                def filled_up() -> bool:
                    more.extend(fill(client, inos, contents))
                    return len(more) > len(gone) // 2

                wait_until(filled_up, "half of what was reaped is room again", timeout_s=60)
                kept = [*good[1::2], *more]
                check_files(client, kept, contents)
                assert client.check() == []
            restart(cluster, "")
            with Client(cluster) as client:
                check_files(client, kept, contents)
                items = [ReapItem(ino=ino, data_generation=1) for ino in kept]
                assert client.ask(reap=Reap(items=items)).code == Code.OK
                wait_until(lambda: can_write(client, contents), "there is room again")
                assert client.check() == []
        finally:
            cluster.close()


def can_write(client: Client, contents: bytes) -> bool:
    return client.ask(write=Write(ino=10_000, data_generation=1, data=contents)).code == Code.OK


def check_files(client: Client, inos: list[int], contents: bytes) -> None:
    for ino in inos:
        reply = client.ask(read=Read(ino=ino, data_generation=1, length=len(contents)))
        assert reply.data == contents, (ino, reply.code, reply.detail)
