"""Memory that clients on this host have shared, out of which their writes are stored.

Nothing is taken on trust. A buffer is a memfd that is sealed against becoming shorter. It is
mapped, but only the kernel reads it there, on its way into a segment: bytes that cannot be had are
then an error of that system call, and not a signal (SIGBUS). The checksum is of what the segment
holds (segments.py). A client that changes the bytes meanwhile gets one mixture of them stored, with
a checksum that is right; one whose memory cannot be read gets an error.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.limits import BUFFER_BYTES_MAX, MESSAGE_DATA_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from superfs.v1.data_pb2 import Shared


@dataclass(frozen=True, slots=True)
class Buffer:
    """Unmapped when nobody refers to it any more."""

    session: int
    memory: memoryview


class SharedBuffers:
    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._buffers: dict[int, Buffer] = {}

    def __len__(self) -> int:
        return len(self._buffers)

    def add(self, session: int, fd: int) -> int:
        """A number that only this client knows. INVALID for what is no such memory; else the
        descriptor is closed."""
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        except OSError:
            raise FsError(Code.INVALID, "not a memfd") from None
        if not seals & fcntl.F_SEAL_SHRINK:
            raise FsError(Code.INVALID, "a memfd that can become shorter")
        size = os.fstat(fd).st_size
        if not 0 < size <= BUFFER_BYTES_MAX:
            raise FsError(Code.INVALID, f"a buffer has from 1 to {BUFFER_BYTES_MAX} bytes")
        try:
            memory = memoryview(mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ))
        except (OSError, ValueError) as error:
            raise FsError(Code.INVALID, f"shared memory: {error}") from None
        os.close(fd)
        number = self._rng.getrandbits(63) + 1
        self._buffers[number] = Buffer(session, memory)
        return number

    def drop(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._buffers.pop(number, None)

    def view(self, session: int, place: Shared) -> memoryview:
        """For a system call to read, and nobody else. NOT_FOUND when there is no such buffer of
        this session (any more): the client sends the bytes themselves."""
        buffer = self._buffers.get(place.buffer)
        if buffer is None or buffer.session != session:
            raise FsError(Code.NOT_FOUND, "no such buffer is shared")
        if place.length > MESSAGE_DATA_BYTES_MAX:
            raise FsError(Code.TOO_LARGE, f"a write has at most {MESSAGE_DATA_BYTES_MAX} bytes")
        if place.offset + place.length > len(buffer.memory):
            raise FsError(Code.INVALID, "outside of the buffer")
        return buffer.memory[place.offset : place.offset + place.length]
