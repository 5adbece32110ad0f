"""`superfs bench`: how fast a directory is, on any file system."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path  # noqa: TC003 - typer reads the annotations when it runs
from typing import TYPE_CHECKING, Annotated, Any

import typer

from superfs.cli.bench.shapes import MIB, SHAPES, Job
from superfs.cli.options import JsonOption  # noqa: TC001
from superfs.cli.output import EXIT_USAGE, CliError, console, print_json, warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from superfs.cli.bench.results import Series
    from superfs.cli.bench.shapes import Shape

PROCS_MAX, FILES_MAX = 256, 10_000_000


def bench(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Empty, or not there yet.", show_default=False)
    ],
    shapes: Annotated[
        str, typer.Option("--shape", metavar="NAME,...", help=f"Of {', '.join(SHAPES)}.")
    ] = ",".join(SHAPES),
    procs: Annotated[
        str, typer.Option("--procs", metavar="N,...", help="Numbers of processes.")
    ] = "1,4",
    files: Annotated[int, typer.Option(min=1, max=FILES_MAX, help="Per process.")] = 1000,
    size: Annotated[
        int | None,
        typer.Option("--bytes", min=0, help="Of each small file, instead of the shape's own."),
    ] = None,
    io_mib: Annotated[int, typer.Option(min=1, help="Big file of a process, in MiB.")] = 64,
    io_ops: Annotated[int, typer.Option(min=1, help="Random reads and writes of each.")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="How often everything is done.")] = 3,
    fsync: Annotated[bool, typer.Option("--fsync", help="fsync every small file made.")] = False,
    cold: Annotated[
        bool, typer.Option(help="Cold phases; as root they drop the machine's caches.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Measure a directory on any file system: small files, big files, a training job's reads.

    Makes its files in DIR and removes them. Cold phases need root: the kernel drops its caches."""
    from superfs.cli.bench import caches

    chosen = [_shape(name) for name in shapes.split(",")]
    counts = [_count(word) for word in procs.split(",")]
    jobs = []
    for shape in chosen:
        file_bytes = shape.file_bytes if size is None or shape.big else size
        for count in counts:
            top = directory.absolute() / f"{shape.name}-{count}"
            jobs.append(
                Job(top, shape, count, files, file_bytes, io_mib * MIB, io_ops, fsync=fsync)
            )
    skipped = caches.why_not() if cold else "--no-cold"
    if skipped and cold and any(p.needs_drop for s in chosen for p in s.phases):
        warn(f"cold phases are left out: {skipped}")
    found = _measure(directory.absolute(), jobs, rounds, cold)
    if as_json:
        print_json(_as_json(found, jobs, skipped))
    else:
        _show(found, jobs)


def _shape(name: str) -> Shape:
    if name not in SHAPES:
        raise CliError(
            f"there is no shape {name!r}", hint=f"of {', '.join(SHAPES)}", status=EXIT_USAGE
        )
    return SHAPES[name]


def _count(word: str) -> int:
    if not word.isdecimal() or not 1 <= int(word) <= PROCS_MAX:
        raise CliError(
            f"--procs {word!r} is not a number of processes from 1 to {PROCS_MAX}",
            status=EXIT_USAGE,
        )
    return int(word)


def _measure(directory: Path, jobs: list[Job], rounds: int, cold: bool) -> dict[str, Any]:
    from superfs.cli.bench.results import Series, file_system, machine
    from superfs.cli.bench.running import Run, target
    from superfs.cli.bench.smallfiles import WrongBytes
    from superfs.cli.bench.workers import WorkerFailed

    series: dict[tuple[str, int, str], Series] = {}
    total = rounds * sum(len(job.shape.phases) for job in jobs)
    try:
        with target(directory), _progress(total) as advance:
            kind = file_system(directory)
            before = machine()
            for _ in range(rounds):
                for job in jobs:
                    with Run(job, cold=cold) as run:
                        for phase in run.phases():
                            advance(f"{job.shape.name} x{job.procs} {phase.name}")
                            key = (job.shape.name, job.procs, phase.name)
                            one = series.setdefault(key, Series(*key[:2], phase))
                            one.outcomes.append(run.do(phase))
    except (WrongBytes, WorkerFailed) as error:
        raise CliError(str(error)) from None
    return {"directory": directory, "kind": kind, "machine": before, "series": series}


def _as_json(found: dict[str, Any], jobs: list[Job], skipped: str) -> dict[str, Any]:
    job = jobs[0]
    return {
        "directory": str(found["directory"]),
        "file_system": found["kind"],
        "machine": found["machine"],
        "cold_phases_skipped": skipped or None,
        "files_per_process": job.files,
        "io_bytes_per_process": job.io_bytes,
        "io_operations_per_process": job.io_ops,
        "fsync": job.fsync,
        "results": [one.as_json() for one in found["series"].values()],
    }


def _show(found: dict[str, Any], jobs: list[Job]) -> None:
    from rich.table import Table

    from superfs.cli.bench.results import quartiles, rate_text, title

    screen, about = console(), found["machine"]
    screen.print(
        f"{found['directory']} on {found['kind']}; {about['cores']} cores, Linux "
        f"{about['kernel']}, Python {about['python']}, load {about['load']}",
        markup=False,
    )
    for job in jobs:
        screen.print(f"\n{title(job)}", markup=False)
        table = Table("phase", box=None, pad_edge=False)
        table.add_column("median", justify="right")
        table.add_column("quartiles", justify="right")
        table.add_column("CPU us/op", justify="right")
        for (name, procs, _), one in found["series"].items():
            if (name, procs) == (job.shape.name, job.procs):
                low, high = (rate_text(one.phase, rate) for rate in quartiles(one.rates))
                median = rate_text(one.phase, one.median)
                table.add_row(one.phase.name, median, f"{low} to {high}", f"{one.cpu_us:,.1f}")
        screen.print(table)


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """On standard error, and only where a person looks at it."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as screen:
        task = screen.add_task("", total=total)

        def advance(what: str) -> None:
            screen.update(task, advance=1, description=f"{what:24}")

        yield advance
