"""The LMDB environment of a metadata daemon: made once, checked before it is opened, grown ahead.

A state directory holds

    identity      JSON: kind, cluster id, node, format version; written last when it is made
    making        only while it is being made
    lock          held (flock) by the one daemon that uses the directory
    db/data.mdb   allocated to the size of the map, so that a write never meets a full disk
    db/lock.mdb   LMDB's reader table

Nothing here ever creates a store where an identity exists, or opens one without it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import threading
from typing import TYPE_CHECKING, cast

import lmdb

from superfs.core.errors import Code, FsError
from superfs.core.limits import MIB
from superfs.meta import records
from superfs.meta.keys import IDENTITY_KEY, KEY_BYTES_MAX, Table
from superfs.meta.records import FORMAT_VERSION, Identity
from superfs.meta.table import Records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from superfs.meta.table import LmdbTransaction

PAGE_BYTES = 4096
MAP_BYTES_MIN = 1 * MIB
READERS_MAX = 126
KIND = "metad"


def identity_file(state_dir: Path) -> Path:
    return state_dir / "identity"


def data_file(state_dir: Path) -> Path:
    return state_dir / "db" / "data.mdb"


# ---- identity ------------------------------------------------------------------------------------


def read_identity(state_dir: Path) -> Identity:
    """FsError WRONG_IDENTITY when there is none, BAD_FORMAT when it is not for this program."""
    path = identity_file(state_dir)
    try:
        raw = json.loads(path.read_text("utf-8"))
        kind, version = raw["kind"], raw["format_version"]
        found = Identity(str(raw["cluster_id"]), int(raw["node_id"]), int(version))
    except FileNotFoundError:
        raise FsError(
            Code.WRONG_IDENTITY,
            f"{state_dir} holds no metadata store. If this node is new, make one with "
            "`superfs-metad --format`; if not, its disk is not mounted or its data is lost",
        ) from None
    except OSError as error:
        raise FsError(Code.IO, f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise FsError(Code.DAMAGED, f"{path} is not a readable identity file") from None
    if kind != KIND:
        raise FsError(Code.WRONG_IDENTITY, f"{state_dir} belongs to a {kind}, not to a {KIND}")
    if found.format_version != FORMAT_VERSION:
        raise FsError(
            Code.BAD_FORMAT,
            f"{state_dir} has format version {found.format_version}; this program knows only "
            f"{FORMAT_VERSION}. Use the program that wrote it",
        )
    return found


def check_identity(found: Identity, node_id: int, cluster_id: str | None) -> None:
    """`cluster_id` None: not known yet (the cluster map cannot be had at this moment)."""
    if found.node_id != node_id:
        raise FsError(
            Code.WRONG_IDENTITY,
            f"the store is of node {found.node_id}, the configuration says node {node_id}",
        )
    if cluster_id is not None and found.cluster_id != cluster_id:
        raise FsError(
            Code.WRONG_IDENTITY,
            f"the store is of cluster {found.cluster_id}, this is cluster {cluster_id}",
        )


def _write_identity(state_dir: Path, identity: Identity) -> None:
    path = identity_file(state_dir)
    text = json.dumps(
        {
            "kind": KIND,
            "cluster_id": identity.cluster_id,
            "node_id": identity.node_id,
            "format_version": identity.format_version,
        }
    )
    temporary = path.with_suffix(".new")
    with temporary.open("w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_directory(state_dir)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---- making a store ------------------------------------------------------------------------------


def format_store(
    state_dir: Path, identity: Identity, map_bytes: int, populate: Callable[[Records], None]
) -> None:
    """Makes an empty store in an empty (or missing) directory. An attempt that was cut short is
    known by its mark and is started over; anything else in the directory is a refusal."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    mark = state_dir / "making"
    if identity_file(state_dir).exists():
        raise FsError(Code.WRONG_IDENTITY, f"{state_dir} already holds a store: nothing done")
    if mark.exists():
        shutil.rmtree(state_dir / "db", ignore_errors=True)
    elif any(p.name not in ("lock", "lost+found") for p in state_dir.iterdir()):
        raise FsError(
            Code.WRONG_IDENTITY, f"{state_dir} is not empty and holds no store: nothing done"
        )
    try:
        mark.touch(mode=0o600)
        sync_directory(state_dir)
        (state_dir / "db").mkdir(mode=0o700)
        allocate(data_file(state_dir), max(map_bytes, MAP_BYTES_MIN))
    except OSError as error:
        code = Code.NO_SPACE if error.errno == errno.ENOSPC else Code.IO
        raise FsError(code, f"{state_dir}: {error.strerror}") from None
    # LMDB takes an empty file for a new store, and an allocated one for a broken one.
    os.truncate(data_file(state_dir), 0)
    environment = Environment(state_dir, max(map_bytes, MAP_BYTES_MIN), create=True)
    try:
        with environment.writing() as rows:
            rows.put(Table.META, IDENTITY_KEY, records.pack_identity(identity))
            populate(rows)
            rows.flush()
    finally:
        environment.close()
    allocate(data_file(state_dir), max(map_bytes, MAP_BYTES_MIN))
    sync_directory(state_dir / "db")
    _write_identity(state_dir, identity)
    mark.unlink()
    sync_directory(state_dir)


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


@contextlib.contextmanager
def exclusive(state_dir: Path) -> Iterator[None]:
    """Two daemons on one directory would destroy it: LMDB's own lock stops writers only."""
    try:
        descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FsError(Code.IO, f"{state_dir}/lock: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise FsError(Code.UNAVAILABLE, f"another process uses {state_dir}") from None
    finally:
        os.close(descriptor)


# ---- an open store -------------------------------------------------------------------------------


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
        self.databases = {t: self._lmdb.open_db(t.database, create=create) for t in Table}
        self._lmdb.reader_check()

    def close(self) -> None:
        self._lmdb.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Records]:
        """Short, and never across an await: it holds up growth, and old pages."""
        with self._gate, self._lmdb.begin(buffers=False) as txn:
            yield Records(cast("LmdbTransaction", txn), self.databases)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Records]:
        """Commits at the end, aborts on an exception. Durable when it returns."""
        with self._lmdb.begin(write=True, buffers=False) as txn:
            yield Records(cast("LmdbTransaction", txn), self.databases)

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
        raise FsError(Code.DAMAGED, f"{data_file(state_dir)}: {error}") from None
