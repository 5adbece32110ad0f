"""What the page cache costs whoever only passes bytes on: into segments, with and without it.

    python bench/page_cache.py [--mib 1024] [--rounds 5] [--dir DIR] [--pause 4]

As a data daemon stores what a mount sends: files of 64 MiB, allocated, a mebibyte at a time, read
back, and synced at the end. Ways take turns. In the pause between them a virtual machine may give
free memory back to its host: then fresh pages cost what they cost a program that comes later.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time

from superfs.core.pagecache import RWF_DONTCACHE

PIECE, FILE, PAGE = 1 << 20, 64 << 20, 4096
WAYS = {"cached": 0, "passing": RWF_DONTCACHE}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", default="/var/tmp")
    parser.add_argument("--pause", type=float, default=4.0, help="seconds between two")
    args = parser.parse_args()
    python, load = sys.version.split()[0], os.getloadavg()[0]
    print(
        f"machine: {os.cpu_count()} cores, {platform.release()}, python {python}, load {load:.2f}"
    )
    print(f"{args.mib} MiB, {args.rounds} rounds, in {args.dir}; median (extremes)")
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    for n in range(args.rounds):
        for way in (*WAYS, *WAYS)[n % 2 : n % 2 + len(WAYS)]:
            with tempfile.TemporaryDirectory(dir=args.dir) as directory:
                time.sleep(args.pause)
                found[way].append(once(directory, args.mib, WAYS[way]))
    for way, times in found.items():
        rates, syncs, cpu = zip(*times, strict=True)
        print(f"{way:8} {spread(rates, 0)} MB/s, sync at the end {spread(syncs, 2)} s, "
              f"system {spread(cpu, 2)} s")  # fmt: skip
    return 0


def once(directory: str, mib: int, flags: int) -> tuple[float, float, float]:
    """(MB/s, seconds of the sync, seconds of system time)"""
    data, stored = memoryview(os.urandom(PIECE)), memoryview(bytearray(PIECE))
    files: list[int] = []
    place, cpu, began = FILE, os.times().system, time.perf_counter()
    for _ in range(mib):
        if place + PIECE > FILE:
            path = os.path.join(directory, str(len(files)))
            files.append(os.open(path, os.O_RDWR | os.O_CREAT))
            os.posix_fallocate(files[-1], 0, FILE)
            place = PAGE
        assert os.pwritev(files[-1], [data], place, flags) == PIECE
        assert os.preadv(files[-1], [stored], place, flags) == PIECE
        place += PIECE + PAGE
    written = time.perf_counter()
    for fd in files:
        os.fdatasync(fd)
        os.close(fd)
    ended = time.perf_counter()
    return mib * PIECE / 1e6 / (ended - began), ended - written, os.times().system - cpu


def spread(values: tuple[float, ...], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


if __name__ == "__main__":
    sys.exit(main())
