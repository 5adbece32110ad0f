"""The small parts of the daemon base: failpoints, clock, logs, metrics, sd_notify, locks."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import socket
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from superfs.core.config import ConfigError, from_dict
from superfs.core.errors import Code, FsError
from superfs.daemon import failpoints, logs, notify
from superfs.daemon.clock import ManualClock, SystemClock
from superfs.daemon.common import CommonConfig
from superfs.daemon.failpoints import Failpoints
from superfs.daemon.metrics import MetricsServer, RpcMetrics, new_registry
from superfs.daemon.notify import Notifier
from superfs.daemon.statedir import AlreadyRunning, StateDir, check_private, write_private
from superfs.daemon.world import exit_code_of

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_failpoints() -> None:
    points = Failpoints()
    points.hit("a")
    assert not points.armed
    points.arm("a=error*2, b=delay:20")
    points.hit("a")
    with pytest.raises(OSError, match="failpoint a"):
        points.hit("a")
    points.hit("a")
    points.hit("unknown")
    started = time.monotonic()
    points.hit("b")
    assert time.monotonic() - started >= 0.02
    points.arm("")
    points.hit("b")
    assert not points.armed


def test_a_failpoint_kills() -> None:
    child = os.fork()
    if child == 0:
        Failpoints(failpoints.parse("x=kill")).hit("x")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9


@pytest.mark.parametrize("text", ["a", "a=", "=kill", "a=kill:3", "a=delay", "a=error*0", "a=b"])
def test_failpoints_that_make_no_sense(text: str) -> None:
    with pytest.raises(ConfigError, match="cannot understand"):
        failpoints.parse(text)


def test_failpoints_need_the_configurations_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(failpoints.ENVIRONMENT, "a=kill")
    assert not failpoints.from_environment(enabled=False).armed
    assert failpoints.from_environment(enabled=True).armed


def test_clocks() -> None:
    manual, system = ManualClock(), SystemClock()
    wall, boot = manual.now_ns(), manual.monotonic()
    manual.advance(1.5)
    assert (manual.now_ns() - wall, manual.monotonic() - boot) == (1_500_000_000, 1.5)
    manual.set_wall(0)
    assert (manual.now_ns(), manual.monotonic()) == (0, boot + 1.5)
    assert abs(system.now_ns() - time.time_ns()) < 10**9
    assert system.monotonic() <= system.monotonic()


@pytest.fixture
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.usefixtures("root_logger")
def test_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    log = logs.configure("info", "json", daemon="toy")
    log.debug("not shown")
    log.info("shown", session_token="s3cret", name=b"\xff\x1b", n=1)
    try:
        raise KeyError("inside")
    except KeyError:
        logging.getLogger("other").exception("of %s", "a library")
    first, second = (json.loads(line) for line in output.getvalue().splitlines())
    assert (first["event"], first["daemon"], first["n"], first["level"]) == (
        "shown",
        "toy",
        1,
        "info",
    )
    assert "s3cret" not in output.getvalue()
    assert second["event"] == "of a library"
    assert "KeyError: 'inside'" in second["exception"]


def test_metrics_over_http() -> None:
    registry = new_registry()
    observe = RpcMetrics(registry)
    observe("/superfs.v1.Meta/Execute", Code.OK, 0.01)
    observe("/made/up", Code.UNAUTHENTICATED, 0.0)
    for _ in range(3):
        observe.received("/superfs.v1.Meta/Session")
    server = MetricsServer("127.0.0.1:0", registry)
    with urllib.request.urlopen(f"http://{server.address}/metrics") as reply:
        text = reply.read().decode()
    server.close()
    assert 'superfs_rpc_calls_total{code="OK",method="/superfs.v1.Meta/Execute"} 1.0' in text
    assert 'code="UNAUTHENTICATED",method="refused"' in text
    assert 'superfs_rpc_requests_total{method="/superfs.v1.Meta/Session"} 3.0' in text
    assert "/made/up" not in text
    assert "process_resident_memory_bytes" in text


def test_metrics_hold_up_no_end() -> None:
    """The server of the library looks twice a second whether it is to end."""
    took = []
    for _ in range(5):
        server = MetricsServer("127.0.0.1:0", new_registry())
        started = time.monotonic()
        server.close()
        took.append(time.monotonic() - started)
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(f"http://{server.address}/metrics")
    assert min(took) < 0.2


@pytest.mark.parametrize("abstract", [False, True])
def test_notify(tmp_path: Path, abstract: bool) -> None:
    name = f"@superfs-test-{os.getpid()}" if abstract else str(tmp_path / "n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name[1:] if abstract else name)
        notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000"})
        assert notifier.watchdog_s == 3
        notifier.ready("up")
        assert systemd.recv(100) == b"READY=1\nSTATUS=up"
        notifier.stopping("bye")
        assert systemd.recv(100) == b"STOPPING=1\nSTATUS=bye"
    notifier.ready("nobody listens any more")


def test_a_long_start_is_told_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "STARTING_S", 0.005)

    async def run(systemd: socket.socket) -> None:
        telling = asyncio.create_task(Notifier({"NOTIFY_SOCKET": str(name)}).starting())
        for _ in range(3):
            said = await asyncio.to_thread(systemd.recv, 100)
            assert said == b"EXTEND_TIMEOUT_USEC=15000"
        telling.cancel()

    name = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(name))
        systemd.settimeout(20)
        asyncio.run(run(systemd))


def test_nobody_to_notify() -> None:
    Notifier({}).ready("x")
    assert Notifier({"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1"}).watchdog_s == 0
    assert Notifier({"WATCHDOG_USEC": "often"}).watchdog_s == 0


def test_one_daemon_a_state_directory(tmp_path: Path) -> None:
    first, second = StateDir(tmp_path / "s"), StateDir(tmp_path / "s")
    first.create()
    first.acquire()
    with pytest.raises(AlreadyRunning, match="in use by another daemon"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_private_files(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(path, b"x")
    check_private(path)
    with pytest.raises(FileExistsError):
        write_private(path, b"y")
    assert path.read_bytes() == b"x"
    path.chmod(0o604)
    with pytest.raises(FsError, match="chmod 0600"):
        check_private(path)
    with pytest.raises(FsError, match="is not a directory"):
        check_private(path, directory=True)
    path.chmod(0o600)
    os.chown(path, 1234, -1)
    with pytest.raises(FsError, match="belongs to uid 1234"):
        check_private(path)
    with pytest.raises(FsError, match="does not exist"):
        check_private(tmp_path / "none")


@dataclass(frozen=True, slots=True)
class ToyCommon(CommonConfig):
    state_dir: Path = Path("/var/lib/superfs/toy")


@dataclass(frozen=True, slots=True)
class ToyConfig:
    daemon: ToyCommon = field(default_factory=ToyCommon)


def test_a_daemons_own_defaults_stay() -> None:
    config = from_dict(ToyConfig, {"daemon": {"node_id": 3, "listen": ["h:1"]}})
    assert config.daemon.state_dir == Path("/var/lib/superfs/toy")
    assert config.daemon.advertised == ("h:1",)
    with pytest.raises(ConfigError, match="absolute"):
        from_dict(ToyConfig, {"daemon": {"state_dir": "here"}})


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FsError(Code.DAMAGED), 78),
        (FsError(Code.WRONG_IDENTITY), 78),
        (FsError(Code.BAD_FORMAT), 78),
        (ConfigError("x"), 78),
        (FsError(Code.IO), 75),
        (OSError(5, "io"), 75),
        (OSError(28, "full"), 75),
        (OSError(98, "in use"), 1),
        (FsError(Code.UNAVAILABLE), 1),
        (RuntimeError(), 1),
    ],
)
def test_exit_status(error: Exception, status: int) -> None:
    assert exit_code_of(error) == status
