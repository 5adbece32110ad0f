"""The table [daemon] that every daemon's configuration has.

A daemon gives its own defaults in a subclass, so that a file that names one key keeps the others:

    @dataclass(frozen=True, slots=True)
    class MetadCommon(CommonConfig):
        state_dir: Path = Path("/var/lib/superfs/metad-1")
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from superfs.core.config import ConfigError
from superfs.core.errors import FsError
from superfs.daemon.logs import FORMATS, LEVELS
from superfs.daemon.metrics import split_address
from superfs.rpc.server import check_target

NODE_ID_MAX = (1 << 16) - 1
STOP_GRACE_S_MAX = 300.0


@dataclass(frozen=True, slots=True)
class CommonConfig:
    node_id: int = 1
    state_dir: Path = Path("/var/lib/superfs/daemon")
    listen: tuple[str, ...] = ("unix:/run/superfs/daemon.sock",)
    advertise: tuple[str, ...] = ()  # what the cluster map says; default: listen
    cluster: tuple[str, ...] = ("unix:/run/superfs/clusterd.sock",)
    key_file: Path = Path("/etc/superfs/cluster.key")
    metrics: str = "127.0.0.1:0"  # Prometheus over HTTP; "" is off
    log_level: str = "info"
    log_format: str = "json"  # or "console"
    failpoints: bool = False  # believe SUPERFS_FAILPOINTS; for tests
    stop_grace_s: float = 10.0

    def __post_init__(self) -> None:
        if not 1 <= self.node_id <= NODE_ID_MAX:
            raise ConfigError(f"node_id must be from 1 to {NODE_ID_MAX}, not {self.node_id}")
        if not self.state_dir.is_absolute():
            raise ConfigError(f"state_dir must be an absolute path, not {str(self.state_dir)!r}")
        if not self.listen:
            raise ConfigError("listen must name at least one address")
        for address in (*self.listen, *self.advertise, *self.cluster):
            try:
                check_target(address)
            except FsError as error:
                raise ConfigError(error.detail) from None
        if self.metrics:
            split_address(self.metrics)
        if self.log_level not in LEVELS:
            raise ConfigError(f"log_level must be one of {', '.join(LEVELS)}")
        if self.log_format not in FORMATS:
            raise ConfigError(f"log_format must be one of {', '.join(FORMATS)}")
        if not 0 <= self.stop_grace_s <= STOP_GRACE_S_MAX:
            raise ConfigError(f"stop_grace_s must be from 0 to {STOP_GRACE_S_MAX:g}")

    @property
    def advertised(self) -> tuple[str, ...]:
        return self.advertise or self.listen


class DaemonConfig(Protocol):
    """Any daemon's configuration: a frozen dataclass with this table among its own."""

    @property
    def daemon(self) -> CommonConfig: ...
