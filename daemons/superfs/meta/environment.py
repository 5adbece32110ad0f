"""The LMDB environment of a metadata daemon: made once, checked before it is opened, grown ahead.

In the state directory, beside the lock and the identity (daemon/statedir.py):

    making        only while the store is being made
    db/data.mdb   allocated to the size of the map, so that a write never meets a full disk
    db/lock.mdb   LMDB's reader table

Nothing here ever creates a store where an identity exists, or opens one without it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import lmdb

from superfs.core.errors import Code, FsError
from superfs.core.limits import MIB
from superfs.daemon.lmdbfile import fault_of
from superfs.daemon.statedir import Identity, identity_path, sync_directory
from superfs.meta import records
from superfs.meta.keys import IDENTITY_KEY, KEY_BYTES_MAX, Table
from superfs.meta.table import Records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from superfs.meta.table import LmdbTransaction

PAGE_BYTES = 4096
MAP_BYTES_MIN = 1 * MIB
READERS_MAX = 126
ROLE = "metad"
LATER_TABLES = (Table.CACHE, Table.CACHED, Table.CACHEWALK, Table.CACHEFILE, Table.CACHERANK)
TABLES_OF_OLD = tuple(table for table in Table if table not in LATER_TABLES)


def data_file(state_dir: Path) -> Path:
    return state_dir / "db" / "data.mdb"


# ---- making a store ------------------------------------------------------------------------------


def make_store(
    state_dir: Path, identity: Identity, map_bytes: int, populate: Callable[[Records], None]
) -> None:
    """Makes an empty store in a state directory without identity; the identity is written after
    it. An attempt that was cut short is known by its mark and is started over; a store that is
    there without the mark has lost its identity, which is damage, and is not touched."""
    if identity_path(state_dir).exists():
        raise FsError(Code.WRONG_IDENTITY, f"{state_dir} already holds a store: nothing was done")
    mark = state_dir / "making"
    map_bytes = max(map_bytes, MAP_BYTES_MIN)
    try:
        if mark.exists():
            shutil.rmtree(state_dir / "db", ignore_errors=True)
        elif (state_dir / "db").exists():
            raise FsError(
                Code.WRONG_IDENTITY,
                f"{state_dir} holds a store whose identity file is gone: nothing was done. "
                "Restore the file `identity`, or remove the directory (all its data is lost)",
            )
        mark.touch(mode=0o600)
        sync_directory(state_dir)
        (state_dir / "db").mkdir(mode=0o700)
        allocate(data_file(state_dir), map_bytes)
        # LMDB takes an empty file for a new store, and an allocated one for a broken one.
        os.truncate(data_file(state_dir), 0)
        environment = Environment(state_dir, map_bytes, create=True)
        try:
            with environment.begin() as writing:
                rows = writing.rows
                rows.put(Table.META, IDENTITY_KEY, records.pack_identity(identity))
                populate(rows)
                rows.flush()
                writing.commit()
        finally:
            environment.close()
        allocate(data_file(state_dir), map_bytes)
        sync_directory(state_dir / "db")
        mark.unlink()
        sync_directory(state_dir)
    except OSError as error:
        code = Code.NO_SPACE if error.errno == errno.ENOSPC else Code.IO
        raise FsError(code, f"{state_dir}: {error.strerror}") from None


def allocate(path: Path, size: int) -> None:
    """Real blocks up to `size`. OSError (ENOSPC) leaves the file as long as it was."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
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


# ---- an open store -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Writing:
    rows: Records
    commit: Callable[[], None]


class Environment:
    """One open store. Open it once a process (LMDB's rule), after `verify.verify_in_child`.

    Reading and growing exclude each other: the map may only move while nobody looks at it.
    The writer is one thread, and it alone grows.
    """

    def __init__(
        self, state_dir: Path, map_bytes: int, *, create: bool = False, readonly: bool = False
    ) -> None:
        self.map_bytes = map_bytes
        self._data_file = data_file(state_dir)
        self._gate = threading.Lock()
        self._lmdb = lmdb.open(
            str(state_dir / "db"),
            map_size=map_bytes,
            max_dbs=len(Table),
            max_readers=READERS_MAX,
            create=create,
            readonly=readonly,
            mode=0o600,
        )
        assert self._lmdb.max_key_size() >= KEY_BYTES_MAX
        self.databases = {t: self._lmdb.open_db(t.database, create=create) for t in TABLES_OF_OLD}
        for table in LATER_TABLES:
            # What an earlier version did not know is made by the daemon; until then it is empty.
            with contextlib.suppress(*([lmdb.NotFoundError] if readonly else [])):
                self.databases[table] = self._lmdb.open_db(table.database, create=not readonly)
        self.forget_dead_readers()

    def close(self) -> None:
        self._lmdb.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Records]:
        """Short, and never across an await: it holds up growth, and old pages."""
        with self._gate, self._lmdb.begin(buffers=False) as txn:
            yield Records(cast("LmdbTransaction", txn), self.databases)

    def forget_dead_readers(self) -> None:
        """A reader that was killed keeps its pages from being used again."""
        self._lmdb.reader_check()

    @contextlib.contextmanager
    def begin(self) -> Iterator[Writing]:
        """Of the writer thread. Aborts, unless `commit` was called; that returns when the
        transaction is durable."""
        txn = self._lmdb.begin(write=True, buffers=False)
        try:
            rows = Records(cast("LmdbTransaction", txn), self.databases, self._nested)
            rows.state.map_bytes = self.map_bytes
            yield Writing(rows, txn.commit)
        finally:
            txn.abort()  # of a committed one: does nothing

    def _nested(self, outer: LmdbTransaction) -> LmdbTransaction:
        parent = cast("lmdb.Transaction", outer)
        return cast("LmdbTransaction", self._lmdb.begin(write=True, parent=parent, buffers=False))

    def disk_free_bytes(self) -> int:
        found = os.statvfs(self._data_file)
        return found.f_bavail * found.f_frsize

    def grow(self, step_bytes: int) -> bool:
        """By one step, if the disk has it. Between transactions of the writer only."""
        wanted = self.map_bytes + step_bytes
        try:
            allocate(self._data_file, wanted)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                return False
            raise
        with self._gate:
            self._lmdb.set_mapsize(wanted)
            self.map_bytes = wanted
        return True


def open_checked(state_dir: Path) -> Environment:
    """With the size the file has: it was allocated to the size of its map."""
    size = data_file(state_dir).stat().st_size // PAGE_BYTES * PAGE_BYTES
    try:
        return Environment(state_dir, size)
    except lmdb.Error as error:
        raise fault_of(data_file(state_dir), error) from None
