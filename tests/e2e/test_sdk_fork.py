"""The client in a child after fork()."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from superfs.client import ClientConfig, FileSystem

if TYPE_CHECKING:
    from harness.cluster import Cluster


def config_of(cluster: Cluster) -> ClientConfig:
    return ClientConfig(cluster=(cluster.target("clusterd"),), token_file=cluster.token_file)


def test_use_after_fork_is_refused(cluster: Cluster) -> None:
    with FileSystem.connect(config_of(cluster)) as fs:
        fs.stat("/")
        pid = os.fork()
        if pid == 0:
            try:
                fs.stat("/")
            except RuntimeError as error:
                os._exit(0 if "fork" in str(error) else 2)
            os._exit(1)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        fs.stat("/")


def test_another_connection_in_a_child_after_fork(cluster: Cluster) -> None:
    with FileSystem.connect(config_of(cluster)) as fs:
        fs.write_bytes("/before", b"x" * 100_000)
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)  # a child that hangs dies of it
            with FileSystem.connect(config_of(cluster)) as own:
                same = own.read_bytes("/before") == b"x" * 100_000
                own.write_bytes("/child", b"y" * 100_000)
            os._exit(0 if same else 1)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert fs.read_bytes("/child") == b"y" * 100_000
        fs.unlink("/before")
        fs.unlink("/child")
