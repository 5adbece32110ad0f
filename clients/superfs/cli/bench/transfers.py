"""Big files: in sequence, and at random places. An act returns how many transfers it made.

Before a file is read its own process asks the kernel to forget its pages, which anybody may. Writes
end with fsync: what has not reached the file system is not counted as written.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

from superfs.cli.bench.shapes import PIECE_BYTES, RANDOM_BYTES
from superfs.cli.bench.smallfiles import WrongBytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.cli.bench.smallfiles import Part

STAMP_BYTES = 8


def seq_write(part: Part) -> int:
    # Stamped in place: making each piece anew would cost more than handing it to the kernel.
    piece = bytearray(random.Random(part.job.seed).randbytes(PIECE_BYTES))
    fd = os.open(part.big_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        for number in range(pieces(part)):
            piece[:STAMP_BYTES] = number.to_bytes(STAMP_BYTES, "little")
            if os.write(fd, piece) != PIECE_BYTES:
                raise WrongBytes(f"{part.big_file}: a short write")
        os.fsync(fd)
    finally:
        os.close(fd)
    return pieces(part)


def seq_read(part: Part) -> int:
    fd = _open_cold(part, os.O_RDONLY)
    try:
        for number in range(pieces(part)):
            found = os.read(fd, PIECE_BYTES)
            if len(found) != PIECE_BYTES or int.from_bytes(found[:STAMP_BYTES], "little") != number:
                raise WrongBytes(f"{part.big_file}: wrong bytes in piece {number}")
    finally:
        os.close(fd)
    return pieces(part)


def rand_read(part: Part) -> int:
    fd = _open_cold(part, os.O_RDONLY)
    try:
        for place in _places(part):
            if len(os.pread(fd, RANDOM_BYTES, place)) != RANDOM_BYTES:
                raise WrongBytes(f"{part.big_file}: a short read at {place}")
    finally:
        os.close(fd)
    return part.job.io_ops


def rand_write(part: Part) -> int:
    contents = random.Random(part.job.seed).randbytes(RANDOM_BYTES)
    fd = _open_cold(part, os.O_WRONLY)
    try:
        for place in _places(part):
            os.pwrite(fd, contents, place)
        os.fsync(fd)
    finally:
        os.close(fd)
    return part.job.io_ops


def pieces(part: Part) -> int:
    return max(1, part.job.io_bytes // PIECE_BYTES)


def _open_cold(part: Part, flags: int) -> int:
    fd = os.open(part.big_file, flags | os.O_CLOEXEC)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    if flags == os.O_RDONLY and part.job.shape.name == "rand":
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    return fd


def _places(part: Part) -> list[int]:
    rng = random.Random(part.job.seed + part.rank)
    blocks = pieces(part) * PIECE_BYTES // RANDOM_BYTES
    return [rng.randrange(blocks) * RANDOM_BYTES for _ in range(part.job.io_ops)]


ACTS: dict[str, Callable[[Part], int]] = {
    "seq-write": seq_write,
    "seq-read": seq_read,
    "rand-read": rand_read,
    "rand-write": rand_write,
}
