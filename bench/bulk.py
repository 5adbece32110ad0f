"""Bulk operations of the client library on an embedded cluster over Unix sockets: files a second,
CPU a file over all processes, messages a file.

    python bench/bulk.py [--files 20000] [--size 4096] [--per-directory 1000] [--rounds 5]

Each round makes a tree of its own with put_many (durable when it returns), then reads it with
get_many, stats it with stat_many, walks it and removes it, each by a client that has only just
connected. What is read is compared with what was put. The page cache is warm: this measures the
system and not the disk. CPU is user and system time of the client and of every daemon, from /proc;
--what chooses operations.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from superfs.client import ClientConfig, FileSystem

if TYPE_CHECKING:
    from collections.abc import Callable

SUPERFS = Path(sys.executable).parent / "superfs"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# files/s that must be reached, and that would be good; CPU µs a file at most
GOALS = {
    "put_many": (8_000, 15_000, 150),
    "get_many": (15_000, 30_000, None),
    "stat_many": (50_000, 100_000, None),
}


@dataclass
class Sample:
    seconds: float
    cpu_s: dict[str, float]
    messages: int


class Bench:
    def __init__(self, home: Path, args: argparse.Namespace) -> None:
        self.config = ClientConfig((f"unix:{(home / 'run').resolve()}/clusterd.sock",),
                                   home / "token")  # fmt: skip
        status = json.loads((home / "run" / "supervisor.json").read_text())
        self.pids = {name.split("-")[0]: c["pid"] for name, c in status["children"].items()}
        self.args = args
        self.samples: dict[str, list[Sample]] = {}

    def tree(self, number: int) -> tuple[str, dict[str, bytes]]:
        rng = random.Random(number)
        top = f"/bulk{number}"
        return top, {
            f"{top}/d{i // self.args.per_directory:03}/f{i:06}": rng.randbytes(self.args.size)
            for i in range(self.args.files)
        }

    def round(self, number: int) -> None:
        top, files = self.tree(number)
        with FileSystem.connect(self.config) as fs:
            fs.mkdir(top)
            for directory in sorted({path.rsplit("/", 1)[0] for path in files}):
                fs.mkdir(directory)
        paths = list(files)
        self.measure("put_many", lambda fs: fs.put_many(files))
        found = self.measure("get_many", lambda fs: fs.get_many(paths))
        assert found is None or found == list(files.values()), "not what was put"
        sizes = self.measure("stat_many", lambda fs: [s.st_size for s in fs.stat_many(paths)])
        assert sizes is None or set(sizes) == {self.args.size}
        seen = self.measure("walk", lambda fs: sum(len(others) for _, _, others in fs.walk(top)))
        assert seen in (None, len(files))
        self.measure("remove_tree", lambda fs: fs.remove_tree(top))

    def measure(self, what: str, work: Callable[[FileSystem], object]) -> object:
        if what not in self.args.what:
            return None
        with FileSystem.connect(self.config) as fs:
            before = self.cpu()
            start = time.perf_counter()
            result = work(fs)
            seconds = time.perf_counter() - start
            after = self.cpu()
            messages = sum(stream.messages_sent for stream in fs.connection._streams())
        used = {name: after[name] - before[name] for name in after}
        self.samples.setdefault(what, []).append(Sample(seconds, used, messages))
        return result

    def cpu(self) -> dict[str, float]:
        own = os.times()
        return {"client": own.user + own.system} | {
            name: cpu_of(pid) for name, pid in self.pids.items()
        }

    def report(self) -> bool:
        print(f"{'':12} {'files/s':>9}  {'lowest':>8} {'highest':>8}  {'CPU µs':>7}  "
              f"{'client':>6} {'metad':>6} {'datad':>6}  {'messages':>9}")  # fmt: skip
        met = True
        for what, samples in self.samples.items():
            files = self.args.files
            rates = sorted(files / s.seconds for s in samples)
            rate = statistics.median(rates)
            cpu = {
                name: statistics.median(s.cpu_s[name] for s in samples) / files * 1e6
                for name in samples[0].cpu_s
            }
            total = statistics.median(sum(s.cpu_s.values()) for s in samples) / files * 1e6
            messages = statistics.median(s.messages for s in samples) / files
            line = (f"{what:12} {rate:9,.0f}  {rates[0]:8,.0f} {rates[-1]:8,.0f}  {total:7.1f}  "
                    f"{cpu['client']:6.1f} {cpu['metad']:6.1f} {cpu['datad']:6.1f}  "
                    f"{messages:9.4f}")  # fmt: skip
            if what in GOALS and self.args.size == 4096:
                least, good, cpu_most = GOALS[what]
                reached = rate >= least and (cpu_most is None or total <= cpu_most)
                met = met and reached
                line += f"  at least {least:,}: {'met' if reached else 'NOT met'}"
                line += f" (goal {good:,}{': met' if rate >= good else ''})"
            print(line)
        return met


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--per-directory", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", default="/var/tmp", help="where the cluster lies")
    names = ["put_many", "get_many", "stat_many", "walk", "remove_tree"]
    parser.add_argument("--what", nargs="+", choices=names, default=names)
    args = parser.parse_args()
    args.what = ["put_many", *args.what]
    return args


def main() -> int:
    args = arguments()
    print(f"machine   {platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, "
          f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(
        f"method    {args.rounds} rounds of {args.files} files of {args.size} bytes, "
        f"{args.per_directory} a directory; a new connection for each line; medians"
    )
    home = Path(tempfile.mkdtemp(prefix="sfsb", dir=args.dir))
    try:
        subprocess.run([SUPERFS, "up", "--dir", home, "--detach"], check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        bench = Bench(home, args)
        for number in range(args.rounds):
            bench.round(number)
        met = bench.report()
    finally:
        subprocess.run([SUPERFS, "down", "--dir", home], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(home)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
