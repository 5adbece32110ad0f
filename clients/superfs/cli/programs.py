"""The programs of an embedded cluster: how each is started, when it is ready, how it is stopped."""

from __future__ import annotations

import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from superfs.cli import mounts
from superfs.cli.output import EXIT_CONFIG, CliError

if TYPE_CHECKING:
    from collections.abc import Callable

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
    prepare: Callable[[], None] = _nothing  # before every start but the first
    stage: int = 0  # a stage starts when the one before it is ready
    stop_grace_s: float = DAEMON_GRACE_S
    on_purpose: Callable[[int | None], bool] = _never  # whether somebody wanted it to end (status)


def script(name: str) -> str:
    """The program as it was installed beside this one."""
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.exists():
        raise CliError(
            f"there is no {path}: SuperFS is not installed as a whole",
            hint="install it again: pip install superfs (or `make install` in its source)",
            status=EXIT_CONFIG,
        )
    return str(path)


def of_home(home: Home, mount_point: Path | None) -> list[Program]:
    """In the order of starting; stopped in the opposite order."""
    programs = [_daemon(home, name, stage=0 if name == "clusterd" else 1) for name in _order(home)]
    if mount_point is not None:
        programs.append(_mount(home, mount_point))
    return programs


def _order(home: Home) -> list[str]:
    """Data before metadata: metad finishes removals at the datads, so it must be stopped first."""
    names = home.daemon_names()
    return sorted(names, key=lambda n: ("clusterd", "datad", "metad").index(n.partition("-")[0]))


def _daemon(home: Home, name: str, *, stage: int) -> Program:
    kind = name.partition("-")[0]
    argv = (script(f"superfs-{kind}"), "--config", str(home.config_file(name)))
    socket = home.socket(name)
    return Program(
        name,
        argv,
        home.log_file(name),
        stage=stage,
        ready=lambda: is_serving(f"unix:{socket}", socket),
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
        prepare=clear,
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
