"""Epochs over a big shuffled data set of small files, beside the floor and MooseFS.

    python bench/epochs.py [--files 20000] [--size 4096] [--readers 4] [--rounds 3]

`compare.py` makes its data set through each mount; here SuperFS gets it in bulk, so that 20,000
files take seconds. Each round: the kernel drops everything, one epoch, and another one, by one
system after the other in an order that rotates. Also `ls -l` of the whole, cold. Needs root.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cold_mount import DROP_CACHES, READER_TIMEOUT_S, read_all
from systems.moosefs import MooseFS
from systems.ours import Floor, SuperFS

from superfs.client import FileSystem
from superfs.core.config import load
from superfs.mount.options import MountConfig

if TYPE_CHECKING:
    from systems.system import System

PART = 2000


def fill(system: System, files: int, size: int) -> None:
    top = system.directory / "set"
    top.mkdir()
    names = [f"f{number:06}" for number in range(files)]
    if not isinstance(system, SuperFS):
        for name in names:
            (top / name).write_bytes(bytes(size))
        return
    config = load(MountConfig, system.work / "home/config/mount.toml")
    with FileSystem.connect(config.client) as fs:
        for at in range(0, files, PART):
            fs.put_many({f"/set/{name}": bytes(size) for name in names[at : at + PART]})


def epoch(system: System, size: int, readers: int, seed: int) -> float:
    paths = sorted((system.directory / "set").iterdir())
    random.Random(seed).shuffle(paths)
    shares = [(paths[start::readers], size) for start in range(readers)]
    with multiprocessing.get_context("fork").Pool(readers) as pool:
        times = pool.starmap_async(read_all, shares, 1).get(READER_TIMEOUT_S)
    return len(paths) / (max(end for _, end in times) - min(start for start, _ in times))


def listing(system: System, files: int) -> float:
    os.sync()
    DROP_CACHES.write_text("3")
    begun = time.perf_counter()
    subprocess.run(["ls", "-l", system.directory / "set"], stdout=subprocess.DEVNULL, check=True)
    return files / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--systems", default="F,M,S")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="superfs-epochs.", dir="/var/tmp"))
    work.chmod(0o755)  # MooseFS runs as a user of its own
    chosen = [kind(work) for kind in (Floor, MooseFS, SuperFS)
              if kind.name in args.systems.split(",")]  # fmt: skip
    started: list[System] = []
    rates: dict[tuple[str, str], list[float]] = {}
    try:
        for system in chosen:
            started.append(system)
            system.start()
            fill(system, args.files, args.size)
        for turn in range(args.rounds):
            for system in chosen[turn % len(chosen) :] + chosen[: turn % len(chosen)]:
                found = {"ls -l, cold": listing(system, args.files)}
                os.sync()
                DROP_CACHES.write_text("3")
                found["first epoch, cold"] = epoch(system, args.size, args.readers, 2 * turn)
                found["second epoch"] = epoch(system, args.size, args.readers, 2 * turn + 1)
                for what, rate in found.items():
                    rates.setdefault((what, system.name), []).append(rate)
    finally:
        for system in started:
            system.stop()
        shutil.rmtree(work, ignore_errors=True)
    print(f"{args.files} files of {args.size} bytes, {args.readers} readers, {args.rounds} rounds, "
          f"load {os.getloadavg()[0]:.1f}")  # fmt: skip
    for what in dict.fromkeys(what for what, _ in rates):
        mine = rates[what, "S"]
        line = f"{what:18}  S {statistics.median(mine):8,.0f}/s"
        for name in ("F", "M"):
            other = rates.get((what, name))
            if other:
                ratios = sorted(a / b for a, b in zip(mine, other, strict=True))
                line += f"   S/{name} {statistics.median(ratios):.2f}"
                line += f" ({ratios[0]:.2f}-{ratios[-1]:.2f})"
        print(line)


if __name__ == "__main__":
    main()
