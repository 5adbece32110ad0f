"""Reads through passed descriptors, cold and warm, against plain pread of the same segment files.

    python bench/descriptors.py [--mib 512] [--rounds 5] [--piece-kib 1024] [--only descriptors]

One client of the library, one file, read from beginning to end in pieces by an unbuffered file
object; every block is verified, as always. Plain pread reads as many bytes of the segments that
hold the file, in pieces of the same size, and verifies nothing; only of what was written: segments
are allocated whole, and what was never written there is read without the disk. `grpc` is the same
client with the bypass switched off. Each of them takes turns with pread, in rounds of its own.
Cold: the pages of the segments have just been dropped, and the client is a new one that knows
nothing of the file. Warm: the same client reads once more.
A virtual machine gives free pages back to its host, and the first touch of what it gets again is
slow: 0.4 instead of 0.07 s of system time for 512 MiB. Which pages a cold read gets depends on the
sizes of those that were dropped before it: plain pread reads ahead into some of 64 KiB to 1 MiB at
the beginning of each segment, the client into more of 2 MiB, which pread's leave too few of behind.
So each cold read follows one of its own kind that does not count, whose pages have the sizes that
it needs; and a pause of random length, so that nobody runs in step with what the machine does from
time to time. Rounds in which either took more than twice the least system time of its kind are told
apart all the same.
Goals: 80 % of pread cold, 40 % warm.
"""

from __future__ import annotations

import argparse
import contextlib
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

from superfs.client import ClientConfig, FileSystem

SUPERFS = Path(sys.executable).parent / "superfs"
GOALS = {"cold": 0.8, "warm": 0.4}
PATH = "/descriptors"
PAUSE_S = 1.0
SETTLED_S = 2.0  # longer than a segment takes to be emptied and unlinked


@dataclass(frozen=True, slots=True)
class Taken:
    mb_s: float
    system_s: float


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--piece-kib", type=int, default=1024)
    parser.add_argument("--only", action="append", choices=("descriptors", "grpc"))
    parser.add_argument("--dir", default="/var/tmp", help="where the cluster lies")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="sfsb", dir=args.dir))
    kind = subprocess.run(["stat", "-f", "-c", "%T", work], capture_output=True, text=True)
    print(f"machine: {os.cpu_count()} cores, {platform.release()}, "
          f"python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(f"{args.mib} MiB in pieces of {args.piece_kib} KiB, {args.rounds} rounds, {args.dir} is "
          f"{kind.stdout.strip()}")  # fmt: skip
    home = work / "home"
    try:
        subprocess.run([SUPERFS, "up", "--dir", home, "--detach"], check=True)
        return measure(home, args)
    finally:
        subprocess.run([SUPERFS, "down", "--dir", home], check=False)
        shutil.rmtree(work)


def config(home: Path, *, bypass: bool = True) -> ClientConfig:
    return ClientConfig(
        (f"unix:{home.resolve()}/run/clusterd.sock",), home / "token", bypass=bypass
    )


def measure(home: Path, args: argparse.Namespace) -> int:
    piece = args.piece_kib << 10
    with FileSystem.connect(config(home)) as fs:
        write(fs, args.mib)
    segments = settled(home / "datad-2" / "segments")
    good = True
    chance = random.Random(1)
    for name in args.only or ("descriptors", "grpc"):
        taken: dict[tuple[str, str], list[Taken]] = {}
        for number in range(args.rounds):
            pair = ("pread", name) if number % 2 else (name, "pread")
            for arm in pair:
                time.sleep(chance.uniform(0, PAUSE_S))
                for _ in range(2):  # the first one leaves pages for the other
                    if arm == "pread":
                        drop(segments)
                        found = [pread(segments, args.mib << 20, piece) for _ in range(2)]
                    else:
                        found = by_client(home, segments, args, bypass=name == "descriptors")
                for state, one in zip(("cold", "warm"), found, strict=True):
                    taken.setdefault((arm, state), []).append(one)
        good &= report(name, taken)
    return 0 if good else 1


def by_client(
    home: Path, segments: list[Path], args: argparse.Namespace, *, bypass: bool
) -> list[Taken]:
    with FileSystem.connect(config(home, bypass=bypass)) as fs:
        drop(segments)
        found = [read(fs, args.piece_kib << 10) for _ in range(2)]
        moved = fs.paths.connection.data.bypass.moved
        assert (moved.read_grpc if bypass else moved.read_descriptor) == 0, moved
    return found


def write(fs: FileSystem, mib: int) -> None:
    piece = os.urandom(1 << 20)
    with fs.open(PATH, "wb", buffering=0) as file:
        for i in range(mib):
            file.write(i.to_bytes(8, "little") + piece[8:])
        file.sync()  # type: ignore[attr-defined]


def settled(directory: Path) -> list[Path]:
    """The segments, when compaction has emptied those that were written in part."""
    segments, since_s = sorted(directory.iterdir()), time.monotonic()
    while time.monotonic() - since_s < SETTLED_S:
        time.sleep(0.1)
        found = sorted(directory.iterdir())
        if found != segments:
            segments, since_s = found, time.monotonic()
    return segments


def drop(segments: list[Path]) -> None:
    for path in segments:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def pread(segments: list[Path], wanted: int, piece: int) -> Taken:
    files = [os.open(path, os.O_RDONLY) for path in segments]
    parts = [(fd, start, end) for fd in files for start, end in written(fd)]
    left = wanted
    started, system = time.perf_counter(), os.times().system
    for fd, at, end in parts:
        while left and at < end:
            size = len(os.pread(fd, min(piece, left, end - at), at))
            at += size
            left -= size
    taken = since(started, system, wanted)
    assert not left, "the segments are smaller than the file"
    for fd in files:
        os.close(fd)
    return taken


def written(fd: int) -> list[tuple[int, int]]:
    """(from, to) of what is on the disk, of a file whose pages have been written."""
    size, end, found = os.fstat(fd).st_size, 0, []
    with contextlib.suppress(OSError):  # ENXIO: nothing more
        while end < size:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
            found.append((start, end))
    return found


def read(fs: FileSystem, piece: int) -> Taken:
    with fs.open(PATH, "rb", buffering=0) as file:
        total = 0
        started, system = time.perf_counter(), os.times().system
        while data := file.read(piece):
            if total % (1 << 20) == 0:
                assert data[:8] == (total >> 20).to_bytes(8, "little"), f"wrong bytes at {total}"
            total += len(data)
        return since(started, system, total)


def since(started: float, system: float, size: int) -> Taken:
    return Taken(size / 1e6 / (time.perf_counter() - started), os.times().system - system)


def report(name: str, taken: dict[tuple[str, str], list[Taken]]) -> bool:
    good = True
    for state, goal in GOALS.items():
        ours, plain = taken[name, state], taken["pread", state]
        rounds = list(zip(ours, plain, strict=True))
        calm = [pair for pair in rounds if is_calm(pair[0], ours) and is_calm(pair[1], plain)]
        for kind, pairs in (("all", rounds), ("undisturbed", calm)):
            ratios = [one.mb_s / other.mb_s for one, other in pairs] or [0.0]
            each = " ".join(f"{ratio:.2f}" for ratio in ratios)
            print(
                f"{state}: {name}, {len(pairs)} rounds, {kind}: "
                f"{statistics.median(one.mb_s for one, _ in pairs or rounds):.0f} MB/s, pread "
                f"{statistics.median(other.mb_s for _, other in pairs or rounds):.0f} MB/s, ratio "
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}; {each}; "
                f"goal {goal})"
            )
            if name == "descriptors" and kind == "undisturbed":
                good &= statistics.median(ratios) >= goal
    return good


def is_calm(one: Taken, all_: list[Taken]) -> bool:
    return one.system_s <= 2 * min(other.system_s for other in all_)


if __name__ == "__main__":
    sys.exit(main())
