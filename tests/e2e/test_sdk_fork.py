"""The client in a child after fork()."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from harness.forking import busy, forked
from harness.waiting import wait_until
from superfs.client import ClientConfig, FileSystem
from superfs.client.clusterd import get_map
from superfs.rpc import forks, stream
from superfs.rpc.channel import open_channel
from superfs.v1 import cluster_pb2, cluster_pb2_grpc

if TYPE_CHECKING:
    from harness.cluster import Cluster


def config_of(cluster: Cluster) -> ClientConfig:
    return ClientConfig(cluster=(cluster.target("clusterd"),), token_file=cluster.token_file)


def test_use_after_fork_is_refused(cluster: Cluster) -> None:
    with FileSystem.connect(config_of(cluster)) as fs:
        fs.stat("/")

        def refused() -> bool:
            try:
                fs.stat("/")
            except RuntimeError as error:
                return "fork" in str(error)
            return False

        assert forked(refused) == 0
        fs.stat("/")


def test_another_connection_in_a_child_after_fork(cluster: Cluster) -> None:
    with FileSystem.connect(config_of(cluster)) as fs:
        fs.write_bytes("/before", b"x" * 100_000)

        def own() -> bool:
            with FileSystem.connect(config_of(cluster)) as own:
                same = own.read_bytes("/before") == b"x" * 100_000
                own.write_bytes("/child", b"y" * 100_000)
            return same

        assert forked(own) == 0
        assert fs.read_bytes("/child") == b"y" * 100_000
        fs.unlink("/before")
        fs.unlink("/child")


def test_forks_while_threads_of_the_parent_are_at_work(cluster: Cluster) -> None:
    with FileSystem.connect(config_of(cluster)) as fs:
        fs.mkdir("/busy")
        fs.write_bytes("/busy/before", b"x" * 100_000)

        def work(thread: int, number: int) -> None:
            path, data = f"/busy/{thread}.{number % 10}", f"{thread} {number} ".encode() * 2_000
            fs.write_bytes(path, data)
            assert fs.read_bytes(path) == data

        def own() -> bool:
            with FileSystem.connect(config_of(cluster)) as own:
                return own.read_bytes("/busy/before") == b"x" * 100_000

        with busy(work) as all_go_on:
            for _ in range(10):
                assert forked(own) == 0
                all_go_on()
        fs.remove_tree("/busy")


def test_what_is_synced_while_others_fork_without_end(cluster: Cluster) -> None:
    with FileSystem.connect(config_of(cluster)) as fs:

        def work(thread: int, number: int) -> None:
            with fs.open(f"/synced{thread}", "wb", buffering=0) as file:
                file.write(os.urandom(300_000))
                file.sync()  # type: ignore[attr-defined]

        with busy(work) as all_go_on:
            for _ in range(30):
                assert forked(lambda: True) == 0
            all_go_on()
        for thread in range(3):
            fs.unlink(f"/synced{thread}")


def test_forks_while_clusterd_does_not_answer(own_cluster: Cluster) -> None:
    config, frozen = config_of(own_cluster), own_cluster.clusterd.pid
    with FileSystem.connect(config) as fs:
        fs.write_bytes("/f", b"x" * 100_000)
        os.kill(frozen, signal.SIGSTOP)
        try:
            asked = get_map(config.cluster, fs.connection.session.token)
            for _ in range(2):
                assert forked(lambda: True) == 0
                assert fs.read_bytes("/f") == b"x" * 100_000
            assert asked.wait(10)
            assert asked.failed
        finally:
            os.kill(frozen, signal.SIGCONT)
        fs.write_bytes("/f", b"y" * 100_000)
        assert fs.read_bytes("/f") == b"y" * 100_000


@pytest.mark.allow_log("calls are under way")
def test_a_stream_that_a_fork_has_not_waited_for_goes_on(
    own_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "LIMIT_S", 0.2)
    monkeypatch.setattr(stream, "PATIENCE_S", 60.0)
    frozen = own_cluster.datad.pid
    with FileSystem.connect(config_of(own_cluster)) as fs:
        fs.write_bytes("/f", b"x" * 100_000)
        os.kill(frozen, signal.SIGSTOP)
        try:
            reader = threading.Thread(target=lambda: fs.write_bytes("/g", b"y" * 100_000))
            reader.start()
            streams = fs.connection.data_streams()
            wait_until(lambda: any(one._sent for one in streams), "something is asked")
            forked(lambda: True)
        finally:
            os.kill(frozen, signal.SIGCONT)
        reader.join(20)
        assert not reader.is_alive()
        assert fs.read_bytes("/g") == b"y" * 100_000


def test_what_is_of_the_parent_is_refused(cluster: Cluster) -> None:
    with open_channel([cluster.target("clusterd")]) as channel:
        stub = cluster_pb2_grpc.ClusterStub(channel)

        def refused() -> bool:
            for ask in (stub.GetMap, stub.GetMap.future):
                with contextlib.suppress(RuntimeError):
                    ask(cluster_pb2.GetMapRequest(), timeout=5)
                    return False
            channel.close()
            return True

        assert forked(refused) == 0
