"""How `superfs stats` and `superfs profile` look on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

OPERATIONS_SHOWN = 12


def view(report: dict[str, Any]) -> Group:
    parts: list[RenderableType] = []
    for mount in report["mounts"]:
        parts += [_mount(mount), Text()]
    if report["daemons"]:
        parts.append(_daemons(report["daemons"]))
    if "daemons_unseen" in report:
        parts.append(Text(f"daemons are not shown: {report['daemons_unseen']}"))
    return Group(*parts)


def _mount(mount: dict[str, Any]) -> Group:
    figures = mount["figures"]
    memory, limit = figures["memory_bytes"], figures["memory_max_bytes"]
    head = Text.assemble(
        (mount["mountpoint"], "bold"),
        f"  pid {mount['pid']}  memory {size(memory)} of {size(limit)}"
        f"  inodes {figures['inodes']}  names {figures['names']}  leases {figures['leases']}"
        f" ({figures['exclusive']} exclusive)",
    )
    moves = Text(
        f"changes made here {number(mount['local_changes_per_s'])}/s,"
        f" {figures['log_entries']} to ship, the oldest {figures['log_age_seconds']:.1f} s old;\n"
        f"recalls {number(mount['recalls_per_s'])}/s"
        f"  leases returned {number(mount['leases_returned_per_s'])}/s"
        f"  inodes evicted {number(mount['evicted_per_s'])}/s"
        f"  contents kept {size(figures['contents_bytes'])}"
    )
    hits = "  ".join(
        f"{name} {'-' if cache['percent'] is None else format(cache['percent'], '.1f') + '%'}"
        for name, cache in mount["caches"].items()
    )
    daemons = "  ".join(
        f"{name} {number(rate['sent'])}/s {size(rate['sent_bytes'])}/s out,"
        f" {number(rate['received'])}/s {size(rate['received_bytes'])}/s in"
        for name, rate in sorted(mount["daemons"].items())
    )
    table = _table("request", "per s", "mean", "p50", "p99", "errors/s")
    for rate in mount["requests"][:OPERATIONS_SHOWN]:
        table.add_row(
            rate["name"], number(rate["per_s"]), duration(rate["mean_us"]),
            duration(rate["p50_us"]), duration(rate["p99_us"]),
            number(rate["errors_per_s"]) if rate["errors_per_s"] else "",
        )  # fmt: skip
    if not mount["requests"]:
        table.add_row("none", "", "", "", "", "")
    return Group(
        head, moves, Text(f"answered from memory: {hits}"), Text(f"messages: {daemons}"), table
    )


def _daemons(daemons: dict[str, Any]) -> Table:
    table = _table("daemon", "requests/s", "CPU", "memory", "what")
    table.columns[-1].justify = "left"
    table.columns[-1].no_wrap = False
    for name, found in daemons.items():
        if "error" in found:
            table.add_row(name, "", "", "", Text(found["error"], "red"))
            continue
        table.add_row(
            name, number(found["requests_per_s"]), f"{found['cpu_percent']:.0f}%",
            size(found["memory_bytes"]), _what(found),
        )  # fmt: skip
    return table


def _what(found: dict[str, Any]) -> str:
    parts = []
    if "commits_per_s" in found:
        total = sum(found["operations_per_s"].values())
        parts.append(
            f"{number(total)} operations/s, {number(found['commits_per_s'])} commits/s"
            f" of {found['operations_per_commit']:.1f}, p50 {found['commit_p50_ms']:.1f} ms"
            f" p99 {found['commit_p99_ms']:.1f} ms; {found['leases']:.0f} leases,"
            f" {number(found['invalidations_per_s'])} invalidations/s"
        )
    if "syncs_per_s" in found:
        parts.append(
            f"{size(found['read_bytes_per_s'])}/s read, {size(found['written_bytes_per_s'])}/s"
            f" written, {number(found['syncs_per_s'])} syncs/s p99 {found['sync_p99_ms']:.1f} ms"
        )
    return " ".join(parts)


def profile_view(found: dict[str, Any]) -> Group:
    by = _table(found["by"], "requests", "per s", "time", "mean", "p99", "errors", "bytes")
    for group in found["groups"]:
        by.add_row(
            Text(group["name"]), str(group["count"]), number(group["per_s"]),
            duration(group["total_us"]), duration(group["mean_us"]), duration(group["p99_us"]),
            str(group["errors"] or ""), size(group["bytes"]),
        )  # fmt: skip
    slow = _table("slowest", "took", "process", "directory", "name", "errno")
    for column in slow.columns[2:5]:
        column.justify = "left"
    for access in found["slowest"]:
        slow.add_row(
            access["operation"], duration(access["duration_us"]),
            Text(f"{access['command']} ({access['pid']})"), Text(access["directory"]),
            Text(access["name"] or f"inode {access['inode']}"), str(access["errno"] or ""),
        )  # fmt: skip
    head = f"{found['requests']} requests in {found['seconds']:.1f} s at {found['mountpoint']}"
    if found["lost"]:
        head += f", {found['lost']} more were not seen: too many at once"
    return Group(Text(head), by, Text(), slow)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    return table


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def duration(us: float) -> str:
    if us < 1000:
        return f"{us:.0f} us"
    return f"{us / 1000:.1f} ms" if us < 1e6 else f"{us / 1e6:.2f} s"


def size(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
