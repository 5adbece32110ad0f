"""Cached stat, open + read and readdir of a real mount, against the floor (bench/floor.py).

    python bench/mount_floor.py [--files 1000] [--rounds 15] [-o OPTIONS]

Both are mounted at the same time with the same options and hold the same directory; rounds take
turns. The mount repeats what it was told under its leases; the floor, which has nobody to ask,
tells the kernel to believe it for as long as such a lease lasts. `getattr` forces one request each
(statx with AT_STATX_FORCE_SYNC), which the mount answers from its cache. Goal: at least 80 % of the
floor's rate each. Needs root.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BIN = Path(sys.executable).parent
GOAL = 0.8
AT_FDCWD, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS = -100, 0x2000, 0x7FF

_libc = ctypes.CDLL(None, use_errno=True)
_statx_buffer = ctypes.create_string_buffer(256)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--bytes", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("-o", dest="options", default="")
    parser.add_argument("--mount", type=Path, help="a mount that is there already")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="sfsb", dir="/tmp"))
    floor, ours = work / "floor", args.mount or work / "mnt"
    floor.mkdir()
    print(f"machine: {os.cpu_count()} cores, {platform.release()}, python {sys.version.split()[0]}")
    print(f"{args.files} files of {args.bytes} B, {args.rounds} rounds, -o {args.options or '-'}")
    command = [sys.executable, str(Path(__file__).with_name("floor.py")), str(floor)]
    command += ["--files", str(args.files), "--bytes", str(args.bytes), "-o", args.options]
    process = subprocess.Popen(command)
    try:
        if args.mount is None:
            start_cluster(work, ours, args.options)
        wait_for(lambda: os.path.ismount(floor))
        return compare(floor / "d", populate(ours / "floor-d", args.files, args.bytes), args.rounds)
    finally:
        subprocess.run(["umount", floor], check=False)
        process.wait(30)
        if args.mount is None:
            subprocess.run(["umount", ours], check=False)
            subprocess.run([BIN / "superfs", "down", "--dir", work / "home"], check=False)
        shutil.rmtree(work)


def start_cluster(work: Path, mount: Path, options: str) -> None:
    home = work / "home"
    mount.mkdir()
    subprocess.run([BIN / "superfs", "up", "--dir", home, "--detach"], check=True)
    command = [BIN / "superfs", "mount", "--dir", home, mount]
    subprocess.run([*command, *(["-o", options] if options else [])], check=True)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the floor does not come up"
        time.sleep(0.01)


def populate(directory: Path, files: int, size: int) -> Path:
    directory.mkdir(exist_ok=True)
    for i in range(files):
        (directory / f"f{i:06}").write_bytes(bytes(size))
    return directory


# ---- what is measured: each returns the number of operations


def getattr_(directory: Path, names: list[str]) -> int:
    for path in [os.fsencode(directory / name) for name in names]:
        result = _libc.statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, _statx_buffer)
        assert result == 0, os.strerror(ctypes.get_errno())
    return len(names)


def stat(directory: Path, names: list[str]) -> int:
    for path in [f"{directory}/{name}" for name in names]:
        os.stat(path)
    return len(names)


def open_read(directory: Path, names: list[str]) -> int:
    for path in [f"{directory}/{name}" for name in names]:
        fd = os.open(path, os.O_RDONLY)
        os.read(fd, 1 << 16)
        os.close(fd)
    return len(names)


def readdir(directory: Path, names: list[str]) -> int:
    for _ in range(5):
        assert len(os.listdir(directory)) == len(names)
    return 5 * len(names)


MEASURES: tuple[Callable[[Path, list[str]], int], ...] = (getattr_, stat, open_read, readdir)


def compare(floor: Path, ours: Path, rounds: int) -> int:
    names = sorted(os.listdir(ours))
    assert names == sorted(os.listdir(floor))
    worst = 10.0
    for measure in MEASURES:
        for directory in (floor, ours):
            measure(directory, names)
        rates: dict[Path, list[float]] = {floor: [], ours: []}
        for i in range(rounds):
            for directory in (floor, ours) if i % 2 else (ours, floor):
                # Warm as a working set is: what the round before left to expire is asked again.
                started = time.perf_counter()
                count = measure(directory, names)
                rates[directory].append(count / (time.perf_counter() - started))
        ratios = [mine / theirs for mine, theirs in zip(rates[ours], rates[floor], strict=True)]
        ratio = statistics.median(ratios)
        worst = min(worst, ratio)
        print(
            f"{measure.__name__.strip('_'):10} floor {statistics.median(rates[floor]):9.0f}/s  "
            f"ours {statistics.median(rates[ours]):9.0f}/s  ratio {ratio:.2f} "
            f"(quartiles {quartiles(ratios)}, goal {GOAL})"
        )
    return 0 if worst >= GOAL else 1


def quartiles(values: list[float]) -> str:
    low, _, high = statistics.quantiles(values, n=4)
    return f"{low:.2f} to {high:.2f}"


if __name__ == "__main__":
    sys.exit(main())
