"""The index: an LMDB environment with the tables of keys.py.

LMDB keeps no checksums, so every record is sealed and every table tallied (keys.py). The file is
allocated to the size of its map: a commit never meets a full disk. One thread commits at a time;
reads happen on the event loop's thread, are short, and never wait for a commit. After an error of
a commit nothing more may be committed (the next one would falsely report success): the caller
ends the process, and the next start verifies.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from typing import TYPE_CHECKING, Any

import lmdb

from superfs.core.errors import Code, FsError
from superfs.core.limits import MIB
from superfs.daemon.lmdbfile import ADVICE, PAGE_BYTES, data_file
from superfs.data import keys, records
from superfs.data.batch import SUM_MASK, Batch, BatchWriter
from superfs.data.keys import CUT, EXTENT, FENCE, META, SEGMENT, TABLES, ChunkKey, FileKey
from superfs.data.records import (
    Boot,
    CutRecord,
    FenceRecord,
    Identity,
    Position,
    SegmentRecord,
    seal,
    unseal,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from superfs.data.extentmap import Pieces

READERS_MAX = 16
MAP_BYTES_MIN = 2 * MIB
BYTES_PER_CHANGE = 512
PAGES_PER_CHUNK = 3

_DAMAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.PanicError)


def allocate(path: Path, size: int) -> None:
    """Real blocks up to `size`; OSError leaves the file as long as it was."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        before = os.fstat(descriptor).st_size
        try:
            os.posix_fallocate(descriptor, 0, size)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)


def create(directory: Path, identity: Identity, map_bytes: int) -> None:
    """A new index in a new directory; durable when it returns."""
    directory.mkdir(mode=0o700)
    index = Index(directory, map_bytes, create=True)
    try:
        index.initialise(identity)
    finally:
        index.close()
    try:
        allocate(data_file(directory), map_bytes)
    except OSError as error:
        code = Code.NO_SPACE if error.errno == errno.ENOSPC else Code.IO
        raise FsError(code, f"{directory}: {error.strerror}") from None


def open_checked(directory: Path) -> Index:
    """Opens what verify.py has found good: with the size that the file has."""
    size = data_file(directory).stat().st_size // PAGE_BYTES * PAGE_BYTES
    try:
        return Index(directory, size)
    except lmdb.Error as error:
        raise FsError(Code.DAMAGED, f"{data_file(directory)}: {error}") from None


class Index:
    def __init__(
        self, directory: Path, map_bytes: int, *, create: bool = False, readonly: bool = False
    ) -> None:
        self.directory = directory
        self.map_bytes = map_bytes
        self.used_bytes = 0
        self._gate = threading.Lock()  # the map moves only while nobody looks at it
        self._env = lmdb.open(
            str(directory),
            map_size=map_bytes,
            max_dbs=len(TABLES) + 1,
            max_readers=READERS_MAX,
            create=create,
            readonly=readonly,
            mode=0o600,
        )
        self._db = {t: self._env.open_db(t.encode(), create=create) for t in (*TABLES, META)}
        self._tally = dict.fromkeys(TABLES, (0, 0))
        if not create:
            with self._reading() as txn:
                for table in TABLES:
                    self._tally[table] = self._stats(txn, table)
                self.used_bytes = self._used(txn)
        if not readonly:
            self._env.reader_check()

    def close(self) -> None:
        self._env.close()

    # ---- reading

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Any]:
        with self._gate, self._env.begin() as txn:
            yield txn

    def _meta(self, txn: Any, name: bytes) -> bytes | None:  # noqa: ANN401
        sealed = txn.get(name, db=self._db[META])
        return None if sealed is None else unseal(META, name, sealed)

    def _stats(self, txn: Any, table: str) -> tuple[int, int]:  # noqa: ANN401
        value = self._meta(txn, keys.meta_stats(table))
        if value is None:
            raise FsError(Code.DAMAGED, f"index: no statistics of table {table}")
        return records.parse_stats(value)

    def identity(self) -> Identity:
        with self._reading() as txn:
            value = self._meta(txn, keys.META_IDENTITY)
        if value is None:
            raise FsError(Code.DAMAGED, "index: it has no identity record")
        return records.parse_identity(value)

    def position(self) -> Position:
        with self._reading() as txn:
            value = self._meta(txn, keys.META_POSITION)
        if value is None:
            raise FsError(Code.DAMAGED, "index: it has no position record")
        return records.parse_position(value)

    def allocated_bytes(self) -> int:
        """The file is never shorter than this."""
        with self._reading() as txn:
            value = self._meta(txn, keys.META_ALLOCATED)
        return 0 if value is None else records.parse_number(value)

    def boots(self) -> tuple[Boot, ...]:
        """Oldest first."""
        with self._reading() as txn:
            value = self._meta(txn, keys.META_BOOTS)
        return () if value is None else records.parse_boots(value)

    def count(self, table: str) -> int:
        return self._tally[table][0]

    def _scan(self, table: str, start: bytes, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        with self._reading() as txn, txn.cursor(db=self._db[table]) as cursor:
            if not cursor.set_range(start):
                return
            for key, sealed in cursor:
                if not key.startswith(prefix):
                    return
                yield key, unseal(table, key, sealed)

    def sealed_records(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """Everything in a table, unchecked: for verify.py."""
        with self._reading() as txn, txn.cursor(db=self._db[table]) as cursor:
            yield from cursor

    def walk_all_pages(self) -> None:
        """Also those of LMDB's list of free pages, which no table shows: a compacting copy to
        nowhere counts them, and finds those that are in no tree."""
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            self._env.copyfd(nowhere, compact=True)
        finally:
            os.close(nowhere)

    def compare_tally(self, table: str, count: int, total: int) -> None:
        """DAMAGED unless that many records, adding up to that, were written."""
        wanted, sums = self._tally[table]
        if count != wanted:
            raise FsError(
                Code.DAMAGED, f"index: table {table} has {count} records, {wanted} were written"
            )
        if total & SUM_MASK != sums:
            raise FsError(Code.DAMAGED, f"index: the records of table {table} do not add up")

    def pieces_of(self, key: ChunkKey) -> Pieces:
        prefix = keys.pack_chunk(*key)
        found = []
        with self._reading() as txn, txn.cursor(db=self._db[EXTENT]) as cursor:
            if cursor.set_range(prefix):
                for name, sealed in cursor:
                    if not name.startswith(prefix):
                        break
                    _, offset = keys.parse_extent(name)
                    found.append(records.parse_piece(offset, unseal(EXTENT, name, sealed)))
        return tuple(found)

    def chunks_from(self, start: ChunkKey, limit: int) -> list[ChunkKey]:
        """At most `limit` chunks that have pieces, in order, the first not before `start`."""
        found: list[ChunkKey] = []
        seek = keys.pack_extent(*start, 0)
        with self._reading() as txn, txn.cursor(db=self._db[EXTENT]) as cursor:
            while len(found) < limit and cursor.set_range(seek):
                key, _ = keys.parse_extent(cursor.key())
                found.append(key)
                seek = keys.pack_extent(*key, 0xFFFFFFFF)
        return found

    def segments(self) -> dict[int, SegmentRecord]:
        found = self._scan(SEGMENT, b"", b"")
        return {keys.parse_number(k): records.parse_segment(v) for k, v in found}

    def cuts(self) -> dict[FileKey, CutRecord]:
        return {keys.parse_file(k): records.parse_cut(v) for k, v in self._scan(CUT, b"", b"")}

    def fences(self) -> dict[int, FenceRecord]:
        found = self._scan(FENCE, b"", b"")
        return {keys.parse_number(k): records.parse_fence(v) for k, v in found}

    # ---- committing

    def initialise(self, identity: Identity) -> None:
        with self._env.begin(write=True) as txn:
            self._put_meta(txn, keys.META_IDENTITY, records.pack_identity(identity))
            self._put_meta(txn, keys.META_POSITION, records.pack_position(Position(0, 0, 0)))
            self._put_meta(txn, keys.META_ALLOCATED, records.pack_number(self.map_bytes))
            for table in TABLES:
                self._put_meta(txn, keys.meta_stats(table), records.pack_stats(0, 0))

    def commit(self, batch: Batch) -> None:
        """All of it or nothing; durable when it returns. May be called from any one thread."""
        self._make_room(batch)
        try:
            with self._env.begin(write=True) as txn:
                writer = BatchWriter(txn, self._db, dict(self._tally))
                writer.apply(batch)
                for table, (count, total) in writer.tally.items():
                    self._put_meta(txn, keys.meta_stats(table), records.pack_stats(count, total))
                self._put_meta(txn, keys.META_POSITION, records.pack_position(batch.position))
                self._put_meta(txn, keys.META_ALLOCATED, records.pack_number(self.map_bytes))
                if batch.boots:
                    self._put_meta(txn, keys.META_BOOTS, records.pack_boots(batch.boots))
                used = self._used(txn)
        except _DAMAGE as error:
            raise FsError(Code.DAMAGED, f"index: commit failed: {error}. {ADVICE}") from None
        except lmdb.Error as error:
            raise FsError(Code.IO, f"index: commit failed: {error}") from None
        self._tally = writer.tally
        self.used_bytes = used

    def _put_meta(self, txn: Any, name: bytes, value: bytes) -> None:  # noqa: ANN401
        txn.put(name, seal(name, value), db=self._db[META])

    def _used(self, txn: Any) -> int:  # noqa: ANN401
        pages = 16
        for db in self._db.values():
            stat = txn.stat(db)
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return (pages + pages // 32) * PAGE_BYTES

    def _make_room(self, batch: Batch) -> None:
        """Enough for old and new pages of a commit side by side, if the disk has it."""
        changes = sum(len(new) for _, _, new in batch.chunks) + len(batch.cuts)
        pages = PAGES_PER_CHUNK * (len(batch.chunks) + len(batch.cuts) + len(batch.segments))
        need = 2 * changes * BYTES_PER_CHANGE + min(pages * PAGE_BYTES, self.used_bytes)
        if self.free_bytes < need + MIB:
            self.grow(max(need, self.map_bytes // 4))

    def ensure_free(self, wanted: int) -> None:
        """As far as the disk has it: whoever writes looks at `free_bytes`."""
        if self.free_bytes < wanted:
            self.grow(max(wanted, self.map_bytes // 4))

    @property
    def free_bytes(self) -> int:
        return self.map_bytes - self.used_bytes

    def grow(self, step_bytes: int) -> bool:
        """Between commits only, by the committing thread."""
        wanted = (self.map_bytes + step_bytes + MIB - 1) // MIB * MIB
        try:
            allocate(data_file(self.directory), wanted)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                return False
            raise
        with self._gate:
            self._env.set_mapsize(wanted)
            self.map_bytes = wanted
        return True
