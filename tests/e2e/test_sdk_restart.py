"""Daemons that are killed, stopped or asleep under a client at work: it rides them out."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from harness.waiting import wait_until
from superfs.client import ClientConfig, FileSystem, clusterd
from superfs.client.connection import Connection
from superfs.core.tokens import Authority, Purpose, parse_key
from superfs.rpc.pending import run_sync

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.cluster import Cluster

MIB = 1 << 20
pytestmark = pytest.mark.allow_log("connect", "grace", "written bytes have to wait")


def connect(cluster: Cluster, retry_timeout_s: float = 30.0) -> FileSystem:
    return FileSystem.connect(config_of(cluster, retry_timeout_s))


def config_of(cluster: Cluster, retry_timeout_s: float = 30.0) -> ClientConfig:
    return ClientConfig(
        cluster=(cluster.target("clusterd"),),
        token_file=cluster.token_file,
        retry_timeout_s=retry_timeout_s,
    )


def test_who_writes_nothing_to_a_data_daemon_does_not_miss_it(own_cluster: Cluster) -> None:
    """The client has greeted it, for it is on this host."""
    own_cluster.daemons["datad-2"].kill()
    with connect(own_cluster, retry_timeout_s=2.0) as fs:
        wait_until(fs.connection.data_streams, "a greeting")
        fs.write_bytes("/small", b"for the metadata daemon alone")
        run_sync(fs.connection.data.commit())
    own_cluster.start()


class Workers:
    """Threads that repeat a job until told to stop; an error in one is the test's."""

    def __init__(self, job: Callable[[int, int], None], count: int = 3) -> None:
        self._job = job
        self._stop = threading.Event()
        self.done = [0] * count
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(count)]

    def _run(self, number: int) -> None:
        try:
            while not self._stop.is_set():
                self._job(number, self.done[number])
                self.done[number] += 1
        except BaseException as error:
            self._errors.append(error)

    def __enter__(self) -> Workers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def go_on(self, more: int = 5) -> None:
        """Until each has done so much more."""
        targets = [done + more for done in self.done]

        def reached() -> bool:
            assert not self._errors, self._errors
            return all(d >= t for d, t in zip(self.done, targets, strict=True))

        wait_until(reached, "every worker goes on", timeout_s=60)


@pytest.mark.slow
@pytest.mark.parametrize("kill", [True, False])
def test_metad_restarts_under_load(own_cluster: Cluster, kill: bool) -> None:
    """Every create, exclusive and not idempotent by itself, happens exactly once."""
    with connect(own_cluster) as fs:

        def job(number: int, turn: int) -> None:
            with fs.open(f"/{number}-{turn}", "xb") as file:
                file.write(b"%d-%d" % (number, turn))
            fs.rename(f"/{number}-{turn}", f"/done-{number}-{turn}")

        with Workers(job) as workers:
            for _ in range(3):
                workers.go_on(5)
                own_cluster.restart("metad-1", kill=kill)
            workers.go_on(5)
        names = set(fs.listdir("/"))
        for number, done in enumerate(workers.done):
            for turn in range(done):
                name = f"done-{number}-{turn}"
                assert name in names
                assert fs.read_bytes("/" + name) == b"%d-%d" % (number, turn)
        assert len(names) == sum(workers.done)


@pytest.mark.slow
@pytest.mark.parametrize("kill", [True, False])
def test_datad_restarts_under_load(own_cluster: Cluster, kill: bool) -> None:
    """What was written and fsynced is there, and what is still open goes on."""
    with connect(own_cluster) as fs:
        with fs.open_raw("/long", os.O_RDWR | os.O_CREAT) as file:

            def job(number: int, turn: int) -> None:
                data = bytes([turn % 251]) * (200_000 + number)
                fs.write_bytes(f"/{number}-{turn}", data)
                assert fs.read_bytes(f"/{number}-{turn}") == data

            written = 0
            with Workers(job, 2) as workers:
                for _ in range(3):
                    workers.go_on(3)
                    for _ in range(5):
                        file.write(os.urandom(1) * MIB)
                        written += MIB
                    own_cluster.restart("datad-2", kill=kill)
                    file.sync()
                workers.go_on(3)
            file.seek(0)
            pieces = [file.read(MIB) for _ in range(written // MIB)]
            assert all(len(set(piece)) == 1 and len(piece) == MIB for piece in pieces)
        for number, done in enumerate(workers.done):
            for turn in range(done):
                found = fs.read_bytes(f"/{number}-{turn}")
                assert found == bytes([turn % 251]) * (200_000 + number)


@pytest.mark.slow
def test_open_and_unlinked_survives_a_restart_of_metad(own_cluster: Cluster) -> None:
    with connect(own_cluster) as fs:
        with fs.open("/gone", "w+b", buffering=0) as file:
            file.write(b"still here")
            file.flush()
            fs.unlink("/gone")
            own_cluster.restart("metad-1", kill=True)
            file.write(b", and more")
            file.seek(0)
            assert file.read() == b"still here, and more"
        assert fs.listdir("/") == []


@pytest.mark.slow
def test_clusterd_is_not_needed_by_who_is_in(own_cluster: Cluster) -> None:
    with connect(own_cluster) as fs:
        fs.write_bytes("/before", b"x")
        own_cluster.clusterd.kill()
        fs.write_bytes("/f", bytes(100_000))
        assert fs.read_bytes("/f") == bytes(100_000)
        own_cluster.start(["clusterd"])
        own_cluster.restart("metad-1", kill=True)
        assert fs.read_bytes("/f") == bytes(100_000)


@pytest.mark.slow
def test_an_outage_beyond_the_budget_is_an_error_and_not_the_end(own_cluster: Cluster) -> None:
    with connect(own_cluster, retry_timeout_s=1.0) as fs:
        fs.write_bytes("/f", b"x")
        own_cluster.metad.kill()
        started = time.monotonic()
        with pytest.raises(OSError, match=r".") as caught:
            fs.stat("/f")
        assert caught.value.errno in (errno.EIO, errno.ETIMEDOUT)
        assert 0.9 <= time.monotonic() - started < 10
        own_cluster.start(["metad-1"])
        assert fs.read_bytes("/f") == b"x"


@pytest.mark.slow
def test_a_daemon_that_sleeps_is_waited_for(own_cluster: Cluster) -> None:
    with connect(own_cluster) as fs:
        fs.write_bytes("/f", b"x")
        own_cluster.metad.signal(signal.SIGSTOP)
        seen: list[bytes] = []
        reader = threading.Thread(target=lambda: seen.append(fs.read_bytes("/f")))
        reader.start()
        reader.join(0.3)
        assert reader.is_alive()
        own_cluster.metad.signal(signal.SIGCONT)
        reader.join(20)
        assert seen == [b"x"]


@pytest.mark.slow
def test_a_restart_of_datad_brings_nothing_back(own_cluster: Cluster) -> None:
    """What a client has written and not seen committed may be old when the daemon comes back."""
    with connect(own_cluster) as first, connect(own_cluster) as second:
        for path in ("/over", "/cut"):
            first.write_bytes(path, b"a" * MIB)
        with second.open_raw("/over", os.O_RDWR) as file:
            file.write(b"b" * MIB)
            file.sync()
        second.truncate("/cut", 100_000)
        own_cluster.restart("datad-2", kill=True)
        first.write_bytes("/other", b"c" * MIB)  # by now it has met the new daemon
        second.truncate("/cut", MIB)
        assert second.read_bytes("/over") == b"b" * MIB
        assert second.read_bytes("/cut") == b"a" * 100_000 + bytes(MIB - 100_000)


def test_a_token_that_expires_under_open_streams(cluster: Cluster) -> None:
    """The daemons end them; nobody at work notices."""
    authority = Authority(parse_key(cluster.key_file.read_text()))
    config = config_of(cluster)
    admitted = clusterd.admit(config.cluster, clusterd.read_token(config.token_file))
    with FileSystem(Connection(config, admitted)) as fs:  # it has not said anything yet
        session = fs.connection.session
        grant = authority.verify(Purpose.SESSION, session.token, time.time_ns())
        soon = replace(grant, expires_ns=time.time_ns() + 500_000_000)
        session.token = short = authority.issue(Purpose.SESSION, soon)

        def job(number: int, done: int) -> None:
            data = os.urandom(9000 + done)
            fs.write_bytes(f"/expires-{number}", data)
            assert fs.read_bytes(f"/expires-{number}") == data

        with Workers(job):
            wait_until(
                lambda: [bool(s.reconnects) for s in fs.connection._streams()] == [True, True],
                "both streams connect again",
                timeout_s=20,
            )
        assert fs.connection.session is session
        assert session.token != short
        for number in range(3):
            fs.unlink(f"/expires-{number}")
