"""Marks: numbers in shared memory that say, without a message, whether a file has changed.

A client that reads from segments itself must not go by an old place for longer than until the
change is answered. So every change of what is visible in a file counts up the file's mark before
anybody is answered, and the client compares the mark with the one that came with the places
(Locate) before each of its reads. Marks are shared by chance: a change of one file then costs
readers of another a question, nothing more.

The memory is a memfd that only this process can write to: sealed against everybody else, and
against any change of its size. Clients pread it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superfs.data.keys import FileKey

MARKS = 1 << 16
MARK_BYTES = 8
_F_SEAL_FUTURE_WRITE = 0x10  # linux/fcntl.h; not in Python's fcntl yet
_SPREAD = 0x9E3779B97F4A7C15


class Marks:
    def __init__(self) -> None:
        size = MARKS * MARK_BYTES
        self._writable = os.memfd_create("superfs-marks", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.posix_fallocate(self._writable, 0, size)
        self._memory = mmap.mmap(self._writable, size)
        self._numbers = memoryview(self._memory).cast("Q")
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self._writable, fcntl.F_ADD_SEALS, seals)
        self.fd = os.open(f"/proc/self/fd/{self._writable}", os.O_RDONLY | os.O_CLOEXEC)
        """What is passed."""

    def of(self, file: FileKey) -> tuple[int, int]:
        """(number of the mark, its value)."""
        number = _number(file)
        return number, self._numbers[number]

    def change(self, file: FileKey) -> None:
        self._numbers[_number(file)] += 1

    def close(self) -> None:
        self._numbers.release()
        self._memory.close()
        os.close(self._writable)
        os.close(self.fd)


def _number(file: FileKey) -> int:
    ino, generation = file
    return ((ino + generation) * _SPREAD >> 40) % MARKS
