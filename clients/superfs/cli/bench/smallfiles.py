"""Many small files: create, stat, open and read, list, rename, unlink.

An act does the part of one process and returns how many operations that was. What is read is
checked: its length, and the stamp that it begins with.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.cli.bench.shapes import Job

LS_PASSES = 5  # one alone is too short to measure
_STAMP = struct.Struct("<QQ")


class WrongBytes(Exception):
    """A file did not hold what had been written."""


@dataclass(slots=True)
class Part:
    """What one of the processes works on."""

    job: Job
    rank: int
    contents: bytes
    epoch: int = 0  # of the shuffled reader
    _paths: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, job: Job, rank: int) -> Part:
        # Random, so that nobody stores holes or compresses.
        return cls(job, rank, random.Random(job.seed).randbytes(job.file_bytes))

    @property
    def directory(self) -> str:
        return f"{self.job.top}/{'all' if self.job.shape.shared else f'p{self.rank}'}"

    @property
    def big_file(self) -> str:
        return f"{self.job.top}/big{self.rank}"

    def paths(self, prefix: str = "f") -> list[str]:
        if prefix not in self._paths:
            start = f"{self.directory}/{prefix}{self.rank}."
            self._paths[prefix] = [f"{start}{i:07}" for i in range(self.job.files)]
        return self._paths[prefix]

    @property
    def entries(self) -> int:
        return self.job.files * (self.job.procs if self.job.shape.shared else 1)

    def stamped(self, number: int) -> bytes:
        if len(self.contents) < _STAMP.size:
            return self.contents
        return _STAMP.pack(self.rank, number) + self.contents[_STAMP.size :]


def write_file(path: str, contents: bytes, *, fsync: bool) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        if contents and os.write(fd, contents) != len(contents):
            raise WrongBytes(f"{path}: a short write")
        if fsync:
            os.fsync(fd)
    finally:
        os.close(fd)


def read_file(path: str, size: int, rank: int, number: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.read(fd, size + 1)
    finally:
        os.close(fd)
    if len(found) != size:
        raise WrongBytes(f"{path}: {len(found)} bytes instead of {size}")
    if size >= _STAMP.size and _STAMP.unpack_from(found) != (rank, number):
        raise WrongBytes(f"{path}: not the bytes that were written")


def create(part: Part) -> int:
    fsync = part.job.fsync
    for number, path in enumerate(part.paths()):
        write_file(path, part.stamped(number), fsync=fsync)
    return part.job.files


def stat(part: Part) -> int:
    size = part.job.file_bytes
    for path in part.paths():
        if os.stat(path).st_size != size:
            raise WrongBytes(f"{path}: wrong size")
    return part.job.files


def read(part: Part) -> int:
    for number, path in enumerate(part.paths()):
        read_file(path, part.job.file_bytes, part.rank, number)
    return part.job.files


def ls(part: Part) -> int:
    for _ in range(LS_PASSES):
        found = len(os.listdir(part.directory))
        if found != part.entries:
            raise WrongBytes(f"{part.directory}: {found} entries instead of {part.entries}")
    return LS_PASSES * part.entries


def ls_l(part: Part) -> int:
    """The program, with all that it asks for: attributes, ACLs, security labels."""
    subprocess.run(["ls", "-l", part.directory], stdout=subprocess.DEVNULL, check=True)
    return part.entries


def rename(part: Part) -> int:
    for old, new in zip(part.paths(), part.paths("g"), strict=True):
        os.rename(old, new)
    return part.job.files


def unlink(part: Part) -> int:
    for path in part.paths("g"):
        os.unlink(path)
    return part.job.files


ACTS: dict[str, Callable[[Part], int]] = {
    "create": create,
    "stat": stat,
    "read": read,
    "ls": ls,
    "ls-l": ls_l,
    "rename": rename,
    "unlink": unlink,
}
