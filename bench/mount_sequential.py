"""Sequential write and read of one big file through a mount, against ext4 on the same disk.

    python bench/mount_sequential.py [--mib 1024] [--rounds 3] [--dir DIR] [--mount MNT]

Rounds take turns. A write ends with fsync; before a read the page cache of the file is dropped,
on ext4 too. Goal: at least 250 MB/s each, or 25 % of ext4 in the same run.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BIN = Path(sys.executable).parent
PIECE = 1 << 20
GOAL_MB_S, GOAL_RATIO = 250.0, 0.25


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", default="/var/tmp", help="where the cluster and the file lie")
    parser.add_argument("--mount", type=Path, help="a mount that is there already")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="sfsb", dir=args.dir))
    ours = args.mount or work / "mnt"
    kind = subprocess.run(["stat", "-f", "-c", "%T", work], capture_output=True, text=True)
    print(f"machine: {os.cpu_count()} cores, {platform.release()}, python {sys.version.split()[0]}")
    print(f"{args.mib} MiB, pieces of {PIECE >> 10} KiB, {args.rounds} rounds, {args.dir} is "
          f"{kind.stdout.strip()}")  # fmt: skip
    try:
        if args.mount is None:
            start_cluster(work, ours)
        places = {"disk": work / "big", "mount": ours / "bench-big"}
        rates: dict[tuple[str, str], list[float]] = {}
        for _ in range(args.rounds):
            for name, path in places.items():
                rates.setdefault((name, "write"), []).append(write(path, args.mib))
                rates.setdefault((name, "read"), []).append(read(path, args.mib))
                path.unlink()
    finally:
        if args.mount is None:
            subprocess.run(["umount", ours], check=False)
            subprocess.run([BIN / "superfs", "down", "--dir", work / "home"], check=False)
        shutil.rmtree(work)
    return report(rates)


def start_cluster(work: Path, mount: Path) -> None:
    mount.mkdir()
    home = work / "home"
    command = [BIN / "superfs", "up", "--dir", home, "--mount", mount, "--detach"]
    subprocess.run(command, check=True)


def write(path: Path, mib: int) -> float:
    piece = os.urandom(PIECE)
    started = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for i in range(mib):
            file.write(i.to_bytes(8, "little") + piece[8:])
        os.fsync(file.fileno())
    return mib * PIECE / 1e6 / (time.perf_counter() - started)


def read(path: Path, mib: int) -> float:
    buffer = bytearray(PIECE)
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        started = time.perf_counter()
        for i in range(mib):
            assert file.readinto(buffer) == PIECE, "a short read"
            assert buffer[:8] == i.to_bytes(8, "little"), f"wrong bytes in piece {i}"
        return mib * PIECE / 1e6 / (time.perf_counter() - started)


def report(rates: dict[tuple[str, str], list[float]]) -> int:
    good = True
    for what in ("write", "read"):
        disk, mount = (statistics.median(rates[name, what]) for name in ("disk", "mount"))
        good &= mount >= GOAL_MB_S or mount / disk >= GOAL_RATIO
        spread = " ".join(f"{rate:.0f}" for rate in rates["mount", what])
        print(
            f"{what:5} disk {disk:6.0f} MB/s  mount {mount:6.0f} MB/s  ratio {mount / disk:.2f}  "
            f"(mount, each round: {spread}; goal {GOAL_MB_S:.0f} MB/s or {GOAL_RATIO})"
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
