"""A slab: blocks in a file, and beside it the map that says what lies where. The pool's memory is
one on a tmpfs, which outlives the daemon; the segments of its disk tier are slabs on a disk.

    NAME.slab   granules, one run of them for each block; 8 bytes behind them: the slab's id
    NAME.map    header, then a record for each granule, of 96 bytes; only a block's first granule
                has one, all others are zeros

    header  magic 8, granule 8, granules 8, store 16, slab id 8, secret 8, xxh3_64 of the above 8
    record  magic 4, namespace 4, length 4, depth 4, uses 4, zero 4, born 8, last 8, checksum 8,
            key 16, parent 16 (zeros: none), check 8: xxh3_64 of the above, seeded with the secret
            and the granule, so that nothing a client wrote passes for a record

A record is written when its block is committed and zeroed before its room is given to another. The
bytes of blocks are only ever read and written by system calls: clients on this host write to the
slab too, and a file that somebody has cut short must be an error and not SIGBUS. Whoever reads a
block compares the checksum.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from xxhash import xxh3_64_intdigest

from superfs.core.errors import Code, FsError
from superfs.data.kvcache.runs import Runs
from superfs.rpc.window import Window

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from superfs.core.kvcache.table import Block
    from superfs.data.kvcache.config import KvCacheConfig
    from superfs.data.kvcache.namespaces import Namespace
    from superfs.data.kvcache.places import Place

_HEADER = struct.Struct("<8sQQ16sQQ")
_RECORD = struct.Struct("<IIIII4xQQQ16s16s")
_CHECK = struct.Struct("<Q")
_MAGIC = b"SFSKVM01"
_RECORD_MAGIC = 0x4B56424C
_MASK = (1 << 64) - 1
HEADER_BYTES = 4096
RECORD_BYTES = 96
SCAN_RECORDS = 8192
NO_KEY = bytes(16)

assert _RECORD.size + _CHECK.size <= RECORD_BYTES
assert _HEADER.size + _CHECK.size <= HEADER_BYTES


class Record(NamedTuple):
    namespace: int
    length: int
    depth: int
    uses: int
    born: int
    last: int
    checksum: int
    key: bytes
    parent: bytes


def record_of(space: Namespace, block: Block, place: Place) -> Record:
    parent = block.parent
    return Record(
        space.made.number, place.length, block.depth, block.uses, block.born, block.last,
        place.checksum, block.key, NO_KEY if parent is None else parent.key,
    )  # fmt: skip


class Slab:
    def __init__(self, path: Path, granule: int, granules: int, store: bytes, rng: Random) -> None:
        """OSError when there is no room for it."""
        self.granule = granule
        self.granules = granules
        self.path = path
        self._map_path = self.path.with_suffix(".map")
        self._store = store
        self.runs = Runs(self.granules)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with contextlib.ExitStack() as opened:
            self._fd = os.open(self.path, flags, 0o600)
            opened.callback(os.close, self._fd)
            self._map = os.open(self._map_path, flags, 0o600)
            opened.callback(os.close, self._map)
            for descriptor in (self._fd, self._map):
                found = os.fstat(descriptor)
                if found.st_uid != os.geteuid() or found.st_mode & 0o077:
                    raise PermissionError(errno.EPERM, "somebody else's file is in the way")
            if not self._known():
                self._make(rng)
            self._opened = opened.pop_all()

    @classmethod
    def open(cls, directory: Path, store: bytes, config: KvCacheConfig, rng: Random) -> Slab:
        granules = config.slab_bytes // config.granule_bytes
        path = directory / f"superfs-kv-{store.hex()}.slab"
        return cls(path, config.granule_bytes, granules, store, rng)

    def close(self) -> None:
        self._opened.close()

    def unlink(self) -> None:
        """And closes it. Nobody uses it any more."""
        self.close()
        self.path.unlink(missing_ok=True)
        self._map_path.unlink(missing_ok=True)

    @property
    def _bytes(self) -> int:
        return self.granule * self.granules

    def _known(self) -> bool:
        raw = os.pread(self._map, _HEADER.size + _CHECK.size, 0)
        if len(raw) < _HEADER.size + _CHECK.size:
            return False
        body, check = raw[: _HEADER.size], _CHECK.unpack_from(raw, _HEADER.size)[0]
        magic, granule, granules, store, self.id, self._secret = _HEADER.unpack(body)
        wanted = (_MAGIC, self.granule, self.granules, self._store)
        return (
            check == xxh3_64_intdigest(body)
            and (magic, granule, granules, store) == wanted
            and os.fstat(self._map).st_size == HEADER_BYTES + RECORD_BYTES * self.granules
            and os.fstat(self._fd).st_size == self._bytes + _CHECK.size
            and os.pread(self._fd, _CHECK.size, self._bytes) == _CHECK.pack(self.id)
        )

    def _make(self, rng: Random) -> None:
        self.id, self._secret = rng.getrandbits(64), rng.getrandbits(64)
        for descriptor, size in (
            (self._map, HEADER_BYTES + RECORD_BYTES * self.granules),
            (self._fd, self._bytes + _CHECK.size),
        ):
            os.ftruncate(descriptor, 0)
            os.posix_fallocate(descriptor, 0, size)
        os.pwrite(self._fd, _CHECK.pack(self.id), self._bytes)
        body = _HEADER.pack(_MAGIC, self.granule, self.granules, self._store, self.id, self._secret)
        os.pwrite(self._map, body + _CHECK.pack(xxh3_64_intdigest(body)), 0)

    # ---- records

    def granules_of(self, length: int) -> int:
        return -(-length // self.granule)

    def _seed(self, at: int) -> int:
        return int(self._secret + at) & _MASK

    def write_record(self, at: int, r: Record) -> None:
        body = _RECORD.pack(_RECORD_MAGIC, *r)
        check = _CHECK.pack(xxh3_64_intdigest(body, seed=self._seed(at)))
        os.pwrite(self._map, body + check, HEADER_BYTES + RECORD_BYTES * at)

    def zero_record(self, at: int) -> None:
        os.pwrite(self._map, bytes(RECORD_BYTES), HEADER_BYTES + RECORD_BYTES * at)

    def records(self) -> list[tuple[int, Record]]:
        """What was committed and not zeroed since; what is no record is passed over."""
        found = []
        for first in range(0, self.granules, SCAN_RECORDS):
            raw = os.pread(
                self._map, SCAN_RECORDS * RECORD_BYTES, HEADER_BYTES + RECORD_BYTES * first
            )
            for place in range(0, len(raw) - RECORD_BYTES + 1, RECORD_BYTES):
                at = first + place // RECORD_BYTES
                body = raw[place : place + _RECORD.size]
                magic, *fields = _RECORD.unpack(body)
                check = _CHECK.unpack_from(raw, place + _RECORD.size)[0]
                if magic != _RECORD_MAGIC or check != xxh3_64_intdigest(body, seed=self._seed(at)):
                    continue
                found.append((at, Record(*fields)))
        return found

    # ---- bytes

    def window(self) -> Window:
        """Onto its granules; whoever asks closes it. OSError where that cannot be."""
        return Window(self._fd, self._bytes)

    def sync(self) -> None:
        """What was written before; records are written only when it returns."""
        os.fdatasync(self._fd)

    def sync_records(self) -> None:
        os.fdatasync(self._map)

    def read(self, at: int, offset: int, length: int) -> bytes:
        data = os.pread(self._fd, length, at * self.granule + offset)
        if len(data) != length:
            raise FsError(Code.IO, f"{self.path} was cut short")
        return data

    def write(self, at: int, offset: int, data: bytes | memoryview) -> None:
        try:
            written = os.pwrite(self._fd, data, at * self.granule + offset)
        except OSError as error:
            raise FsError(Code.IO, f"{self.path}: {error.strerror}") from None
        if written != len(data):
            raise FsError(Code.NO_SPACE, f"{self.path}: no room")

    def checksum(self, at: int, length: int) -> int:
        return int(xxh3_64_intdigest(self.read(at, 0, length)))
