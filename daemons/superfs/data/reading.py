"""Reads: which blobs make up a range, and fetching them, every touched block verified.

A plan is made at once, in the order of requests, and holds on to the segments that it needs:
they may be unlinked before it is carried out, their bytes stay. Carrying it out is possible in
any thread. A plan first tries what is in the page cache, which does not wait for a disk.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from superfs.core.errors import Code, FsError
from superfs.core.limits import BLOCK_BYTES
from superfs.data import records
from superfs.data.extentmap import CRC_BYTES, Part, Piece, block_count

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.data.keys import ChunkKey
    from superfs.data.segments import OpenFile

SCRATCH_BYTES = 2 << 20
_NOT_CACHED = (errno.EAGAIN, errno.EOPNOTSUPP)


class Fetch(NamedTuple):
    """Whole blocks to be read and verified, and which of their bytes are wanted. file None: a
    hole."""

    length: int  # wanted
    file: OpenFile | None = None
    piece: Piece | None = None
    place: int = 0  # in the file
    blocks_bytes: int = 0
    skip: int = 0  # before the wanted bytes
    crcs: bytes = b""


class Damage(NamedTuple):
    key: ChunkKey
    piece: Piece
    reason: str

    def __str__(self) -> str:
        k, p = self.key, self.piece
        return (
            f"inode {k.ino:#x} data generation {k.generation} chunk {k.chunk} offset {p.offset}: "
            f"segment {p.segment:016x} at {p.blob}: {self.reason}"
        )


class DamagedError(FsError):
    def __init__(self, damage: Damage) -> None:
        super().__init__(Code.DAMAGED, str(damage))
        self.damage = damage


def fetch_of(part: Part, open_file: Callable[[int], OpenFile]) -> Fetch:
    piece = part.piece
    length = part.end - part.start
    if piece is None:
        return Fetch(length)
    first = piece.skip + part.start - piece.offset
    block = first // BLOCK_BYTES
    base = block * BLOCK_BYTES
    stop = min(block_count(first + length) * BLOCK_BYTES, piece.blob_length)
    crcs = piece.crcs[block * CRC_BYTES : block_count(stop) * CRC_BYTES]
    file = open_file(piece.segment)
    return Fetch(length, file, piece, piece.blob + base, stop - base, first - base, crcs)


@dataclass(slots=True)
class ReadPlan:
    key: ChunkKey
    fetches: list[Fetch]

    def cached(self, scratch: bytearray) -> bytes | None:
        """The bytes, if all of them are in the page cache; None if a disk would be waited for."""
        if len(self.fetches) == 1:
            return self._cached(self.fetches[0], scratch)
        parts = []
        for fetch in self.fetches:
            part = self._cached(fetch, scratch)
            if part is None:
                return None
            parts.append(part)
        return b"".join(parts)

    def wait(self) -> bytes:
        """The bytes. Blocks; DamagedError when a block is not what was written."""
        return b"".join([self._waited(fetch) for fetch in self.fetches])

    def _cached(self, fetch: Fetch, scratch: bytearray) -> bytes | None:
        if fetch.file is None:
            return bytes(fetch.length)
        if fetch.blocks_bytes > len(scratch):
            return None
        view = memoryview(scratch)[: fetch.blocks_bytes]
        try:
            got = os.preadv(fetch.file.fd, [view], fetch.place, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno in _NOT_CACHED:
                return None
            raise self._failed(fetch, error) from None
        if got < fetch.blocks_bytes:
            return None
        self._verify(fetch, view)
        return bytes(view[fetch.skip : fetch.skip + fetch.length])

    def _waited(self, fetch: Fetch) -> bytes | memoryview:
        if fetch.file is None:
            return bytes(fetch.length)
        try:
            data = os.pread(fetch.file.fd, fetch.blocks_bytes, fetch.place)
        except OSError as error:
            raise self._failed(fetch, error) from None
        self._verify(fetch, data)
        if fetch.skip == 0 and fetch.length == len(data):
            return data
        return memoryview(data)[fetch.skip : fetch.skip + fetch.length]

    def _verify(self, fetch: Fetch, data: bytes | memoryview) -> None:
        if len(data) == fetch.blocks_bytes and records.block_crcs(data) == fetch.crcs:
            return
        assert fetch.piece is not None
        short = len(data) < fetch.blocks_bytes
        reason = "the segment is cut off" if short else "a block has a bad checksum"
        raise DamagedError(Damage(self.key, fetch.piece, reason))

    def _failed(self, fetch: Fetch, error: OSError) -> DamagedError:
        assert fetch.piece is not None
        return DamagedError(Damage(self.key, fetch.piece, f"cannot be read: {error.strerror}"))
