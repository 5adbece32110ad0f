"""Small files read through a mount that has never seen them, beside the floor and MooseFS.

    python bench/cold_mount.py [--files 600] [--size 3901] [--rounds 3] [--systems F,M,S]

`compare.py` drops the caches of the kernel, not those of a mount: its read-cold finds what SuperFS
keeps of small files by itself. Here SuperFS is mounted anew for every reading. Interleaved: each
order of reading is done by one system after the other, in an order that rotates. Of SuperFS also
the CPU time of mount and daemons while the files are read, in microseconds a file. Needs root.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from systems.moosefs import MooseFS
from systems.ours import Floor, SuperFS
from systems.system import System, cpu_s, wait_for

ORDERS = (("in order", 1), ("shuffled", 1), ("in order", 4), ("shuffled", 4))
MOUNT = Path(sys.executable).with_name("superfs-mount")
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
READER_TIMEOUT_S = 120


def read_all(paths: list[Path], size: int) -> tuple[float, float]:
    start = time.perf_counter()
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        found = len(os.read(fd, size + 1))
        os.close(fd)
        if found != size:
            raise ValueError(f"{path}: {found} bytes")
    return start, time.perf_counter()


def rate(directory: Path, size: int, *, shuffled: bool, readers: int) -> float:
    paths = sorted(directory.iterdir())
    if shuffled:
        random.Random(1).shuffle(paths)
    shares = [(paths[start::readers] if shuffled else part(paths, start, readers), size)
              for start in range(readers)]  # fmt: skip
    with multiprocessing.get_context("fork").Pool(readers) as pool:
        times = pool.starmap_async(read_all, shares, 1).get(READER_TIMEOUT_S)
    return len(paths) / (max(end for _, end in times) - min(start for start, _ in times))


def part(paths: list[Path], index: int, parts: int) -> list[Path]:
    return paths[index * len(paths) // parts : (index + 1) * len(paths) // parts]


def read_anew(
    system: System, size: int, cpu: list[float], *, shuffled: bool, readers: int
) -> float:
    os.sync()
    DROP_CACHES.write_text("3")
    if not isinstance(system, SuperFS):
        return rate(system.directory / "cold", size, shuffled=shuffled, readers=readers)
    point = system.work / "anew"
    point.mkdir(exist_ok=True)
    process = system.spawn([MOUNT, "-o", "log_level=warning", system.work / "home", point])
    try:
        wait_for(lambda: os.path.ismount(point), "a new mount")
        files = len(os.listdir(point / "cold"))
        pids = system.pids()
        before = cpu_s(pids)
        found = rate(point / "cold", size, shuffled=shuffled, readers=readers)
        cpu.append(1e6 * (cpu_s(pids) - before) / files)
        return found
    finally:
        subprocess.run(["umount", point], check=False)
        system.end(process)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--files", type=int, default=600)
    parser.add_argument("--size", type=int, default=3901)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--systems", default="F,M,S")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="superfs-cold.", dir="/var/tmp"))
    work.chmod(0o755)  # MooseFS runs as a user of its own
    chosen = [kind(work) for kind in (Floor, MooseFS, SuperFS)
              if kind.name in args.systems.split(",")]  # fmt: skip
    started: list[System] = []
    rates: dict[tuple[str, int, str], list[float]] = {}
    messages: dict[tuple[str, int], list[float]] = {}
    cpu: dict[tuple[str, int], list[float]] = {order: [] for order in ORDERS}
    try:
        for system in chosen:
            started.append(system)
            system.start()
            (system.directory / "cold").mkdir()
            for number in range(args.files):
                (system.directory / "cold" / f"f{number:06}").write_bytes(bytes(args.size))
        for turn in range(args.rounds):
            for order, readers in ORDERS:
                for system in chosen[turn % len(chosen) :] + chosen[: turn % len(chosen)]:
                    before = system.rpcs()
                    found = read_anew(
                        system,
                        args.size,
                        cpu[order, readers],
                        shuffled=order == "shuffled",
                        readers=readers,
                    )
                    after = system.rpcs()
                    if system.name == "S" and before is not None and after is not None:
                        count = (after - before) / args.files
                        messages.setdefault((order, readers), []).append(count)
                    rates.setdefault((order, readers, system.name), []).append(found)
    finally:
        for system in started:
            system.stop()
        shutil.rmtree(work, ignore_errors=True)
    print(f"{args.files} files of {args.size} bytes, {args.rounds} rounds, "
          f"load {os.getloadavg()[0]:.1f}")  # fmt: skip
    for order, readers in ORDERS:
        mine = rates[order, readers, "S"]
        line = f"{order:9} x{readers}  S {statistics.median(mine):8,.0f}/s"
        for name in ("F", "M"):
            other = rates.get((order, readers, name))
            if other:
                ratios = sorted(a / b for a, b in zip(mine, other, strict=True))
                middle = statistics.median(ratios)
                line += f"   S/{name} {middle:.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"
        counts = messages.get((order, readers))
        if counts:
            line += f"   messages a file, mounting included {statistics.median(counts):.3f}"
        if cpu[order, readers]:
            line += f"   {statistics.median(cpu[order, readers]):,.0f} us of CPU"
        print(line)


if __name__ == "__main__":
    main()
