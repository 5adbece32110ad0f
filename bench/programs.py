"""What people run on a mount, side by side: git, du, grep, ls, tar, cp and rm on real trees.

    python bench/programs.py [--files 5000] [--rounds 5] [--reading] [--systems ext4,F,M,S]

Each system holds a git repository of so many files (about 2 KiB each, 50 a directory) and one
directory of twice as many. Every program runs on one system after the other, in an order that
rotates; a ratio is of one round, the table gives its median and quartiles. Seconds are those of the
whole program. `warm`: it has run once just before, and the kernel keeps what it has; `cold`: the
kernel has just dropped everything. `idle`: each file was read and looked at, each directory listed,
and then nothing happened for a minute.
Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compare import USUAL, markdown, short, started, words

from superfs.cli.bench import caches
from superfs.cli.bench.results import file_system, machine, quartiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from systems.system import System

FILES_A_DIRECTORY = 50
IDLE_S = 60.0
READ_BYTES = 128 * 1024
WRITING = ("tar x", "git clone", "git clone, linked", "cp -r", "rm -rf")
ABSENT = "no file contains this line"


@dataclass(frozen=True, slots=True)
class Program:
    """`before`: done untimed, just before, on the same system. `run` is timed."""

    name: str
    run: Callable[[Path], None]
    before: Callable[[Path], None] = lambda _: None


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through every `finally`
    with contextlib.ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="sfsb", dir=args.dir))
        work.chmod(0o755)
        stack.callback(work.rmdir)
        source = work / "source"
        stack.callback(shutil.rmtree, source)
        make_source(source, args.files)
        systems = list(started(stack, work, args.systems))
        about = machine()
        print(
            f"{about['cores']} cores, Linux {about['kernel']}, Python {about['python']}, load "
            f"{about['load']} before; disk is {file_system(work)}; {args.rounds} rounds; a tree "
            f"of {args.files} files, a directory of {2 * args.files}",
            flush=True,
        )
        for system in systems:
            print(f"  {system.name:5} {system.about}")
            run(["cp", "-r", source / "repo", source / "many", system.directory])
            run(["sync", "-f", system.directory])
        todo = programs(source, args.idle)
        if args.reading:
            todo = [program for program in todo if program.name not in WRITING]
        if args.only:
            todo = [program for program in todo if any(word in program.name for word in args.only)]
        measure(systems, todo, args.rounds)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--systems", type=words, default=USUAL, metavar="NAME,...")
    parser.add_argument("--idle", type=float, default=IDLE_S, help="seconds; 0: leave it out")
    parser.add_argument("--reading", action="store_true", help="leave out what writes")
    parser.add_argument(
        "--only", type=words, metavar="WORD,...", help="programs with one of them in their names"
    )
    parser.add_argument("--dir", default="/var/tmp", help="on the disk that is meant")
    args = parser.parse_args()
    if caches.why_not():
        parser.error(caches.why_not())
    return args


def run(command: list[str | Path]) -> None:
    """Its output is nobody's; exit status 1 is grep's for "not found"."""
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if done.returncode > 1:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.decode().strip()}")


def make_source(top: Path, files: int) -> None:
    """A repository, the same as an archive, and one big directory, on a plain disk."""
    words_of = random.Random(7)
    for number in range(files):
        directory = top / "repo" / f"d{number // FILES_A_DIRECTORY:04d}"
        directory.mkdir(parents=True, exist_ok=True)
        lines = [f"{words_of.getrandbits(256):064x}\n" for _ in range(words_of.randint(5, 55))]
        (directory / f"f{number:06d}.txt").write_text("".join(lines))
    git = ["git", "-C", top / "repo", "-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    run(["git", "-C", top / "repo", "init", "-q"])
    run([*git, "add", "."])
    run([*git, "commit", "-qm", "all"])
    run(["tar", "cf", top / "repo.tar", "--exclude=.git", "-C", top, "repo"])
    (top / "many").mkdir()
    for number in range(2 * files):
        (top / "many" / f"f{number:06d}").touch()


def programs(source: Path, idle_s: float) -> list[Program]:
    def command(*words: str) -> Callable[[Path], None]:
        return lambda top: run([word.replace("@", str(top)) for word in words])

    def warm(name: str, *words: str) -> Program:
        return Program(name, command(*words), command(*words))

    def cold(top: Path) -> None:
        run(["sync", "-f", top])
        caches.drop()

    remote = f"file://{source}/repo"  # one pack comes, as from another machine
    trees: dict[Path, tuple[list[str], list[str]]] = {}

    def idle(top: Path) -> None:
        trees[top] = tree(top / "repo")
        directories, files = trees[top]
        read_all(files)
        list_all(directories)
        stat_all(files)
        time.sleep(idle_s)

    found = [
        warm("git status, warm", "git", "-C", "@/repo", "status", "--porcelain"),
        warm("du, warm", "du", "-s", "@/repo"),
        warm("grep -r, warm", "grep", "-r", ABSENT, "@/repo"),
        warm("find -size, warm", "find", "@/repo", "-size", "+1M"),
        Program("ls -l, cold", command("ls", "-l", "@/many"), cold),
        Program("grep -r, cold", command("grep", "-r", ABSENT, "@/repo"), cold),
        Program("tar x", command("tar", "xf", str(source / "repo.tar"), "-C", "@/new"), renew),
        Program("git clone", command("git", "clone", "-q", remote, "@/new/clone"), renew),
        # Within a file system git gives the objects second names.
        Program("git clone, linked", command("git", "clone", "-q", "@/repo", "@/new/clone"), renew),
        Program("cp -r", command("cp", "-r", str(source / "many"), "@/new/many"), renew),
        Program("rm -rf", command("rm", "-rf", "@/new/many")),
    ]
    if idle_s:
        found += [
            Program("stat, idle", lambda top: stat_all(trees[top][1]), idle),
            Program("list, idle", lambda top: list_all(trees[top][0])),
            Program("read, idle", lambda top: read_all(trees[top][1])),
        ]
    return found


def renew(top: Path) -> None:
    """An empty place to write to."""
    shutil.rmtree(top / "new", ignore_errors=True)
    (top / "new").mkdir()


def tree(top: Path) -> tuple[list[str], list[str]]:
    """Its directories and its files."""
    directories, files = [], []
    for directory, _, names in os.walk(top):
        directories.append(directory)
        files += [os.path.join(directory, name) for name in names]
    return directories, files


def stat_all(files: list[str]) -> None:
    for path in files:
        os.stat(path)


def list_all(directories: list[str]) -> None:
    for path in directories:
        os.listdir(path)


def read_all(files: list[str]) -> None:
    for path in files:
        fd = os.open(path, os.O_RDONLY)
        os.read(fd, READ_BYTES)
        os.close(fd)


def measure(systems: list[System], todo: list[Program], rounds: int) -> None:
    seconds: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        for index, program in enumerate(todo):
            first = (number + index) % len(systems)
            for system in systems[first:] + systems[:first]:
                try:
                    program.before(system.directory)
                    begun = time.perf_counter()
                    program.run(system.directory)
                    took = time.perf_counter() - begun
                except (RuntimeError, OSError) as error:
                    print(f"{program.name} on {system.name}: {error}", file=sys.stderr)
                    took = float("nan")
                seconds.setdefault((program.name, system.name), []).append(took)
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    names = [system.name for system in systems]
    ours = "S" if "S" in names else "N"
    others = [name for name in ("F", "M", "ext4", "N") if name in names and ours in names]
    others = [name for name in others if name != ours]
    rows = [["program", *(f"{name}, s" for name in names), *(f"{name}/{ours}" for name in others)]]
    for program in todo:
        row = [program.name]
        row += [f"{statistics.median(seconds[program.name, name]):.2f}" for name in names]
        for name in others:
            both = zip(seconds[program.name, name], seconds[program.name, ours], strict=True)
            ratios = [other_s / ours_s for other_s, ours_s in both]
            low, high = quartiles(ratios)
            row.append(f"{short(statistics.median(ratios))} ({short(low)}-{short(high)})")
        rows.append(row)
    print(f"\nTimes as fast as another system (its seconds by those of {ours}): more is better.\n")
    markdown(rows)


if __name__ == "__main__":
    sys.exit(main())
