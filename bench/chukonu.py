"""Chukonu, embedded, against PySpark on this machine: the same work, files, threads and answers.

    python bench/chukonu.py [--mib 64] [--files 5000] [--rounds 3] [--threads 2] [--dir DIR]

Arm A is PySpark as people write it (JSON, Python functions), arm B PySpark with built-in
functions; Chukonu gets the program of B, in its own process and, arm D, on the same Spark
(`master("local[N]")`), and that of A, whose functions run in processes of their own. Each arm is
one process that keeps its session; sessions start before, and each workload is run once first, on a
small input or (`--warm data`) on the whole: both are start-up, and printed apart. Then arms take
turns. Answers are compared as multisets of rows, those of the sort in order. Seconds are wall time;
CPU seconds are those of the arm with its JVM and Python workers. Chukonu syncs what it writes,
PySpark does not. Needs .venv-spark (`make spark` makes it).

Goals: 6.1 times as fast as A in the geometric mean and 4 times without the best workload, twice as
fast as B, on 2 GB; D 2.3 times as fast as A.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
SPARK = HERE.parent / ".venv-spark" / "bin" / "python"
WORKLOADS = ("word_count", "sort", "quality", "dedup", "small_files")
FILE_BYTES, FILES_OF_DOCS = 10 << 10, 8
GOALS = {
    ("python", "chukonu"): (6.1, 4.0),
    ("built-in", "chukonu"): (2.0, 0.0),
    ("python", "on-spark"): (2.3, 0.0),
    ("built-in", "on-spark"): (0.0, 0.0),
    ("python", "same-python"): (0.0, 0.0),
}
NAMES = {"python": "A: PySpark, Python", "built-in": "B: PySpark, built-in", "chukonu": "Chukonu"}
NAMES |= {"on-spark": "D: Chukonu on Spark", "same-python": "Chukonu, A's program"}
EMBEDDED = ("chukonu", "same-python")


class Arm:
    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        python = sys.executable if name in EMBEDDED else str(SPARK)
        here = os.pathsep.join(str(HERE.parent / folder) for folder in ("proto", "clients"))
        env = {**os.environ, "PYTHONPATH": here} if name == "on-spark" else None
        started = time.perf_counter()
        self._process = subprocess.Popen(
            [python, str(HERE / "dataprep" / "arm.py"), name, str(threads)],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._answer()
        self.startup_s = time.perf_counter() - started

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended: status {self._process.wait()}")
        found = dict(json.loads(line))
        if "refused" in found:
            raise SystemExit(f"{self.name}: {found['refused']}")
        return found

    def run(self, workload: str, data: Path, out: Path) -> tuple[float, float]:
        """(seconds, CPU seconds)."""
        assert self._process.stdin is not None
        before = self._cpu_s()
        asked = {"workload": workload, "data": str(data), "out": str(out)}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        seconds = float(self._answer()["seconds"])
        return seconds, self._cpu_s() - before

    def _cpu_s(self) -> float:
        """Of every process of its session, those that have ended included."""
        total = 0
        for entry in Path("/proc").iterdir():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (OSError, ValueError):
                continue
            if entry.name.isdigit() and int(fields[3]) == self._process.pid:
                total += sum(map(int, fields[11:15]))
        return total / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def main() -> int:
    args = arguments()
    if not SPARK.exists():
        print("no .venv-spark: `make spark` makes one")
        return 0
    work = Path(tempfile.mkdtemp(prefix="sfsb", dir=args.dir))
    try:
        make_data(work / "data", args.mib << 20, args.files)
        make_data(work / "small", 1 << 20, 50)
        describe(args)
        return measure(args, work)
    finally:
        shutil.rmtree(work)


def measure(args: argparse.Namespace, work: Path) -> int:
    arms = [Arm(name, args.threads) for name in args.arm or NAMES]
    took: dict[tuple[str, str], list[tuple[float, float]]] = {}
    try:
        for arm in arms:
            started = time.perf_counter()
            for workload in args.workload or WORKLOADS:
                arm.run(workload, work / args.warm, work / "out" / arm.name)
            warm = time.perf_counter() - started
            print(
                f"start-up  {NAMES[arm.name]:22} {arm.startup_s:6.1f} s, first runs {warm:6.1f} s"
            )
        for turn in range(args.rounds):
            for workload in args.workload or WORKLOADS:
                order = arms[turn % len(arms) :] + arms[: turn % len(arms)]
                sums = set()
                for arm in order:
                    out = work / "out" / arm.name
                    found = arm.run(workload, work / "data", out)
                    took.setdefault((workload, arm.name), []).append(found)
                    sums.add(digest(out, workload))
                if len(sums) > 1:
                    print(f"{workload}: the answers differ")
                    return 1
    finally:
        for arm in arms:
            arm.close()
    return report(took, args.workload or WORKLOADS, args.arm or list(NAMES))


def digest(out: Path, workload: str) -> str:
    import polars as pl

    parts = [pl.read_parquet(path) for path in sorted(out.glob("part-*.parquet"))]
    whole = pl.concat(
        [part.cast({c: pl.Int64 for c in part.columns if c == "n"}) for part in parts]
    )
    if workload != "sort":
        whole = whole.sort(whole.columns)
    return hashlib.blake2b(whole.write_csv().encode()).hexdigest()


def report(
    took: dict[tuple[str, str], list[tuple[float, float]]],
    workloads: Sequence[str],
    names: Sequence[str],
) -> int:
    print(f"\n{'':14}" + "".join(f"{NAMES[name]:>34}" for name in names))
    for workload in workloads:
        cells = [took[workload, name] for name in names]
        print(f"{workload:14}" + "".join(f"{cell(runs):>34}" for runs in cells))
    status = 0
    for (name, ours), (whole_min, rest_min) in GOALS.items():
        if name not in names or ours not in names:
            continue
        for kind, place in (("wall", 0), ("CPU", 1)):
            ratios = {w: ratio(took[w, name], took[w, ours], place) for w in workloads}
            best = max(ratios, key=lambda w: ratios[w])
            rest = [r for w, r in ratios.items() if w != best] or [ratios[best]]
            whole, without = map(statistics.geometric_mean, (ratios.values(), rest))
            each = ", ".join(f"{w} {r:.1f}" for w, r in ratios.items())
            pair = f"{NAMES[name]} / {NAMES[ours]}"
            print(f"{pair:42} {kind:4} x {whole:.2f}, without {best} {without:.2f}  ({each})")
            if kind == "wall" and (whole < whole_min or without < rest_min):
                status = 1
    return status


def ratio(other: list[tuple[float, float]], ours: list[tuple[float, float]], place: int) -> float:
    """Of rounds, the middle one: both of a round met the same machine."""
    pairs = zip(other, ours, strict=True)
    return statistics.median(a[place] / max(b[place], 0.01) for a, b in pairs)


def cell(runs: list[tuple[float, float]]) -> str:
    wall = sorted(seconds for seconds, _ in runs)
    cpu = statistics.median(cpu for _, cpu in runs)
    return f"{statistics.median(wall):.2f} s ({wall[0]:.2f}-{wall[-1]:.2f}), CPU {cpu:.1f}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mib", type=int, default=64, help="of documents")
    parser.add_argument("--files", type=int, default=5000, help="small ones, of 10 KiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--workload", action="append", choices=WORKLOADS)
    parser.add_argument("--warm", default="small", choices=("small", "data"), help="first runs on")
    parser.add_argument("--arm", action="append", choices=NAMES, help="all, if not given")
    parser.add_argument("--dir", default="/var/tmp")
    return parser.parse_args()


def describe(args: argparse.Namespace) -> None:
    load = os.getloadavg()[0]
    print(
        f"{platform.node()}: {os.cpu_count()} CPUs, {platform.machine()}, load {load:.1f}; "
        f"{args.mib} MiB of documents, {args.files} files, {args.threads} threads, "
        f"{args.rounds} rounds"
    )


def make_data(folder: Path, size: int, files: int) -> None:
    """Always the same. Words are distributed as Zipf says; a fifth of the documents are copies;
    some are too short, or mostly numbers, or full of symbols."""
    rng = random.Random(7)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ["the", "be", "to", "of", "and", "that", "have", "with", "#", "É", "1984", "2,5"]
    words += ["".join(rng.choices(letters, k=rng.randint(2, 11))) for _ in range(20_000)]
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(words))))
    sentences = [
        " ".join(rng.choices(words, cum_weights=weights, k=rng.randint(6, 30)))
        for _ in range(20_000)
    ]
    (folder / "docs").mkdir(parents=True)
    outs = [(folder / "docs" / f"{i}.json").open("w") for i in range(FILES_OF_DOCS)]
    made, number = 0, 0
    before = ["first"]
    while made < size:
        kind = rng.random()
        if kind < 0.2:
            text = rng.choice(before)
        elif kind < 0.25:
            text = " ".join(str(rng.randrange(10_000)) for _ in range(120))
        elif kind < 0.3:
            text = "# … " * 60 + rng.choice(sentences)
        else:
            text = " ".join(rng.choices(sentences, k=rng.randint(1, 30)))
        if len(before) < 500:
            before.append(text)
        else:
            before[number % 500] = text
        url = f"https://site{rng.randrange(500)}.example/{rng.randrange(1 << 30):x}"
        line = json.dumps({"id": number, "url": url, "text": text}, ensure_ascii=False) + "\n"
        made += outs[number % FILES_OF_DOCS].write(line)
        number += 1
    for out in outs:
        out.close()
    (folder / "files").mkdir()
    for i in range(files):
        (folder / "files" / f"{i:06}.bin").write_bytes(rng.randbytes(FILE_BYTES))


if __name__ == "__main__":
    sys.exit(main())
