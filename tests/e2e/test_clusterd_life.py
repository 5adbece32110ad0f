"""clusterd as a process: how it starts and stops, and what it refuses to start with."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from harness.clusterd import Clusterd
from harness.waiting import wait_until
from superfs.core.errors import FsError
from superfs.core.tokens import Grant, Purpose, unarmor
from superfs.rpc.channel import open_channel, token_metadata
from superfs.v1 import cluster_pb2, cluster_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def fresh() -> Iterator[Clusterd]:
    one = Clusterd()
    assert one.run("--format").returncode == 0
    yield one
    one.close()


def stub_of(channel: grpc.Channel) -> Any:  # noqa: ANN401 - generated, without types
    return cluster_pb2_grpc.ClusterStub(channel)


def test_stop_and_start_keep_the_map(fresh: Clusterd) -> None:
    fresh.start()
    grant = token_metadata(fresh.authority().issue(Purpose.SESSION, Grant("daemon", "n")))
    node = cluster_pb2.Node(node_id=4, role=cluster_pb2.ROLE_DATA, addresses=["a:1"])
    with open_channel([fresh.target]) as channel:
        before = stub_of(channel).Register(cluster_pb2.RegisterRequest(node=node), metadata=grant)
    fresh.stop(signal.SIGKILL)
    fresh.log.unlink()
    fresh.start()
    with open_channel([fresh.target]) as channel:
        get = stub_of(channel).GetMap
        assert get(cluster_pb2.GetMapRequest(), metadata=grant) == before
        same = get(cluster_pb2.GetMapRequest(known_epoch=before.epoch), metadata=grant)
        assert (same.epoch, len(same.nodes)) == (before.epoch, 0)
    assert fresh.stop(signal.SIGINT) == 0
    assert not (fresh.dir / "run" / "clusterd.sock").exists()
    assert not fresh.handshake.exists()


def test_two_daemons_never_share_a_state_directory(fresh: Clusterd) -> None:
    fresh.start()
    second = fresh.run()
    assert second.returncode == 1
    assert "in use by another daemon" in second.stderr
    assert fresh.stop() == 0


def test_systemd_is_told(fresh: Clusterd) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(fresh.dir / "notify"))
        systemd.settimeout(20)
        fresh.start(NOTIFY_SOCKET=str(fresh.dir / "notify"), WATCHDOG_USEC="600000")
        told: list[str] = []

        def heard(word: str) -> bool:
            told.append(systemd.recv(1000).decode())
            return word in told[-1]

        wait_until(lambda: heard("READY=1"), "READY", timeout_s=20)
        assert f"STATUS=serving on {fresh.target}" in told[-1]
        wait_until(lambda: heard("WATCHDOG=1"), "WATCHDOG", timeout_s=20)
        assert fresh.stop() == 0
        wait_until(lambda: heard("STOPPING=1"), "STOPPING", timeout_s=20)


def test_an_io_error_at_a_commit_ends_it(fresh: Clusterd) -> None:
    fresh.configure("failpoints = true\n")
    fresh.start(SUPERFS_FAILPOINTS="clusterd.commit.before=error")
    grant = token_metadata(fresh.authority().issue(Purpose.SESSION, Grant("daemon", "n")))
    node = cluster_pb2.Node(node_id=4, role=cluster_pb2.ROLE_DATA, addresses=["a:1"])
    with open_channel([fresh.target]) as channel, pytest.raises(grpc.RpcError):
        stub_of(channel).Register(cluster_pb2.RegisterRequest(node=node), metadata=grant)
    assert fresh.process is not None
    assert fresh.process.wait(20) == 75
    assert fresh.events()[-1]["event"] == "fatal"


# ---- refusals


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[daemon]\ncolour = 1\n", "unknown key daemon.colour"),
        ("[deamon]\n", "unknown key deamon"),
        ('[daemon]\nnode_id = "1"\n', "daemon.node_id must be a int"),
        ("[daemon]\nnode_id = 0\n", "node_id must be from 1"),
        ("[daemon]\nlisten = []\n", "listen must name"),
        ('[daemon]\nlisten = ["nowhere"]\n', "expected unix:/PATH or HOST:PORT"),
        ('[daemon]\nlog_level = "loud"\n', "log_level must be one of"),
        ('[daemon]\nmetrics = "x"\n', "metrics must be"),
        ("[handshake]\nsession_token_s = 1\n", "session_token_s must be from"),
        ("[daemon\n", "not valid TOML"),
    ],
)
def test_a_bad_configuration(fresh: Clusterd, text: str, says: str) -> None:
    fresh.config.write_text(text)
    for options in ((), ("--check-config",)):
        done = fresh.run(*options)
        assert done.returncode == 78
        assert says in done.stderr
        assert str(fresh.config) in done.stderr
        assert "Traceback" not in done.stderr


def test_other_refusals_of_a_start(fresh: Clusterd) -> None:
    def refusal(code: int = 78) -> str:
        done = fresh.run()
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    fresh.key.chmod(0o640)
    assert "chmod 0600" in refusal()
    fresh.key.chmod(0o600)
    good = fresh.key.read_text()
    fresh.key.write_text("short")
    assert "64 hexadecimal digits" in refusal()
    fresh.key.write_text(good)
    (fresh.dir / "state").chmod(0o755)
    assert "chmod 0700" in refusal()
    (fresh.dir / "state").chmod(0o700)
    data = fresh.dir / "state" / "db" / "data.mdb"
    os.truncate(data, 4096)
    assert "has only 4096 bytes" in refusal()
    shutil.rmtree(fresh.dir / "state")
    assert "--format" in refusal()
    assert not (fresh.dir / "state").exists()
    fresh.config.unlink()
    assert "no such file" in refusal()
    assert fresh.run("--nonsense").returncode == 2


def test_formatting_twice_changes_nothing(fresh: Clusterd) -> None:
    before = (fresh.dir / "state" / "identity").read_bytes(), fresh.key.read_bytes()
    done = fresh.run("--format")
    assert done.returncode == 78
    assert "formatted already" in done.stderr
    assert before == ((fresh.dir / "state" / "identity").read_bytes(), fresh.key.read_bytes())


def test_issuing_tokens(fresh: Clusterd) -> None:
    token = fresh.issue(
        "ann", "user", "--uid", "7", "--gid", "8", "--groups", "9,10", "--read-only"
    )
    grant = fresh.authority().verify(Purpose.FILE, unarmor(token), time.time_ns())
    assert grant == Grant("user", "ann", 7, 8, (9, 10), read_only=True)
    over = fresh.issue("short", "host", "--days", "0.00000001")
    with pytest.raises(FsError):
        fresh.authority().verify(Purpose.FILE, unarmor(over), time.time_ns() + 10**9)
    again = fresh.run("--issue-token", "host", "--name", "x", "--out", str(fresh.dir / "ann"))
    assert again.returncode == 78
    assert (fresh.dir / "ann").read_bytes() == token
    for wrong in (["host"], ["user", "--name", "x", "--out", "/dev/null/x"]):
        assert fresh.run("--issue-token", *wrong).returncode == 2
