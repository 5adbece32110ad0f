"""The programs of an embedded cluster: how each is started, when it is ready, how it is stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from superfs.cli import mounts
from superfs.cli.formatting import format_missing, own_root
from superfs.cli.installed import script
from superfs.cli.output import say
from superfs.cli.token import ensure_host_token

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from superfs.cli.home import Home

HEALTH_TIMEOUT_S = 2.0
DAEMON_GRACE_S = 20.0
MOUNT_GRACE_S = 60.0
"""A mount writes its dirty data back first."""


def _nothing() -> None:
    pass


def _never(_status: int | None) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Program:
    name: str
    argv: tuple[str, ...]
    log: Path
    ready: Callable[[], bool]  # polled until true; must come back soon
    before: Callable[[], None] = _nothing  # before the first start; the stage before is ready
    clear: Callable[[], None] = _nothing  # takes away what a killed one may have left
    stage: int = 0  # a stage starts when the one before it is ready
    stop_grace_s: float = DAEMON_GRACE_S
    on_purpose: Callable[[int | None], bool] = _never  # whether somebody wanted it to end (status)


def of_home(
    home: Home, mount_point: Path | None, tell: Callable[[str], None] = say
) -> list[Program]:
    """In the order of starting; stopped in the opposite order."""
    programs = [_daemon(home, name, tell) for name in _order(home)]
    if mount_point is not None:
        programs.append(_mount(home, mount_point))
    return programs


def _order(home: Home) -> list[str]:
    """Data before metadata: metad finishes removals at the datads, so it must be stopped first."""
    names = home.daemon_names()
    return sorted(names, key=lambda n: ("clusterd", "datad", "metad").index(n.partition("-")[0]))


def _daemon(home: Home, name: str, tell: Callable[[str], None]) -> Program:
    kind = name.partition("-")[0]
    socket = home.socket(name)

    def format_once() -> None:
        # Not all at once: the others learn the cluster's id from clusterd when they are formatted.
        format_missing(home, name, tell)
        if kind == "clusterd":
            ensure_host_token(home)

    return Program(
        name,
        (script(f"superfs-{kind}"), "--config", str(home.config_file(name))),
        home.log_file(name),
        ready=lambda: is_serving(f"unix:{socket}", socket),
        before=format_once,
        stage=0 if name == "clusterd" else 1,
    )


def _mount(home: Home, point: Path) -> Program:
    def mounted() -> bool:
        # The table only: a stat would wait for metad. A dead mount has been cleared before.
        found = mounts.mounted_at(point)
        return found is not None and found.is_superfs

    def clear() -> None:
        """A mount that was killed leaves a dead mount point behind."""
        found = mounts.mounted_at(point)
        if found is not None and found.is_superfs and mounts.is_dead(point):
            mounts.unmount(point, lazy=True)

    def unmounted(status: int | None) -> bool:
        return status == 0 or (status is None and mounts.mounted_at(point) is None)

    return Program(
        "mount",
        (script("superfs-mount"), "--config", str(home.config_file("mount")), str(point)),
        home.log_file("mount"),
        ready=mounted,
        before=lambda: own_root(home),
        clear=clear,
        stage=2,
        stop_grace_s=MOUNT_GRACE_S,
        on_purpose=unmounted,
    )


def is_serving(address: str, socket: Path | None = None) -> bool:
    """What the standard health service of a daemon says."""
    if socket is not None and not socket.exists():
        return False
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from superfs.rpc.channel import open_channel

    with open_channel([address]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=HEALTH_TIMEOUT_S)
        except grpc.RpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
