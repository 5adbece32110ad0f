"""`superfs stats`: what mounts and daemons are doing, every moment."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from superfs.cli.options import ClusterOption, DirOption, JsonOption, Target, TokenOption, target_of
from superfs.cli.output import EXIT_FAILED, CliError, console, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.cli.admin import Admin
    from superfs.cli.daemonrates import Metrics
    from superfs.cli.windows import Window

INTERVAL_MIN_S, INTERVAL_MAX_S = 0.1, 3600.0


def stats(
    where: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MOUNTPOINT|DIR]",
            help="A mount, or the directory of a cluster; default: all mounts of this machine.",
            show_default=False,
        ),
    ] = None,
    interval_s: Annotated[
        float,
        typer.Option(
            "--interval", metavar="S", min=INTERVAL_MIN_S, max=INTERVAL_MAX_S, help="Seconds."
        ),
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="One interval, then end.")] = False,
    directory: DirOption = None,
    cluster: ClusterOption = None,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show requests, latencies, cache hits, messages, leases and memory, live.

    JSON: one object a line for each interval."""
    seen = _choose(where, directory, cluster, token_file)
    try:
        reports = _reports(seen, interval_s)
        if as_json:
            for report in reports:
                sys.stdout.write(json.dumps(report, sort_keys=True) + "\n")
                sys.stdout.flush()
                if once:
                    break
        else:
            _show(reports, once=once)
    finally:
        for window in seen.windows:
            window.close()
    if not once:
        raise CliError("every mount that was watched has ended", status=EXIT_FAILED)


class Seen:
    """What is looked at. `why_not`: why no daemons are."""

    def __init__(self, windows: list[Window], target: Target | None) -> None:
        self.windows = windows
        self.target = target
        self.admin: Admin | None = None
        self.why_not = "no cluster is named"
        if target is not None:
            from superfs.cli.admin import Admin, reach

            try:
                reached = reach(target)
            except OSError as error:  # of the token
                self.why_not = str(error)
                return
            if isinstance(reached, Admin):
                self.admin = reached
            else:
                self.why_not = str(reached)

    def daemons(self) -> dict[str, Metrics | str]:
        from superfs.cli.daemonrates import look

        if self.admin is None or self.target is None:
            return {}
        return look(self.target, self.admin)


def _choose(
    where: Path | None,
    directory: Path | None,
    cluster: list[str] | None,
    token_file: Path | None,
) -> Seen:
    from superfs.cli.home import Home
    from superfs.cli.windows import open_all, open_at, point_of

    if where is not None and point_of(where) is None and Home.at(where).exists:
        directory, where = where, None
    if where is not None:
        window = open_at(where)
        return Seen([window], _target_of(window))
    named = directory is not None or bool(cluster)
    try:
        target: Target | None = target_of(directory, cluster, token_file)
    except CliError:
        if named:
            raise
        target = None
    windows = open_all()
    if named and target is not None:
        for window in [w for w in windows if w.cluster.isdisjoint(target.cluster)]:
            windows.remove(window)
            window.close()
    if target is None and windows:
        target = _target_of(windows[0])
    if not windows and target is None:
        raise CliError(
            "no mount on this machine can be seen, and no cluster is named",
            hint="mount one, be its user or root, or name a cluster with --dir or --cluster",
        )
    return Seen(windows, target)


def _target_of(window: Window) -> Target:
    return Target(tuple(window.hello["cluster"]), Path(window.hello["token_file"]))


def _reports(seen: Seen, interval_s: float) -> Iterator[dict[str, Any]]:
    """One after each interval, as long as there is something to look at."""
    from superfs.cli import daemonrates

    before = {window.mountpoint: window.hello for window in seen.windows}
    daemons = seen.daemons()
    due = time.monotonic()
    while True:
        due = max(due + interval_s, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
        found = []
        for window in list(seen.windows):
            try:
                now = window.stats()
            except (OSError, ValueError) as error:
                warn(f"{window.mountpoint}: {error}")
                seen.windows.remove(window)
                window.close()
                continue
            found.append(describe_mount(before[window.mountpoint], now))
            before[window.mountpoint] = now
        if not found and before:
            return
        looked = seen.daemons()
        described: dict[str, Any] = {}
        for name, metrics in looked.items():
            earlier = daemons.get(name)
            if isinstance(metrics, str):
                described[name] = {"error": metrics}
            elif isinstance(earlier, daemonrates.Metrics):
                described[name] = daemonrates.describe(earlier, metrics)
        daemons = looked
        report: dict[str, Any] = {"mounts": found, "daemons": described}
        if seen.admin is None:
            report["daemons_unseen"] = seen.why_not
        yield report


def describe_mount(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Rates are per second."""
    from dataclasses import asdict

    from superfs.cli.rates import hit_rates, per_second, rates

    seconds = max(after["at_s"] - before["at_s"], 1e-9)
    then, now = before["figures"], after["figures"]
    return {
        "mountpoint": after["mountpoint"],
        "pid": after["pid"],
        "seconds": seconds,
        "requests": [
            asdict(rate) for rate in rates(before["operations"], after["operations"], seconds)
        ],
        "caches": {
            name: {"hits": hits, "misses": misses, "percent": percent}
            for name, (hits, misses, percent) in hit_rates(
                before["caches"], after["caches"]
            ).items()
        },
        "daemons": {
            name: per_second(before["daemons"].get(name, {}), traffic, seconds)
            for name, traffic in after["daemons"].items()
        },
        "figures": now,
        "recalls_per_s": (now["recalls"] - then["recalls"]) / seconds,
        "leases_returned_per_s": (now["leases_returned"] - then["leases_returned"]) / seconds,
        "local_changes_per_s": (now["local_changes"] - then["local_changes"]) / seconds,
        "evicted_per_s": (now["evicted"] - then["evicted"]) / seconds,
    }


def _show(reports: Iterator[dict[str, Any]], *, once: bool) -> None:
    from superfs.cli.statsview import view

    screen = console()
    if once or not screen.is_terminal:
        for report in reports:
            screen.print(view(report))
            if once:
                return
        return
    from rich.live import Live

    with Live(console=screen, auto_refresh=False, screen=False) as live:
        for report in reports:
            live.update(view(report), refresh=True)
