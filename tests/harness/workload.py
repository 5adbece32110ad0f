"""A writer whose every promise is written down outside the file system under test.

    python workload.py DIR MANIFEST SEED

It does one small thing after the other in DIR and, when the file system has acknowledged it as
durable, appends a line to MANIFEST and syncs it. Before an operation that destroys something it
writes an intent. Any error ends it with status 1: a client must not see a daemon's restart.

    will N           an operation on object N begins that changes or removes what was acknowledged
    file N SIZE      `file-N` has contents(N, SIZE), whole, under its final name
    gone N           file-N is removed
    log N            line N is in the log
    block N VALUE    block N of `blocks` holds VALUE
    dir N            directory dir-N exists
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

BLOCK, BLOCKS = 8192, 40

SIZES = (0, 50, 3000, 8161, 20_000, 200_000, 1_500_000)


def contents(number: int, size: int) -> bytes:
    return random.Random(number * 1_000_003 + size).randbytes(size)


def block_of(number: int, value: int) -> bytes:
    return (b"%08d %08d " % (number, value)) * (BLOCK // 18) + bytes(BLOCK % 18)


class Workload:
    def __init__(self, top: Path, manifest: Path, seed: int) -> None:
        self.top = top
        self.rng = random.Random(seed)
        self.manifest = os.open(manifest, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self.files: list[int] = []
        self.number = 0
        self.stopped = False
        self.log = os.open(top / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self.blocks = os.open(top / "blocks", os.O_CREAT | os.O_RDWR)
        os.ftruncate(self.blocks, BLOCK * BLOCKS)
        self.directory = os.open(top, os.O_RDONLY)
        os.fsync(self.blocks)

    def note(self, *words: object) -> None:
        os.write(self.manifest, (" ".join(map(str, words)) + "\n").encode())
        os.fdatasync(self.manifest)

    def run(self) -> None:
        steps = (self.new_file, self.new_file, self.new_log_line, self.new_block, self.new_dir,
                 self.remove)  # fmt: skip
        while not self.stopped:
            self.number += 1
            self.rng.choice(steps)()

    def new_file(self) -> None:
        number, size = self.number, self.rng.choice(SIZES)
        name = self.top / f"new-{number}"
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        data = contents(number, size)
        for start in range(0, size, 65_536):
            os.write(fd, data[start : start + 65_536])
        os.fsync(fd)
        os.close(fd)
        os.rename(name, self.top / f"file-{number}")
        os.fsync(self.directory)
        self.note("file", number, size)
        self.files.append(number)

    def new_log_line(self) -> None:
        os.write(self.log, b"%08d\n" % self.number)
        os.fsync(self.log)
        self.note("log", self.number)

    def new_block(self) -> None:
        number = self.rng.randrange(BLOCKS)
        self.note("will", "block", number, self.number)
        os.pwrite(self.blocks, block_of(number, self.number), number * BLOCK)
        os.fsync(self.blocks)
        self.note("block", number, self.number)

    def new_dir(self) -> None:
        os.mkdir(self.top / f"dir-{self.number}")
        os.close(os.open(self.top / f"dir-{self.number}" / "in", os.O_CREAT | os.O_EXCL))
        os.fsync(self.directory)
        self.note("dir", self.number)

    def remove(self) -> None:
        if len(self.files) < 5:
            return
        number = self.files.pop(self.rng.randrange(len(self.files)))
        self.note("will", "gone", number)
        os.unlink(self.top / f"file-{number}")
        os.fsync(self.directory)
        self.note("gone", number)


def verify(top: Path, manifest: Path) -> list[str]:
    """Everything acknowledged is there, and nothing is half done. Says what is wrong."""
    files: dict[int, int] = {}
    dirs: set[int] = set()
    lines: list[int] = []
    doomed: set[int] = set()
    blocks: dict[int, set[int]] = {n: {0} for n in range(BLOCKS)}
    for line in manifest.read_text().splitlines():
        match line.split():
            case ["file", number, size]:
                files[int(number)] = int(size)
            case ["will", "gone", number]:
                doomed.add(int(number))
            case ["gone", number]:
                del files[int(number)]
            case ["log", number]:
                lines.append(int(number))
            case ["will", "block", number, value]:
                blocks[int(number)].add(int(value))
            case ["block", number, value]:
                blocks[int(number)] = {int(value)}
            case ["dir", number]:
                dirs.add(int(number))
    there = set(os.listdir(top))
    wrong = _wrong_files(top, there, files, doomed)
    wrong += [f"dir-{n} is lost" for n in dirs if not (top / f"dir-{n}" / "in").exists()]
    wrong += _half_done(top, there, files)
    logged = [int(line) for line in (top / "log").read_bytes().split()]
    if logged[: len(lines)] != lines or len(logged) > len(lines) + 1:
        wrong.append(f"the log has {len(logged)} lines, {len(lines)} were acknowledged")
    return wrong + _wrong_blocks(top, blocks)


def _wrong_files(top: Path, there: set[str], files: dict[int, int], doomed: set[int]) -> list[str]:
    wrong = []
    for number, size in files.items():
        name = f"file-{number}"
        if name not in there:
            if number not in doomed:
                wrong.append(f"{name} is lost")
        elif (top / name).read_bytes() != contents(number, size):
            wrong.append(f"{name} has other contents")
    return wrong


def _wrong_blocks(top: Path, blocks: dict[int, set[int]]) -> list[str]:
    wrong = []
    data = (top / "blocks").read_bytes()
    for number, values in blocks.items():
        found = data[number * BLOCK : (number + 1) * BLOCK]
        good = [bytes(BLOCK) if v == 0 else block_of(number, v) for v in values]
        if found not in good:
            wrong.append(f"block {number} holds none of {values}: {found[:40]!r}")
    return wrong


def _half_done(top: Path, there: set[str], files: dict[int, int]) -> list[str]:
    """A file under its final name is whole even if it was not acknowledged any more."""
    wrong = []
    for name in there:
        number = int(name.rpartition("-")[2]) if name.startswith("file-") else 0
        if number and number not in files:
            data = (top / name).read_bytes()
            if data != contents(number, len(data)) or len(data) not in SIZES:
                wrong.append(f"{name} is half done: {len(data)} bytes")
    return wrong


def main() -> None:
    top, manifest, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    workload = Workload(top, manifest, seed)

    def stop(_number: int, _frame: object) -> None:
        workload.stopped = True

    signal.signal(signal.SIGTERM, stop)
    workload.run()


if __name__ == "__main__":
    main()
