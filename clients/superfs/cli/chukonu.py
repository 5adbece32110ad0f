"""`superfs chukonu`: data preparation by recipes."""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from superfs.cli.options import JsonOption  # noqa: TC001 - typer reads it when it runs
from superfs.cli.output import EXIT_USAGE, CliError, console, print_json, say, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.chukonu import DataFrame, Session

app = typer.Typer(no_args_is_help=True, help="Data preparation with superfs.chukonu.")

WATCH_SECONDS = 0.5
SAY_SECONDS = 30.0
SAMPLE_MIB = 16

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A job, as YAML.")]


@app.callback()
def _group() -> None:
    """Data preparation with superfs.chukonu."""


@app.command("run")
def run(
    recipe: RecipeFile,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="On a sample; nothing is written. Shows plan and rows."),
    ] = False,
    sample_mib: Annotated[
        int, typer.Option("--sample", metavar="MIB", min=1, help="How much of each input that is.")
    ] = SAMPLE_MIB,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no counters.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe. A job that was killed goes on where it was, when it is run again."""
    try:
        from superfs.chukonu import recipe as recipes
        from superfs.chukonu.errors import ChukonuError
    except ModuleNotFoundError as error:
        raise CliError(str(error)) from None
    try:
        found = recipes.load(recipe)
        with found.session() as session:
            if dry_run:
                frame = found.frame(session, sample_mib << 20)
                _tried(frame, session, quiet=quiet, as_json=as_json)
                return
            with _watched(session, quiet=quiet or as_json):
                result = found.run(session)
    except recipes.RecipeError as error:
        raise CliError(f"{error.where}: {error.why}", status=EXIT_USAGE) from None
    except ChukonuError as error:
        raise CliError(str(error)) from None
    if as_json:
        print_json(result)
    elif result["rows"] is None:
        say(f"{result['path']} is there already")
    else:
        if not quiet:
            _show(result["statistics"])
        say(f"{result['rows']:,} rows in {result['path']}")


def _tried(frame: DataFrame, session: Session, *, quiet: bool, as_json: bool) -> None:
    from superfs.chukonu.plan.explain import explained
    from superfs.chukonu.rows import rows_of, shown

    with _watched(session, quiet=quiet or as_json):
        table = session.executor.frame(frame.plan)
    last = session.executor.last_run
    assert last is not None
    statistics = last.statistics()
    if as_json:
        print_json({"rows": table.height, "statistics": statistics})
        return
    say(explained(frame.plan))
    if not quiet:
        _show(statistics)
    say(shown(list(rows_of(table.head(6), frame.plan.output)), frame.columns, 5, 40))
    say(f"{table.height:,} rows of a sample of {_bytes(statistics['bytes_read'])}; nothing written")


def _show(statistics: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table("operator", box=None)
    for name in ("rows in", "rows out", "CPU s"):
        table.add_column(name, justify="right")
    table.add_column("dropped")
    for one in statistics["operators"]:
        dropped = ", ".join(f"{rows:,} {why}" for why, rows in one["dropped"].items())
        counts = [f"{one['rows_in']:,}", f"{one['rows_out']:,}", f"{one['cpu_seconds']:.2f}"]
        table.add_row(_escaped(f"{one['operator']:.60}"), *counts, _escaped(dropped))
    console().print(table)
    ways = ", ".join(f"{_bytes(n)} by {way}" for way, n in statistics["bytes_by_way"].items())
    seconds, cpu = statistics["seconds"], statistics["cpu_seconds"]
    say(f"read {_bytes(statistics['bytes_read'])} ({ways}) in {seconds:.1f} s, {cpu:.1f} s of CPU")


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _line(session: Session) -> str:
    """What a person wants to know of a running job; empty before it begins."""
    last = session.executor.last_run
    if last is None:
        return ""
    now = last.progress()
    if now.title == "reading":
        text = f"reading {_bytes(now.done)} of {_bytes(now.total)}"
    else:
        text = f"finishing part {now.done} of {now.total or '?'}"
    left = now.eta_seconds
    if left is None:
        return text
    return f"{text}, {int(left) // 60}:{int(left) % 60:02} left"


@contextlib.contextmanager
def _watched(session: Session, *, quiet: bool) -> Iterator[None]:
    """A bar where a person looks; else a line every half a minute, for logs."""
    if quiet:
        yield
        return
    ended = threading.Event()
    target = _bar if sys.stderr.isatty() else _lines
    thread = threading.Thread(target=target, args=(session, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _lines(session: Session, ended: threading.Event) -> None:
    while not ended.wait(SAY_SECONDS):
        line = _line(session)
        if line:
            warn(line)


def _bar(session: Session, ended: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as screen:
        task = screen.add_task("planning", total=None)
        while not ended.wait(WATCH_SECONDS):
            last = session.executor.last_run
            if last is not None:
                now = last.progress()
                screen.update(
                    task, description=_line(session), completed=now.done, total=now.total or None
                )
