"""The cluster map on disk: LMDB in STATE_DIR/db, read and written whole.

Open it once a process, after `check_in_child`. An error at a commit leaves it unknown what is on
disk (the next commit would falsely report success), so it ends the process: `FsError` IO.

    python -m superfs.cluster.store STATE_DIR IDENTITY_JSON      the check that the child runs
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import lmdb

from superfs.cluster import records
from superfs.cluster.placement import Map
from superfs.core.errors import Code, FsError
from superfs.core.limits import MIB
from superfs.daemon import lmdbfile
from superfs.daemon.lmdbfile import PAGE_BYTES
from superfs.daemon.statedir import Identity, sync_directory

if TYPE_CHECKING:
    from superfs.daemon.failpoints import Failpoints

FORMAT = 1
MAP_BYTES = 16 * MIB
"""Allocated at once: 1,024 nodes with all they can have take less than a fifth of it."""


class MapStore(Protocol):
    """Where the map is kept. One implementation is LMDB, here; another may be etcd."""

    def load(self) -> Map: ...

    def save(self, new: Map) -> None:
        """Durable when it returns. FsError IO: unknown, stop serving."""
        ...

    def close(self) -> None: ...


class LmdbStore:
    def __init__(self, state_dir: Path, identity: Identity, failpoints: Failpoints) -> None:
        """DAMAGED or WRONG_IDENTITY if it is not a whole store of this identity."""
        self._path = lmdbfile.data_file(_store(state_dir))
        self._failpoints = failpoints
        arguments = [str(state_dir), json.dumps(asdict(identity))]
        lmdbfile.check_in_child(__name__, arguments, self._path)
        self._identity = identity
        self._lmdb = _open(state_dir)

    def load(self) -> Map:
        with self._lmdb.begin() as txn:
            return _unpack(txn, self._path)[1]

    def save(self, new: Map) -> None:
        wanted = records.pack(self._identity, new)
        self._failpoints.hit("clusterd.commit.before")
        try:
            with self._lmdb.begin(write=True) as txn:
                _write(txn, wanted)
        except lmdb.MapFullError:
            raise FsError(Code.NO_SPACE, "the cluster map has outgrown its store") from None
        except lmdb.Error as error:
            raise FsError(Code.IO, f"{self._path}: {error}") from None
        self._failpoints.hit("clusterd.commit.after")

    def close(self) -> None:
        self._lmdb.close()


def create(state_dir: Path, identity: Identity) -> None:
    """An empty map in a state directory that holds none."""
    store = _store(state_dir)
    if store.exists():
        raise FsError(
            Code.WRONG_IDENTITY,
            f"{store} exists although {state_dir} was never formatted to its end; "
            "if it holds nothing of value, remove it and format again",
        )
    store.mkdir(mode=0o700)
    # LMDB writes its two meta pages only into an empty file: it is filled up afterwards.
    environment = _open(state_dir, create=True)
    try:
        with environment.begin(write=True) as txn:
            _write(txn, records.pack(identity, Map(identity.cluster_id)))
    finally:
        environment.close()
    lmdbfile.allocate_to(lmdbfile.data_file(store), MAP_BYTES)
    sync_directory(store)
    sync_directory(state_dir)


def check(state_dir: Path, identity: Identity) -> None:
    """Reads everything. May end in SIGABRT or SIGBUS: for a child process."""
    path = lmdbfile.data_file(_store(state_dir))
    lmdbfile.check_file(path)
    try:
        environment = _open(state_dir, readonly=True)
        with environment.begin() as txn:
            found, _ = _unpack(txn, path)
    except lmdb.Error as error:
        raise lmdbfile.fault_of(path, error) from None
    if found != identity:
        raise FsError(
            Code.WRONG_IDENTITY, f"{path} is of cluster {found.cluster_id}, not of this directory's"
        )


def _store(state_dir: Path) -> Path:
    return state_dir / "db"


def _open(state_dir: Path, *, create: bool = False, readonly: bool = False) -> Any:  # noqa: ANN401
    path = lmdbfile.data_file(_store(state_dir))
    size = MAP_BYTES if create else max(path.stat().st_size // PAGE_BYTES * PAGE_BYTES, PAGE_BYTES)
    return lmdb.open(
        str(_store(state_dir)), map_size=size, create=create, readonly=readonly, mode=0o600
    )


def _write(txn: Any, wanted: records.Records) -> None:  # noqa: ANN401
    with txn.cursor() as cursor:
        present = dict(cursor)
    for key in present.keys() - wanted.keys():
        txn.delete(key)
    for key, value in wanted.items():
        if present.get(key) != value:
            txn.put(key, value)


def _unpack(txn: Any, path: Path) -> tuple[Identity, Map]:  # noqa: ANN401
    with txn.cursor() as cursor:
        found = dict(cursor)
    for key, value in found.items():
        if txn.get(key) != value:
            raise FsError(Code.DAMAGED, f"{path}: record {key!r} is not found by its key")
    try:
        return records.unpack(found)
    except FsError as error:
        raise FsError(error.code, f"{path}: {error.detail}") from None


if __name__ == "__main__":
    sys.exit(
        lmdbfile.child_main(lambda: check(Path(sys.argv[1]), Identity(**json.loads(sys.argv[2]))))
    )
