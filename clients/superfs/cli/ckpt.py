"""`superfs ckpt`: checkpoints in directories, to look at, check, compare, convert, clean up."""

from __future__ import annotations

import contextlib
import datetime
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from superfs.cli.options import JsonOption  # noqa: TC001  # typer looks at it
from superfs.cli.output import EXIT_FAILED, EXIT_USAGE, CliError, console, print_json, say, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from superfs.checkpoint.contents import Contents

app = typer.Typer(no_args_is_help=True, help="Checkpoints of superfs.checkpoint.")
Checkpoint = Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Its directory.")]
Root = Annotated[Path, typer.Argument(metavar="DIR", help="Where checkpoints lie side by side.")]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Read pickles, which can run any code.")
]
EXIT_DIFFERENT = 1


@app.command("ls")
def ls(root: Root = Path(), as_json: JsonOption = False) -> None:
    """The checkpoints of a directory, oldest first, and attempts that were not committed."""
    from superfs.checkpoint import directory
    from superfs.core.errors import FsError

    rows: list[dict[str, Any]] = []
    for path, found in directory.listed(root):
        if isinstance(found, FsError):
            rows.append({"name": path.name, "state": "unreadable", "why": found.detail})
            continue
        rows.append(
            {
                "name": path.name,
                "state": "committed",
                "created_unix_s": found.created_unix_s,
                "world_size": found.world_size,
                "tensors": len(found.tensors) + len(found.same),
                "bytes": found.bytes,
            }
        )
    rows.sort(key=lambda row: row.get("created_unix_s", 0.0))
    rows += [
        {"name": name, "state": "attempt", "path": str(path)}
        for name, _, path in directory.attempts(root)
    ]
    if as_json:
        print_json(rows)
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table("checkpoint", "created", "ranks", "tensors", "size", box=None)
    for row in rows:
        if row["state"] == "attempt":
            table.add_row(
                f"[dim]{escape(row['name'])}[/]", "[yellow]never committed[/]", "", "", ""
            )
        elif row["state"] == "unreadable":
            table.add_row(escape(row["name"]), "[red]unreadable[/]", "", "", "")
        else:
            cells = [_when(row["created_unix_s"]), str(row["world_size"]), str(row["tensors"])]
            table.add_row(escape(row["name"]), *cells, _size(row["bytes"]))
    console().print(table)


@app.command("inspect")
def inspect(checkpoint: Checkpoint, as_json: JsonOption = False) -> None:
    """What is in a checkpoint: tensors, objects, files."""
    with _opened(checkpoint) as contents:
        manifest = contents.manifest
        tensors = [
            {
                "name": t.name,
                "rank": t.rank if t.rank >= 0 else None,
                "dtype": t.dtype,
                "shape": list(t.shape),
                "bytes": t.bytes,
                "shards": len(t.shards),
                "pieces": sum(len(s.pieces) for s in t.shards),
            }
            for t in sorted(manifest.tensors, key=lambda t: (t.name, t.rank))
        ]
        found = {
            "path": str(checkpoint),
            "id": manifest.id,
            "made_by": manifest.made_by,
            "created_unix_s": manifest.created_unix_s,
            "world_size": manifest.world_size,
            "files": [{"name": name, "bytes": size} for name, size in manifest.files],
            "tensors": tensors,
            "same": manifest.same,
            "objects": contents.all_objects(),
        }
    if as_json:
        print_json(found)
        return
    _show(found)


def _show(found: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    screen = console()
    when = _when(found["created_unix_s"])
    screen.print(
        f"{escape(found['path'])}: {when}, {found['world_size']} ranks, {found['made_by']}"
    )
    table = Table("tensor", "dtype", "shape", "size", "pieces", box=None)
    for t in found["tensors"]:
        name = escape(t["name"]) + ("" if t["rank"] is None else f" [dim]of rank {t['rank']}[/]")
        shape = escape(str(t["shape"]))
        table.add_row(name, t["dtype"], shape, _size(t["bytes"]), str(t["pieces"]))
    for name, first in sorted(found["same"].items()):
        table.add_row(escape(name), "", f"[dim]tied to {escape(first)}[/]", "", "")
    screen.print(table)
    for name, value in sorted(found["objects"].items()):
        text = repr(value)
        screen.print(f"{escape(name)} = {escape(text if len(text) <= 80 else text[:77] + '...')}")
    for file in found["files"]:
        screen.print(f"[dim]{escape(file['name'])}  {_size(file['bytes'])}[/]")


@app.command("verify")
def verify(
    checkpoints: Annotated[list[Path], typer.Argument(metavar="CHECKPOINT...")],
    as_json: JsonOption = False,
) -> None:
    """Read every block and compare it with its hash. Status 1: something is damaged."""
    from superfs.core.errors import FsError

    results: list[dict[str, Any]] = []
    for path in checkpoints:
        try:
            with _opened(path) as contents:
                total = sum(t.bytes for t in contents.manifest.tensors)
                with _bar(f"verifying {path.name}", total, quiet=as_json) as advance:
                    found = contents.verify(advance)
            results.append({"path": str(path), **asdict(found)})
        except FsError as error:
            damage = {"file": "", "offset": 0, "length": 0, "what": "", "why": error.detail}
            results.append({"path": str(path), "blocks": 0, "bytes": 0, "damage": [damage]})
    if as_json:
        print_json(results)
    else:
        for result in results:
            for one in result["damage"]:
                where = f"{one['file']} at {one['offset']}: {one['what']}: " if one["file"] else ""
                warn(f"{result['path']}: {where}{one['why']}")
            verdict = f"{len(result['damage'])} damaged" if result["damage"] else "clean"
            amount = f"{result['blocks']} blocks, {_size(result['bytes'])}"
            say(f"{result['path']}: {verdict}; {amount}")
    if any(result["damage"] for result in results):
        raise typer.Exit(EXIT_FAILED)


@app.command("diff")
def diff(left: Checkpoint, right: Checkpoint, as_json: JsonOption = False) -> None:
    """What differs between two checkpoints. Status 1: something does."""
    from superfs.checkpoint.compare import differences

    with _opened(left) as one, _opened(right) as other:
        total = sum(t.bytes for t in one.manifest.tensors)
        with _bar("comparing", total, quiet=as_json) as advance:
            found = list(differences(one, other, advance))
    if as_json:
        print_json([asdict(difference) for difference in found])
    else:
        words = {"only-left": f"only in {left}", "only-right": f"only in {right}"}
        for d in found:
            say(f"{d.name}: {words.get(d.kind, d.kind)}{f': {d.detail}' if d.detail else ''}")
        if not found:
            say("equal")
    if found:
        raise typer.Exit(EXIT_DIFFERENT)


@app.command("convert")
def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC")],
    target: Annotated[Path, typer.Argument(metavar="DST")],
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="FORMAT", help="superfs, dcp or safetensors."),
    ] = None,
    allow_pickle: AllowPickle = False,
    as_json: JsonOption = False,
) -> None:
    """Between ours, stock DCP and safetensors. The source's format is seen; the target's is that of
    --to, else safetensors where DST ends so, else ours. Needs PyTorch."""
    try:
        from superfs.checkpoint import convert as converting
    except ModuleNotFoundError as error:
        raise CliError(f"this needs {error.name}", hint="pip install 'superfs[torch]'") from None

    wanted = to or ("safetensors" if target.suffix == ".safetensors" else "superfs")
    if wanted not in converting.FORMATS:
        formats = ", ".join(converting.FORMATS)
        raise CliError(f"--to must be one of {formats}", status=EXIT_USAGE)
    kind = converting.format_of(source)
    with _bar(f"{kind} to {wanted}", None, quiet=as_json):
        converting.convert(source, target, wanted, allow_pickle=allow_pickle)
    if as_json:
        print_json({"source": str(source), "from": kind, "target": str(target), "to": wanted})
    else:
        say(f"{target}: {wanted}, from {kind}")


@app.command("gc")
def gc(
    root: Root = Path(),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say it, do not do it.")] = False,
    idle_s: Annotated[
        float, typer.Option("--idle-s", help="Only what nobody wrote to for so many seconds.")
    ] = 3600.0,
    as_json: JsonOption = False,
) -> None:
    """Remove what saves that were never committed have left. Committed checkpoints stay."""
    from superfs.checkpoint import collect

    found = collect.leftovers(root, idle_s=idle_s)
    with _bar("removing", len(found), quiet=as_json or dry_run) as advance:
        for one in found:
            if not dry_run:
                collect.remove(one)
            advance(1)
    if as_json:
        rows = [{**asdict(one), "path": str(one.path), "removed": not dry_run} for one in found]
        print_json(rows)
        return
    word = "would remove" if dry_run else "removed"
    for one in found:
        say(f"{word} {one.path} ({_size(one.bytes)}, idle for {one.idle_s / 3600:.1f} h)")
    say(f"{word} {len(found)} attempts, {_size(sum(one.bytes for one in found))}")


def _opened(path: Path) -> Contents:
    from superfs.checkpoint.contents import Contents

    return Contents(path)


def _when(unix_s: float) -> str:
    return datetime.datetime.fromtimestamp(unix_s).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"


@contextlib.contextmanager
def _bar(title: str, total: int | None, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """On standard error, and only where a person looks at it."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as screen:
        task = screen.add_task(title, total=total)
        yield lambda done: screen.update(task, advance=done)
