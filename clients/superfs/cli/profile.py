"""`superfs profile`: which requests a workload makes on a mount, and which of them are slow."""

from __future__ import annotations

import enum
import heapq
import time
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any

import typer

from superfs.cli.options import JsonOption  # noqa: TC001 - as well
from superfs.cli.output import CliError, console, print_json

if TYPE_CHECKING:
    from collections.abc import Iterable

SECONDS_MAX = 3600.0
SLOWEST = 10
TOP = 20
DURATIONS_MAX = 100_000
"""Of each group: the quantiles are of the first so many."""


class By(enum.StrEnum):
    OPERATION = "operation"
    PROCESS = "process"
    DIRECTORY = "directory"


def profile(
    mountpoint: Annotated[Path, typer.Argument(metavar="MOUNTPOINT", show_default=False)],
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="N", min=0.1, max=SECONDS_MAX, help="How long.")
    ] = 10.0,
    by: Annotated[By, typer.Option("--by", help="What requests are added up by.")] = By.OPERATION,
    top: Annotated[int, typer.Option("--top", min=1, help="So many rows.")] = TOP,
    as_json: JsonOption = False,
) -> None:
    """Record the requests of the kernel to a mount for a while, and add them up. Ctrl-C ends it
    early. While nobody does this, it costs the mount nothing."""
    from superfs.cli.windows import open_at

    window = open_at(mountpoint)
    summary = Summary(by)
    began = time.monotonic()
    try:
        for message in window.watch():
            summary.add(message)
            if time.monotonic() - began >= seconds:
                break
        else:
            raise CliError(f"the mount at {window.mountpoint} has ended")
    except KeyboardInterrupt:
        pass
    except TimeoutError:
        raise CliError(f"the mount at {window.mountpoint} does not answer") from None
    finally:
        window.close()
    found = summary.result(window.mountpoint, time.monotonic() - began, top)
    if as_json:
        print_json(found)
    else:
        from superfs.cli.statsview import profile_view

        console().print(profile_view(found))


class Group:
    def __init__(self) -> None:
        self.durations_ns: list[int] = []
        self.count = self.total_ns = self.errors = self.bytes = 0

    def add(self, access: dict[str, Any]) -> None:
        self.count += 1
        self.total_ns += access["duration_ns"]
        self.errors += access["errno"] != 0
        self.bytes += access["bytes"]
        if len(self.durations_ns) < DURATIONS_MAX:
            self.durations_ns.append(access["duration_ns"])

    def result(self, name: str, seconds: float) -> dict[str, Any]:
        ordered = sorted(self.durations_ns)
        return {
            "name": name,
            "count": self.count,
            "per_s": self.count / seconds,
            "errors": self.errors,
            "bytes": self.bytes,
            "total_us": self.total_ns / 1000,
            "mean_us": self.total_ns / self.count / 1000,
            "p50_us": ordered[len(ordered) // 2] / 1000,
            "p99_us": ordered[len(ordered) * 99 // 100] / 1000,
            "max_us": ordered[-1] / 1000,
        }


class Summary:
    """Of what a mount tells a watcher."""

    def __init__(self, by: By) -> None:
        self._by = by
        self._groups: dict[str, Group] = {}
        self._slowest: list[tuple[int, int, dict[str, Any]]] = []
        self._seen = 0
        self._lost = 0

    def add(self, message: dict[str, Any]) -> None:
        self._lost = message["lost"]
        paths = message["paths"]
        for access in message["accesses"]:
            access["directory"] = paths[str(access["directory"])]
            self._groups.setdefault(self._key(access), Group()).add(access)
            self._seen += 1
            item = (access["duration_ns"], self._seen, access)
            if len(self._slowest) < SLOWEST:
                heapq.heappush(self._slowest, item)
            else:
                heapq.heappushpop(self._slowest, item)

    def _key(self, access: dict[str, Any]) -> str:
        if self._by is By.PROCESS:
            return f"{access['command']} ({access['pid']})"
        return str(access[self._by.value])

    def result(self, mountpoint: str, seconds: float, top: int) -> dict[str, Any]:
        groups = (group.result(name, seconds) for name, group in self._groups.items())
        return {
            "mountpoint": mountpoint,
            "seconds": seconds,
            "by": self._by.value,
            "requests": self._seen,
            "lost": self._lost,
            "groups": sorted(groups, key=lambda group: -group["total_us"])[:top],
            "slowest": _shown(access for _, _, access in sorted(self._slowest, reverse=True)),
        }


def _shown(accesses: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = ("operation", "directory", "name", "inode", "pid", "command", "uid", "errno", "bytes")
    return [
        {key: access[key] for key in kept} | {"duration_us": access["duration_ns"] / 1000}
        for access in accesses
    ]
