"""Slabs of data daemons on this host, as an R-worker has them: mapped, to be read, by descriptors
that S-workers pass.

Whatever happens to the file, reading goes on (guard.c), and every block is compared with its
checksum *after* it was copied: it was right when its lease began, nobody may write there while that
lasts, so what is right at the end was right meanwhile.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from typing import TYPE_CHECKING

import numpy as np
from xxhash import xxh3_64_intdigest

from superfs.core.errors import Code, FsError
from superfs.kvcache.fastdecode.kernel import Guard

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.kvcache.fastdecode.form import Memory

SLABS_MAX = 8
"""Of one S-worker: there is one for each data daemon on this host."""
_ID = struct.Struct("<Q")


class Slab:
    def __init__(self, descriptor: int, slab_id: int, kernel_dir: Path | None) -> None:
        """The descriptor stays the caller's. BAD_REQUEST: it is no file. UNAVAILABLE: it cannot be
        mapped here, or is another slab (again): daemons make them anew in place."""
        found = os.fstat(descriptor)
        size = found.st_size - _ID.size
        if not stat.S_ISREG(found.st_mode):
            raise FsError(Code.BAD_REQUEST, "a slab is a file")
        if size <= 0 or os.pread(descriptor, _ID.size, size) != _ID.pack(slab_id):
            raise FsError(Code.UNAVAILABLE, "the slab was made anew")
        try:
            self._map = mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ)
            self._bytes: Memory = np.frombuffer(self._map, np.uint8)
            self._guard = Guard(self._bytes, kernel_dir)
        except (OSError, ValueError) as error:
            raise FsError(Code.UNAVAILABLE, f"the slab cannot be mapped: {error}") from None

    def block(self, offset: int, size: int) -> Memory:
        """BAD_REQUEST: it is outside of the slab."""
        if not 0 <= offset <= self._bytes.nbytes - size:
            raise FsError(Code.BAD_REQUEST, f"{size} bytes at {offset} of a slab")
        return self._bytes[offset : offset + size]

    def close(self) -> None:
        """It is unmapped with the last who has a block of it: an error, for a while."""
        self._guard.close()
        del self._bytes, self._map


def is_right(block: Memory, checksum: int) -> bool:
    return bool(xxh3_64_intdigest(block) == checksum)


class Slabs:
    """Of one S-worker."""

    def __init__(self, kernel_dir: Path | None) -> None:
        self._kernel_dir = kernel_dir
        self._slabs: dict[int, Slab] = {}

    def get(self, slab_id: int, descriptor: int) -> Slab:
        """Mapped when it first comes; the one that was asked for longest ago makes way."""
        slab = self._slabs.pop(slab_id, None) or Slab(descriptor, slab_id, self._kernel_dir)
        self._slabs[slab_id] = slab
        if len(self._slabs) > SLABS_MAX:
            self._slabs.pop(next(iter(self._slabs))).close()
        return slab

    def close(self) -> None:
        while self._slabs:
            self._slabs.popitem()[1].close()
