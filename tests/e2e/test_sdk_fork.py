"""The client in a child after fork()."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.forking import busy, forked
from superfs.client import ClientConfig, FileSystem

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
