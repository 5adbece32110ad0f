"""SuperFS side by side with ext4, the floor and MooseFS: `superfs bench`'s shapes, interleaved.

    python bench/compare.py [--shape easy,hard,...] [--procs 1,4] [--files 1000] [--rounds 5]
                            [--systems ext4,F,M,S] [--dir /var/tmp] [--json FILE]

All systems run at the same time and keep their data on the same disk; every phase of every round
is done by one after the other, in an order that rotates, so that all meet the same state of the
machine. Ratios are of one round each, then their median. Prints, per operation, the requests of the
kernel to the FUSE process, the messages to daemons, and the CPU time of all processes of a system
and of the workers (who do the kernel's part). Needs root for cold phases and for M.

    ext4  a directory on the same disk
    F     the floor: an in-memory pyfuse3 file system, mounted by our code with our options
    M     MooseFS from Debian's packages (make bench-peers)
    S     SuperFS
    N     SuperFS with -o nodelegate; only when it is named, as are
    MS    MooseFS that syncs chunks and every change of the name space before it answers
    MC    MooseFS that syncs chunks only
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from systems import fusecount
from systems.moosefs import MooseFS, MooseFSChunksSynced, MooseFSSynced
from systems.ours import Asking, Disk, Floor, SuperFS
from systems.system import System, Unavailable, Usage

from superfs.cli.bench import caches
from superfs.cli.bench.results import file_system, machine, quartiles, rate_text, title
from superfs.cli.bench.running import Run
from superfs.cli.bench.shapes import MIB, SHAPES, Job, Phase, Shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.cli.bench.workers import Outcome

DEFAULT: tuple[type[System], ...] = (Disk, Floor, MooseFS, SuperFS)
SYNCED: tuple[type[System], ...] = (MooseFSSynced, MooseFSChunksSynced)
KINDS: dict[str, type[System]] = {kind.name: kind for kind in (*DEFAULT, Asking, *SYNCED)}
USUAL = [kind.name for kind in DEFAULT]


@dataclass(slots=True)
class Cell:
    """One phase on one system."""

    rates: list[float] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)


@dataclass(slots=True)
class Table:
    """One shape with so many processes: phase and system -> what came out of whole rounds."""

    job: Job
    phases: list[Phase] = field(default_factory=list)
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)

    def add(self, phase: Phase, system: str, outcome: Outcome, used: Usage) -> None:
        if phase not in self.phases:
            self.phases.append(phase)
        cell = self.cells.setdefault((phase.name, system), Cell())
        cell.rates.append(outcome.rate)
        cell.usage.add(used)
        cell.usage.operations += outcome.ops
        cell.usage.worker_cpu_s += outcome.cpu_s


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through every `finally`
    with contextlib.ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="sfsb", dir=args.dir))
        work.chmod(0o755)  # MooseFS is a user of its own
        stack.callback(work.rmdir)
        systems = list(started(stack, work, args.systems))
        describe(args, work, systems)
        tables = [Table(job) for job in jobs(args)]
        stack.callback(report, tables, [system.name for system in systems], args.json)
        for number in range(args.rounds):
            for table in tables:
                one_round(table, systems, number)
                print(".", end="", file=sys.stderr, flush=True)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", type=words, default=list(SHAPES), metavar="NAME,...")
    parser.add_argument("--procs", type=words, default=["1", "4"], metavar="N,...")
    parser.add_argument("--files", type=int, default=1000, help="of a process")
    parser.add_argument("--io-mib", type=int, default=64, help="big file of a process")
    parser.add_argument("--io-ops", type=int, default=1000, help="random IO of a process")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fsync", action="store_true", help="fsync every small file made")
    parser.add_argument("--systems", type=words, default=USUAL, metavar="NAME,...")
    parser.add_argument("--dir", default="/var/tmp", help="on the disk that is meant")
    parser.add_argument("--json", type=Path, help="write everything there, too")
    args = parser.parse_args()
    for given, known in ((args.shape, SHAPES), (args.systems, KINDS)):
        for name in given:
            if name not in known:
                parser.error(f"there is no {name!r}: of {', '.join(known)}")
    return args


def words(text: str) -> list[str]:
    return text.split(",")


def jobs(args: argparse.Namespace) -> list[Job]:
    sizes = args.files, args.io_mib * MIB, args.io_ops
    return [one_job(SHAPES[n], int(p), *sizes, args.fsync) for n in args.shape for p in args.procs]


def one_job(shape: Shape, procs: int, files: int, io_bytes: int, io_ops: int, fsync: bool) -> Job:
    """Where it is done is said in each round."""
    return Job(Path(), shape, procs, files, shape.file_bytes, io_bytes, io_ops, fsync=fsync)


def started(stack: contextlib.ExitStack, work: Path, names: list[str]) -> Iterator[System]:
    tracefs = stack.enter_context(fusecount.tracefs())
    for name in names:
        system = KINDS[name](work)
        try:
            stack.callback(system.close)
            system.start()
            if tracefs is not None:
                system.count_fuse(tracefs)
        except Unavailable as error:
            print(f"{name} is left out: {error}")
            continue
        yield system


def describe(args: argparse.Namespace, work: Path, systems: list[System]) -> None:
    about = machine()
    print(
        f"{about['cores']} cores, {about['architecture']}, Linux {about['kernel']}, Python "
        f"{about['python']}, load {about['load']} before; disk is {file_system(work)}"
    )
    print(
        f"{args.rounds} rounds, {args.files} files a process, big files of {args.io_mib} MiB, "
        f"{args.io_ops} random IOs{', fsync after every file' if args.fsync else ''}"
    )
    if caches.why_not():
        print(f"no cold phases: {caches.why_not()}")
    for system in systems:
        print(f"  {system.name:5} {system.about}")
    commit = subprocess.run(
        ["git", "-C", Path(__file__).parent, "describe", "--always", "--dirty"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(f"commit {commit.stdout.strip() or 'unknown'}", flush=True)


def one_round(table: Table, systems: list[System], number: int) -> None:
    with contextlib.ExitStack() as stack:
        runs = []
        for system in systems:
            top = system.directory / f"{table.job.shape.name}-{table.job.procs}"
            run = stack.enter_context(Run(dataclasses.replace(table.job, top=top)))
            runs.append((system, run))
        found = []
        for index, phase in enumerate(runs[0][1].phases()):
            first = (number + index) % len(runs)
            for system, run in runs[first:] + runs[:first]:
                used = Usage()
                outcome = run.do(phase, lambda s=system, u=used: s.watching(u))
                found.append((phase, system.name, outcome, used))
    for one in found:
        table.add(*one)


# ---- what is printed


def report(tables: list[Table], names: list[str], file: Path | None) -> None:
    """Also of a run that was interrupted: its whole rounds."""
    print(file=sys.stderr)
    done = [table for table in tables if table.cells]
    for table in done:
        show(table, names)
    if file is not None:
        file.write_text(json.dumps([as_json(table) for table in done], indent=2) + "\n")


def ratios(table: Table, phase: Phase, ours: str, other: str) -> list[float]:
    mine, theirs = (table.cells[phase.name, name].rates for name in (ours, other))
    return [a / b for a, b in zip(mine, theirs, strict=True)]


def show(table: Table, names: list[str]) -> None:
    print(f"\n### {title(table.job)}\n")
    ours = "S" if "S" in names else "N"
    others = [
        name for name in ("F", "M", "MS", "MC", "ext4", "N") if name in names and ours in names
    ]
    others = [name for name in others if name != ours]
    rows = [["phase", *names, *(f"{ours}/{name}" for name in others)]]
    for phase in table.phases:
        row = [phase.name]
        for name in names:
            rates = table.cells[phase.name, name].rates
            row.append(rate_text(phase, statistics.median(rates)))
        for name in others:
            found = ratios(table, phase, ours, name)
            low, high = quartiles(found)
            row.append(f"{short(statistics.median(found))} ({short(low)}-{short(high)})")
        rows.append(row)
    markdown(rows)
    fuse = [name for name in ("F", "M", "MS", "MC", "S", "N") if name in names]
    rpcs = [name for name in ("M", "MS", "MC", "S", "N") if name in names]
    head = [f"req {n}" for n in fuse] + [f"msg {n}" for n in rpcs] + [f"us {n}" for n in names]
    rows = [["per operation", *head]]
    for phase in table.phases:
        used = {name: table.cells[phase.name, name].usage for name in names}
        row = [phase.name]
        row += [per_op(used[name].fuse, used[name]) for name in fuse]
        row += [per_op(used[name].rpcs, used[name]) for name in rpcs]
        for name in names:
            total = used[name].cpu_s + used[name].worker_cpu_s
            row.append(f"{1e6 * total / used[name].operations:,.0f}")
        rows.append(row)
    print()
    markdown(rows)


def per_op(total: float | None, usage: Usage) -> str:
    return "-" if total is None else f"{total / usage.operations:.2f}"


def short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"


def markdown(rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print(f"| {' | '.join(cells)} |")
        if number == 0:
            print(f"| {'-' * widths[0]} | {' | '.join('-' * (w - 1) + ':' for w in widths[1:])} |")


def as_json(table: Table) -> dict[str, Any]:
    job = table.job
    return {
        "shape": job.shape.name,
        "procs": job.procs,
        "files_per_process": job.files,
        "fsync": job.fsync,
        "phases": [
            {
                "phase": phase,
                "system": system,
                "rates": cell.rates,
                "operations": cell.usage.operations,
                "fuse_requests": cell.usage.fuse,
                "messages": cell.usage.rpcs,
                "cpu_s": cell.usage.cpu_s,
                "workers_cpu_s": cell.usage.worker_cpu_s,
            }
            for (phase, system), cell in table.cells.items()
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
