"""Reading local files: whole, by their data ranges, and their extended attributes."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from superfs.core.limits import MESSAGE_DATA_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL_BYTES_MAX = MESSAGE_DATA_BYTES_MAX
"""Read whole; larger ones are streamed."""


def read_small(path: bytes) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        data = os.read(fd, SMALL_BYTES_MAX)
        # A short read is the end, nearly always; ask again to be sure.
        while len(data) < SMALL_BYTES_MAX and (more := os.read(fd, SMALL_BYTES_MAX - len(data))):
            data += more
        return data
    finally:
        os.close(fd)


def data_pieces(path: bytes) -> Iterator[tuple[int, bytes]]:
    with open(path, "rb", buffering=0) as file:
        for start, end in data_ranges(file.fileno(), os.fstat(file.fileno()).st_size):
            for offset in range(start, end, MESSAGE_DATA_BYTES_MAX):
                length = min(MESSAGE_DATA_BYTES_MAX, end - offset)
                yield offset, os.pread(file.fileno(), length, offset)


def data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of what is not a hole."""
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError:
            return  # nothing but a hole is left
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, min(end, size)
        position = end


def xattrs(path: bytes) -> Iterator[tuple[bytes, bytes]]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return  # the source keeps none
    for name in names:
        with contextlib.suppress(OSError):  # removed meanwhile
            yield os.fsencode(name), os.getxattr(path, name, follow_symlinks=False)
