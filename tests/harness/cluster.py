"""A whole cluster in a temporary directory: one clusterd, one metad, any number of datads."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from harness import leftovers
from harness.daemon import BIN, Daemon
from harness.waiting import wait_until
from superfs.cluster import main as cluster_main
from superfs.cluster.config import ClusterdConfig
from superfs.core import config as configuration
from superfs.core.tokens import Authority, Grant, Purpose, armor, parse_key
from superfs.daemon.keyfile import make_key, read_key
from superfs.daemon.world import World
from superfs.data import main as data_main
from superfs.data.config import DatadConfig
from superfs.meta import main as meta_main
from superfs.meta.config import MetadConfig

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from superfs.daemon.common import CommonConfig

Tables = dict[str, dict[str, Any]]


def _format_clusterd(config_file: Path) -> None:
    config = configuration.load(ClusterdConfig, config_file)
    make_key(config.daemon.key_file)
    config.daemon.state_dir.mkdir(mode=0o700, exist_ok=True)
    cluster_main.format_store(config, _world(config.daemon))


def _format_metad(config_file: Path) -> None:
    config = configuration.load(MetadConfig, config_file)
    config.daemon.state_dir.mkdir(mode=0o700, exist_ok=True)
    meta_main.format_store(config, _world(config.daemon))


def _format_datad(config_file: Path) -> None:
    config = configuration.load(DatadConfig, config_file)
    config.daemon.state_dir.mkdir(mode=0o700, exist_ok=True)
    data_main.format_store(config, _world(config.daemon))


def _world(common: CommonConfig) -> World:
    return World(Authority(read_key(common.key_file)))


FORMATS = {"clusterd": _format_clusterd, "metad": _format_metad, "datad": _format_datad}


def toml(tables: Tables) -> str:
    lines = []
    for table, values in tables.items():
        lines.append(f"[{table}]")
        for key, value in values.items():
            if isinstance(value, bool):
                text = "true" if value else "false"
            elif isinstance(value, (list, tuple)):
                text = "[" + ", ".join(f'"{item}"' for item in value) + "]"
            elif isinstance(value, (int, float)):
                text = repr(value)
            else:
                text = f'"{value}"'
            lines.append(f"{key} = {text}")
    return "\n".join(lines) + "\n"


class Cluster:
    """`settings` adds to or overrides the daemons' TOML: {"metad": {"meta": {"key": value}}}.

    `state_dirs` puts a daemon's state elsewhere (a small disk): {"metad-1": path}.
    """

    def __init__(
        self,
        *,
        data: int = 1,
        settings: dict[str, Tables] | None = None,
        state_dirs: dict[str, Path] | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="sfs", dir="/tmp"))
        leftovers.directories.add(self.dir)
        self.dir.chmod(0o711)  # other users walk through it to a mount point
        self.settings = settings or {}
        self.state_dirs = state_dirs or {}
        self.env = {**os.environ, **(env or {})}
        self.key_file = self.dir / "cluster.key"
        self.token_file = self.dir / "token"
        for name in ("config", "run", "log"):
            (self.dir / name).mkdir(mode=0o700)
        self.daemons: dict[str, Daemon] = {}
        self._add("clusterd", "clusterd", 1)
        for node in range(2, 2 + data):
            self._add(f"datad-{node}", "datad", node)
        self._add("metad-1", "metad", 1)

    # ---- the parts

    @property
    def clusterd(self) -> Daemon:
        return self.daemons["clusterd"]

    @property
    def metad(self) -> Daemon:
        return self.daemons["metad-1"]

    @property
    def datad(self) -> Daemon:
        return self.daemons["datad-2"]

    def socket(self, name: str) -> Path:
        return self.dir / "run" / f"{name}.sock"

    def target(self, name: str) -> str:
        return f"unix:{self.socket(name)}"

    def state_dir(self, name: str) -> Path:
        return self.state_dirs.get(name, self.dir / name)

    def config_file(self, name: str) -> Path:
        return self.dir / "config" / f"{name}.toml"

    def _add(self, name: str, program: str, node_id: int) -> None:
        daemon = {
            "node_id": node_id,
            "state_dir": self.state_dir(name),
            "listen": [self.target(name)],
            "cluster": [self.target("clusterd")],
            "key_file": self.key_file,
            "failpoints": True,
        }
        tables: Tables = {"daemon": daemon}
        for table, values in self.settings.get(program, {}).items():
            tables.setdefault(table, {}).update(values)
        self.config_file(name).write_text(toml(tables))
        command = [str(BIN / f"superfs-{program}"), "--config", str(self.config_file(name))]
        self.daemons[name] = Daemon(name, command, self.dir / "log" / f"{name}.log", env=self.env)

    # ---- life

    def create(self) -> Cluster:
        """Every daemon's empty state, the key and a token, as `superfs up` makes them once; the
        others learn the cluster's id from clusterd, so it runs by then."""
        self.format("clusterd")
        self.start(["clusterd"])
        for name in self.daemons:
            if name != "clusterd":
                self.format(name)
        self.start()
        authority = Authority(parse_key(self.key_file.read_text()))
        self.token_file.touch(0o600)
        self.token_file.write_bytes(armor(authority.issue(Purpose.FILE, Grant("host", "tests"))))
        return self

    def format(self, name: str) -> None:
        """In this process, which takes a tenth of the time. `--format` has tests of its own."""
        umask = os.umask(0o077)
        try:
            FORMATS[name.split("-")[0]](self.config_file(name))
        finally:
            os.umask(umask)

    def start(self, names: Iterable[str] | None = None) -> Cluster:
        """In this order: who serves is in the cluster map that the next one gets."""
        for name in names or self.daemons:
            if not self.daemons[name].running:
                self.daemons[name].start()
                self.wait_healthy(name)
        return self

    def wait_healthy(self, name: str, timeout_s: float = 20.0) -> None:
        """Until the daemon's health service says SERVING; its death is a failure at once."""
        daemon = self.daemons[name]

        def healthy() -> bool:
            assert daemon.running, f"{name} ended at start: {daemon.status}\n{daemon.tail()}"
            return self.serves(name)

        wait_until(healthy, lambda: f"{name} serves\n{daemon.tail()}", timeout_s=timeout_s)

    def serves(self, name: str) -> bool:
        if not self.socket(name).exists():
            return False
        with grpc.insecure_channel(self.target(name)) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=2.0)
            except grpc.RpcError:
                return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    def restart(self, name: str, *, kill: bool = False) -> None:
        daemon = self.daemons[name]
        daemon.kill() if kill else daemon.stop()
        self.start([name])

    def stop(self) -> None:
        """Against the order of starting; every daemon must end cleanly."""
        others = [daemon for daemon in self.daemons.values() if daemon is not self.clusterd]
        for daemon in others:
            daemon.end()
        for daemon in others:
            daemon.ended()
        self.clusterd.stop()

    def close(self) -> None:
        """Whatever happened: no process, no mount, no file is left."""
        for daemon in reversed(self.daemons.values()):
            daemon.kill()
        shutil.rmtree(self.dir)
        leftovers.directories.discard(self.dir)

    def __enter__(self) -> Cluster:
        try:
            return self.create()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.stop()
        finally:
            self.close()

    # ---- what it says

    def trouble(self, allowed: Iterable[str] = ()) -> list[str]:
        """Log lines since the last call that warn, and that none of the patterns allows."""
        return [line for daemon in self.daemons.values() for line in daemon.trouble(allowed)]

    def logs(self) -> str:
        return "\n".join(daemon.tail() for daemon in self.daemons.values())
