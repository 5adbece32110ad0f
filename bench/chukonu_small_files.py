"""Very many small files: Chukonu past the mount against threads that read them through it.

    python bench/chukonu_small_files.py [--files 100000] [--bytes 10240] [--threads 8]

A cluster is made, filled by `put_many`, and mounted anew for every reading through the mount, with
the kernel's caches dropped before every reading of either kind, so that neither finds anything
there. Both count the files and their bytes, and must find the same. Needs root, for the caches.
Goal: 5.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SUPERFS = str(Path(sys.executable).with_name("superfs"))
FOLDER_FILES, BATCH, GOAL = 1000, 500, 5.0


def superfs(*args: str) -> None:
    null = subprocess.DEVNULL
    subprocess.run([SUPERFS, *args], check=True, stdout=null, stderr=null)


def fill(cluster: str, files: int, size: int) -> None:
    from superfs.fsspec.pool import connection_to
    from superfs.fsspec.target import find_target

    fs = connection_to(find_target(cluster, None, None))
    rng = random.Random(3)
    for number in range(-(-files // FOLDER_FILES)):
        fs.makedirs(f"/files/{number:04}")
    numbers = iter(range(files))
    while batch := list(itertools.islice(numbers, BATCH)):
        fs.put_many([(f"/files/{n // FOLDER_FILES:04}/{n:06}", rng.randbytes(size)) for n in batch])


def drop_caches() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def through_the_mount(cluster: str, mount: Path, threads: int) -> tuple[float, tuple[int, int]]:
    mount.mkdir()
    superfs("mount", "--dir", cluster, str(mount))
    try:
        drop_caches()
        started = time.perf_counter()

        def read(path: str) -> int:
            with open(path, "rb", buffering=0) as file:
                return len(file.read())

        paths = [
            os.path.join(folder, name)
            for folder, _, names in os.walk(mount / "files")
            for name in names
        ]
        with ThreadPoolExecutor(threads) as pool:
            sizes = list(pool.map(read, paths, chunksize=100))
        return time.perf_counter() - started, (len(sizes), sum(sizes))
    finally:
        superfs("umount", str(mount))
        mount.rmdir()


def past_the_mount(cluster: str) -> tuple[float, tuple[int, int]]:
    """In a process of its own, whose start is not counted."""
    command = [sys.executable, __file__, "--past", cluster]
    drop_caches()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, files, size, ways = done.stdout.split(maxsplit=3)
    print(f"  {ways.strip()}")
    return float(seconds), (int(files), int(size))


def past(cluster: str) -> None:
    from superfs.chukonu import Session
    from superfs.chukonu import functions as F

    with Session.builder.getOrCreate() as session:
        started = time.perf_counter()
        files = session.read.format("binaryFile").option("dir", cluster).load("superfs:///files")
        size = F.sum(F.octet_length("content"))
        row = files.agg(F.count("*").alias("n"), size.alias("b")).collect()[0]
        ways = session.executor.last_run.statistics()["bytes_by_way"]
        print(time.perf_counter() - started, row["n"], row["b"], f"bytes by way: {ways}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--bytes", type=int, default=10 << 10)
    parser.add_argument("--threads", type=int, default=8, help="that read through the mount")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", default="/var/tmp")
    parser.add_argument("--past", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.past:
        past(args.past)
        return 0
    work = Path(tempfile.mkdtemp(prefix="sfsb", dir=args.dir))
    cluster = str(work / "cluster")
    superfs("up", "--dir", cluster, "--detach")
    try:
        started = time.perf_counter()
        fill(cluster, args.files, args.bytes)
        seconds = time.perf_counter() - started
        print(
            f"{platform.node()}: {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; "
            f"{args.files:,} files of {args.bytes:,} bytes, put there in {seconds:.0f} s"
        )
        took: dict[str, list[float]] = {"mount": [], "past": []}
        for _ in range(args.rounds):
            one = through_the_mount(cluster, work / "mnt", args.threads)
            other = past_the_mount(cluster)
            if one[1] != other[1] or one[1][0] != args.files:
                print(f"they found {one[1]} and {other[1]}")
                return 1
            took["mount"].append(one[0])
            took["past"].append(other[0])
    finally:
        superfs("down", "--dir", cluster)
        shutil.rmtree(work)
    for name, label in (("mount", f"{args.threads} threads, mount"), ("past", "Chukonu, past it")):
        runs = sorted(took[name])
        print(f"{label:18} {statistics.median(runs):7.2f} s ({runs[0]:.2f}-{runs[-1]:.2f})")
    ratio = statistics.median(a / b for a, b in zip(took["mount"], took["past"], strict=True))
    print(f"times as fast: {ratio:.2f} (goal {GOAL})")
    return 0 if ratio >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
