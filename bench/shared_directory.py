"""mdtest-hard across two mounts: many processes create small files in one directory at once.

    python bench/shared_directory.py [--procs 16] [--mounts 2] [--files 100] [--rounds 5]
                                     [--no-fsync] [--options nodelegate] [--dir DIR]

Half of the processes work through one mount, half through another of the same cluster: one metad,
one datad, on one host. Each creates files of 3,901 bytes with names of its own in the directory
that all share, writes them, calls fsync and closes them; the time from open to close is one create.
Beside it, in every round, the same processes in a directory on the same disk: the limit. Goals:
1,000 creates/s, 99 of 100 within 50 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from compare import markdown
from systems.ours import SUPERFS

from superfs.cli.bench.results import file_system, machine

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

SIZE = 3901
TIMEOUT_S = 120
GOAL_CREATES_S, GOAL_P99_MS = 1000, 50


def work(directory: Path, number: int, args: argparse.Namespace, barrier: Barrier) -> list[float]:
    data = os.urandom(SIZE)
    took = []
    barrier.wait(TIMEOUT_S)
    for i in range(args.files):
        begun = time.perf_counter()
        fd = os.open(directory / f"file.mdtest.{number}.{i}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(fd, data)
        if args.fsync:
            os.fsync(fd)
        os.close(fd)
        took.append(time.perf_counter() - begun)
    return took


def one_round(directories: list[Path], args: argparse.Namespace) -> tuple[float, list[float]]:
    """(creates a second, the time of each)."""
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager, context.Pool(args.procs) as pool:
        barrier = manager.Barrier(args.procs + 1)
        jobs = [
            pool.apply_async(work, (directories[n % len(directories)], n, args, barrier))
            for n in range(args.procs)
        ]
        barrier.wait(TIMEOUT_S)
        begun = time.perf_counter()
        took = [one for job in jobs for one in job.get(TIMEOUT_S)]
        return len(took) / (time.perf_counter() - begun), took


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--procs", type=int, default=16)
    parser.add_argument("--mounts", type=int, default=2)
    parser.add_argument("--files", type=int, default=100, help="of a process")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fsync", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--options", default="", help="of both mounts, as behind mount -o")
    parser.add_argument("--dir", default="/var/tmp", help="on the disk that is meant")
    args = parser.parse_args()
    about = machine()
    with contextlib.ExitStack() as stack:
        top = Path(tempfile.mkdtemp(prefix="sfsb", dir=args.dir))
        stack.callback(shutil.rmtree, top)
        print(
            f"{about['cores']} cores, Linux {about['kernel']}, Python {about['python']}, load "
            f"{about['load']} before; disk is {file_system(top)}; {args.rounds} rounds of "
            f"{args.procs} processes, {args.files} files of {SIZE} bytes each, "
            f"fsync: {args.fsync}, options: {args.options or 'defaults'}"
        )
        found = mounted(stack, top, args.mounts, args.options)
        places = {f"SuperFS, mounts: {args.mounts}": found, "disk": [top]}
        measure(places, args)
    return 0


def mounted(stack: contextlib.ExitStack, top: Path, count: int, options: str) -> list[Path]:
    home = top / "home"
    superfs("up", "--dir", home, "--detach")
    stack.callback(superfs, "down", "--dir", home)
    mounts = [top / f"mnt-{number}" for number in range(count)]
    for mount in mounts:
        mount.mkdir()
        words = ["-o", options] if options else []
        superfs("mount", *words, "--dir", home, mount)
        stack.callback(unmount, mount)
    return mounts


def unmount(mount: Path) -> None:
    subprocess.run(["umount", mount], check=True)


def superfs(*words: str | Path) -> None:
    subprocess.run([SUPERFS, *words], stdout=subprocess.DEVNULL, check=True)


def measure(places: dict[str, list[Path]], args: argparse.Namespace) -> None:
    rates: dict[str, list[float]] = {name: [] for name in places}
    took: dict[str, list[float]] = {name: [] for name in places}
    for number in range(args.rounds):
        for name in sorted(places, reverse=bool(number % 2)):
            tops = places[name]
            (tops[0] / f"round{number}").mkdir()
            rate, times = one_round([top / f"round{number}" for top in tops], args)
            assert len(os.listdir(tops[-1] / f"round{number}")) == args.procs * args.files
            rates[name].append(rate)
            took[name] += times
    rows = [["", "creates/s", "lowest to highest", "p50, ms", "p99, ms", "longest, ms"]]
    for name, times in took.items():
        cuts = statistics.quantiles(times, n=100)
        middle = f"{min(rates[name]):.0f} to {max(rates[name]):.0f}"
        figures = (1000 * seconds for seconds in (cuts[49], cuts[98], max(times)))
        rate = statistics.median(rates[name])
        rows.append([name, f"{rate:.0f}", middle, *(f"{figure:.1f}" for figure in figures)])
    markdown(rows)
    print(f"goals: {GOAL_CREATES_S} creates/s, p99 below {GOAL_P99_MS} ms")


if __name__ == "__main__":
    sys.exit(main())
