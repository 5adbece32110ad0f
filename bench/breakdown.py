"""Where the time of one create and of one cold read goes, in microseconds, against the floor.

    python bench/breakdown.py [--files 300] [--rounds 5] [--dir /var/tmp]

One process, one file after the other. `create`: open(O_CREAT|O_EXCL) and close of an empty file.
`cold read`: open, read, close of a file of 4,096 bytes after the kernel has dropped everything and
the directory was listed: `alone` one file of each of many directories, so that nothing is fetched
ahead, `in order` all files of one directory. Mounted with noatime: access times go their own way,
later; and with nodelegate: else a create is no message of its own. What is told apart:

    kernel, device   the whole, less what the mount has worked on each request: system calls, waking
                     up, the way through /dev/fuse, and through the relay to pyfuse3 where need be
    mount            its own work and waiting on each request, less messages
    message          from the mount to metad and back, less what metad says of its commit
    commit           metad's transaction, synced to disk (superfs_meta_commit_seconds)

The floor is an in-memory pyfuse3 file system: kernel, device and answer, and nothing else. Means of
a round; the table gives medians over rounds and the lowest and highest. Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from compare import markdown
from systems.ours import METRICS, SUPERFS, Floor
from systems.system import wait_for

from superfs.cli.bench import caches
from superfs.cli.bench.results import file_system, machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILE_BYTES = 4096
SECONDS = "superfs_mount_seconds_sum"
MESSAGE = "superfs_mount_message_seconds"
Figures = dict[str, float]


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through every `finally`
    with contextlib.ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="sfsb", dir=args.dir))
        stack.callback(shutil.rmtree, work)
        floor = Floor(work)
        stack.callback(floor.close)
        floor.start()
        mount, metrics = stack.enter_context(superfs(work / "S"))
        about = machine()
        print(f"{about['cores']} cores, Linux {about['kernel']}, Python {about['python']}, load "
              f"{about['load']} before; disk is {file_system(work)}; {args.rounds} rounds of "
              f"{args.files} files")  # fmt: skip
        rows: dict[str, list[Figures]] = {}
        for number in range(args.rounds):
            for name, run in PHASES.items():
                theirs = {"floor": run(floor.mount / f"{name} {number}", args.files, dict)["whole"]}
                ours = run(mount / f"{name} {number}", args.files, lambda: read_all(metrics))
                rows.setdefault(name, []).append(parts(ours) | theirs)
    report(rows)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", default="/var/tmp", help="on the disk that is meant")
    args = parser.parse_args()
    if caches.why_not():
        parser.error(caches.why_not())
    return args


@contextlib.contextmanager
def superfs(work: Path) -> Iterator[tuple[Path, list[str]]]:
    """A mount, and the addresses of its metrics and of metad's."""
    home, mount = work / "home", work / "mnt"
    mount.mkdir(parents=True)
    quietly([SUPERFS, "up", "--dir", home, "--detach"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    try:
        options = f"noatime,nodelegate,metrics={address}"
        quietly([SUPERFS, "mount", "--dir", home, mount, "-o", options])
        wait_for(lambda: os.path.ismount(mount), "the mount")
        (log,) = home.glob("log/metad-*.log")
        yield mount, [address, METRICS.findall(log.read_text())[-1]]
    finally:
        subprocess.run(["umount", mount], check=False)
        quietly([SUPERFS, "down", "--dir", home])


def quietly(command: list[str | Path]) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def read_all(addresses: list[str]) -> Figures:
    found: Figures = {}
    for address in addresses:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as reply:
            for line in reply.read().decode().splitlines():
                if not line.startswith("#"):
                    name, _, value = line.rpartition(" ")
                    found[name] = float(value)
    return found


# ---- what is measured: each gives what one file took, in microseconds, and what was counted


def timed(count: int, run: Callable[[], object], counted: Callable[[], Figures]) -> Figures:
    before = counted()
    begun = time.perf_counter()
    run()
    took = time.perf_counter() - begun
    after = counted()
    used = {name: (value - before.get(name, 0)) * 1e6 / count for name, value in after.items()}
    return used | {"whole": took * 1e6 / count}


def create(top: Path, count: int, counted: Callable[[], Figures]) -> Figures:
    top.mkdir()
    paths = [str(top / f"f{number:06d}") for number in range(count)]

    def run() -> None:
        for path in paths:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))

    return timed(count, run, counted)


def read(paths: list[str]) -> None:
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        assert len(os.read(fd, FILE_BYTES + 1)) == FILE_BYTES
        os.close(fd)


def read_cold(directories: list[Path], a_directory: int, counted: Callable[[], Figures]) -> Figures:
    for directory in directories:
        directory.mkdir(parents=True)
        for number in range(a_directory):
            (directory / f"f{number:06d}").write_bytes(bytes(FILE_BYTES))
    caches.drop()
    paths = [entry.path for directory in directories for entry in sorted(
        os.scandir(directory), key=lambda entry: entry.name)]  # fmt: skip
    return timed(len(paths), lambda: read(paths), counted)


def read_alone(top: Path, count: int, counted: Callable[[], Figures]) -> Figures:
    return read_cold([top / f"d{number:06d}" for number in range(count // 3)], 1, counted)


def read_in_order(top: Path, count: int, counted: Callable[[], Figures]) -> Figures:
    return read_cold([top], count, counted)


PHASES = {"create": create, "cold read, alone": read_alone, "cold read, in order": read_in_order}


def parts(used: Figures) -> Figures:
    """Of the whole, in microseconds a file."""
    handled = sum(value for name, value in used.items() if name.startswith(SECONDS))
    message = used.get(f"{MESSAGE}_sum", 0.0)
    commit = used.get("superfs_meta_commit_seconds_sum", 0.0)
    return {
        "whole": used["whole"],
        "kernel, device": used["whole"] - handled,
        "mount": handled - message,
        "message": message - commit,
        "commit": commit,
    }


def report(rows: dict[str, list[Figures]]) -> None:
    names = ["whole", "kernel, device", "mount", "message", "commit", "floor"]
    table = [["us a file", *names]]
    for name, rounds in rows.items():
        row = [name]
        for column in names:
            values = sorted(figures[column] for figures in rounds)
            spread = f"{values[0]:,.0f}-{values[-1]:,.0f}"
            row.append(f"{statistics.median(values):,.0f} ({spread})")
        table.append(row)
    print()
    markdown(table)


if __name__ == "__main__":
    sys.exit(main())
