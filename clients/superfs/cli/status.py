"""`superfs status`: what runs, what it holds, where it is mounted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from superfs.cli import supervisor
from superfs.cli.options import ClusterOption, DirOption, JsonOption, TokenOption, target_of
from superfs.cli.output import EXIT_FAILED, console, print_json
from superfs.cli.programs import is_serving
from superfs.client.mounted import Mounted, mount_table

if TYPE_CHECKING:
    from superfs.cli.admin import Admin
    from superfs.cli.options import Target


TABLE_CHARS = 400
"""As wide as it needs to be: an address or a state that was cut would be of no use."""


def status(
    directory: DirOption = None,
    cluster: ClusterOption = None,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show daemons, space and mounts. Status 1: something does not serve."""
    target = target_of(directory, cluster, token_file)
    found = collect(target)
    if as_json:
        print_json(found)
    else:
        _show(found)
    if not found["healthy"]:
        raise typer.Exit(EXIT_FAILED)


def collect(target: Target) -> dict[str, Any]:
    from superfs.cli.admin import Admin, reach

    reached = reach(target)
    found: dict[str, Any] = {"cluster": list(target.cluster), "error": None, "daemons": []}
    running = supervisor.read_status(target.home) if target.home is not None else None
    found["supervisor"] = running
    found["mounts"] = [str(m.path) for m in mount_table() if may_be_of(m, target)]
    clusterd = {"name": "clusterd", "addresses": list(target.cluster)}
    found["daemons"].append(clusterd | {"serving": any(is_serving(a) for a in target.cluster)})
    if isinstance(reached, Admin):
        found |= {"cluster_id": reached.map.cluster_id, "map_epoch": reached.map.epoch}
        for daemon in reached.daemons:
            addresses = list(daemon.node.addresses)
            serving = any(is_serving(address) for address in addresses)
            found["daemons"].append(
                {"name": daemon.name, "addresses": addresses, "serving": serving}
            )
        found["space"] = _space(reached)
    else:
        found["error"] = str(reached)
    children = running["children"].values() if running else ()
    found["healthy"] = (
        found["error"] is None
        and all(daemon["serving"] for daemon in found["daemons"])
        and all(child["state"] == "ready" for child in children)
    )
    return found


def may_be_of(mounted: Mounted, target: Target) -> bool:
    """What names an address or a directory of this machine names one cluster. Of a name in the
    network, or of a mount made by fusermount3, nobody can tell."""
    if not mounted.is_superfs or not mounted.source.startswith(("unix:", "/")):
        return mounted.is_superfs
    ours = {*target.cluster, *([str(target.home.root)] if target.home else [])}
    return not ours.isdisjoint(mounted.source.split(","))


def _space(admin: Admin) -> dict[str, int] | None:
    from superfs.core.errors import FsError

    try:
        stat = admin.fs_stat()
    except (FsError, StopIteration):
        return None
    return {
        "bytes_total": stat.bytes_total,
        "bytes_free": stat.bytes_free,
        "inodes_used": stat.inodes_used,
        "inodes_free": stat.inodes_free,
    }


def _show(found: dict[str, Any]) -> None:
    from rich.table import Table

    screen = console(TABLE_CHARS)
    if found["error"]:
        screen.print(f"[red]not reachable[/]: {found['error']}")
    table = Table("daemon", "serving", "pid", "restarts", "address", box=None, pad_edge=False)
    children: dict[str, Any] = (found["supervisor"] or {}).get("children", {})
    for daemon in found["daemons"]:
        child = children.get(daemon["name"], {})
        table.add_row(
            daemon["name"],
            "[green]yes[/]" if daemon["serving"] else f"[red]no[/] {child.get('state', '')}",
            str(child.get("pid") or ""),
            str(child.get("restarts", "")),
            " ".join(daemon["addresses"]),
        )
    screen.print(table)
    mount = children.get("mount")
    if mount is not None:
        screen.print(f"mount {found['supervisor']['mount_point']}: {mount['state']}")
    for point in found["mounts"]:
        screen.print(f"mounted at {point}")
    if found.get("space"):
        space = found["space"]
        free, total = space["bytes_free"] / 2**30, space["bytes_total"] / 2**30
        screen.print(f"{free:.1f} GiB of {total:.1f} GiB free, {space['inodes_used']} inodes used")
