"""`superfs import` of a tree of small files against `cp -r` of the same tree through the mount.

    python bench/import_vs_cp.py [--files 10000] [--rounds 3] [--dir DIR]

Starts an embedded cluster of its own in a temporary directory, takes turns so that both meet the
same state of the machine, checks that what was imported is what was there, and prints every
round. Goals: import at least 5 times as fast as cp -r, and at least 2,000 files/s.
"""

from __future__ import annotations

import argparse
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

BIN = Path(sys.executable).parent
RATIO_MIN, FILES_PER_S_MIN = 5.0, 2000.0
FILES_PER_DIRECTORY = 100
MEDIAN_BYTES, SIGMA, BYTES_MAX = 2500, 1.2, 1 << 20


def main() -> int:
    args = arguments()
    work = Path(tempfile.mkdtemp(prefix="sfsb", dir=args.dir))
    home, mount, source = work / "home", work / "mnt", work / "source"
    total = make_tree(source, args.files)
    describe(args.files, total, args.rounds)
    mount.mkdir()
    try:
        superfs("up", "--dir", home, "--mount", mount, "--detach")
        rounds = [one_round(source, mount, home, work, i) for i in range(args.rounds)]
    finally:
        superfs("down", "--dir", home)
        shutil.rmtree(work)
    return report(args.files, rounds)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", default="/var/tmp", help="where the cluster and the tree lie")
    return parser.parse_args()


def make_tree(top: Path, files: int) -> int:
    """Sizes as in source trees: log-normal around a few KiB. Always the same tree."""
    rng = random.Random(1)
    total = 0
    for i in range(files):
        directory = top / f"d{i // FILES_PER_DIRECTORY // 10:02}" / f"e{i // FILES_PER_DIRECTORY}"
        if i % FILES_PER_DIRECTORY == 0:
            directory.mkdir(parents=True)
        size = min(int(rng.lognormvariate(0, SIGMA) * MEDIAN_BYTES), BYTES_MAX)
        (directory / f"f{i}").write_bytes(rng.randbytes(size))
        total += size
    return total


def one_round(source: Path, mount: Path, home: Path, work: Path, i: int) -> dict[str, float]:
    took = {
        "import": timed(superfs_command("import", "--dir", home, source, f"/import{i}")),
        "cp -r": timed(["cp", "-r", str(source), str(mount / f"cp{i}")]),
        "cp -r on ext4": timed(["cp", "-r", str(source), str(work / f"plain{i}")]),
    }
    subprocess.run(["diff", "-r", source, mount / f"import{i}"], check=True)
    shutil.rmtree(work / f"plain{i}")
    return took


def timed(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def superfs_command(*args: str | Path) -> list[str]:
    return [str(BIN / "superfs"), *map(str, args)]


def superfs(*args: str | Path) -> None:
    subprocess.run(superfs_command(*args), check=True, stdout=subprocess.DEVNULL)


def describe(files: int, total: int, rounds: int) -> None:
    load = os.getloadavg()[0]
    print(f"machine   {platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, "
          f"Python {platform.python_version()}, load {load:.1f}")  # fmt: skip
    print(f"tree      {files} files, {total / 1e6:.1f} MB, {FILES_PER_DIRECTORY} a directory")
    print(f"method    {rounds} rounds in turn; wall clock of whole processes; one embedded cluster")


def report(files: int, rounds: list[dict[str, float]]) -> int:
    for name in rounds[0]:
        times = sorted(r[name] for r in rounds)
        rates = [files / t for t in times]
        print(
            f"{name:14} {statistics.median(rates):8.0f} files/s   "
            f"median {statistics.median(times):.2f} s, {times[0]:.2f} to {times[-1]:.2f} s"
        )
    ratios = [r["cp -r"] / r["import"] for r in rounds]
    rate = files / statistics.median(r["import"] for r in rounds)
    ratio = statistics.median(ratios)
    met = ratio >= RATIO_MIN and rate >= FILES_PER_S_MIN
    print(f"ratio     {ratio:.1f} ({min(ratios):.1f} to {max(ratios):.1f}); goal {RATIO_MIN:g}, "
          f"and {FILES_PER_S_MIN:g} files/s: {'met' if met else 'NOT met'}")  # fmt: skip
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
