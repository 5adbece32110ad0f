"""Checks the whole store against itself, in a process of its own, while the daemon goes on.

The child reads one snapshot: it holds up nothing but the reuse of old pages, and a page that
LMDB cannot bear ends the child and not the daemon. Findings come as JSON lines.

    python -m superfs.meta.fsck STATE_DIR
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb

from superfs.core.attrs import Attr, Flag, unpack_attr
from superfs.core.errors import Code, FsError
from superfs.core.namespace.check import Finding, check
from superfs.daemon.exits import EXIT_IO
from superfs.daemon.lmdbfile import death_of, fault_of
from superfs.meta import keys, records
from superfs.meta.cachecheck import check_caches
from superfs.meta.environment import PAGE_BYTES, Environment, data_file
from superfs.meta.keys import Table, Work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from superfs.core.namespace.txn import Dentry, Directory, Orphan
    from superfs.meta.table import Records
    from superfs.v1 import common_pb2


class StoreWalker:
    """core/namespace/check.Walker over one read transaction."""

    def __init__(self, rows: Records) -> None:
        self._rows = rows

    def dentries(self) -> Iterator[tuple[int, bytes, Dentry]]:
        for key, record in self._rows.scan(Table.DENTRY, b""):
            yield *keys.parse_dentry(key), records.unpack_dentry(record)

    def inodes(self) -> Iterator[tuple[int, int, Attr]]:
        for key, record in self._rows.scan(Table.INODE, b""):
            yield *keys.parse_inode(key), unpack_attr(record)

    def directories(self) -> Iterator[tuple[int, Directory]]:
        for key, record in self._rows.scan(Table.DIRECTORY, b""):
            yield keys.parse_id(key), records.unpack_directory(record)

    def xattrs(self) -> Iterator[tuple[int, int, bytes]]:
        for key, _ in self._rows.scan(Table.XATTR, b""):
            yield keys.parse_xattr(key)

    def inlines(self) -> Iterator[tuple[int, int, int]]:
        for key, record in self._rows.scan(Table.INLINE, b""):
            yield *keys.parse_inode(key), len(record)

    def moved(self) -> Iterator[tuple[int, int]]:
        for key, record in self._rows.scan(Table.MOVED, b""):
            yield keys.parse_id(key), records.unpack_id(record)

    def orphans(self) -> Iterator[tuple[int, Orphan]]:
        for key, record in self._rows.scan(Table.ORPHAN, b""):
            yield keys.parse_id(key), records.unpack_orphan(record)


def check_store(rows: Records) -> Iterator[Finding]:
    yield from check(StoreWalker(rows))
    yield from check_bookkeeping(rows)
    yield from check_caches(rows)


def check_bookkeeping(rows: Records) -> Iterator[Finding]:
    """What the daemon keeps beside the namespace: numbers, sessions, debts."""
    alive = set()
    for key, record in rows.scan(Table.SESSION, b""):
        if not records.unpack_session(record).ended_ns:
            alive.add(keys.parse_id(key))
    for key in rows.keys(Table.REPLY, b""):
        slot, session, seq = keys.parse_reply(key)
        if session not in alive:
            yield Finding("reply-without-session", f"session {session:#x}", f"{slot}/{seq}")
    for key, record in rows.scan(Table.RESERVED, b""):
        run = records.unpack_run(record)
        if run.session not in alive:
            last = keys.parse_id(key)
            yield Finding("reserved-without-session", f"inodes {run.first:#x} to {last:#x}")
    for key, record in rows.scan(Table.ORPHAN, b""):
        for session in sorted(records.unpack_orphan(record).holders - alive):
            ino = keys.parse_id(key)
            yield Finding("orphan-without-session", f"inode {ino:#x}", f"session {session:#x}")
    yield from _check_truncations(rows)


def _check_truncations(rows: Records) -> Iterator[Finding]:
    owed = set()
    for key in rows.keys(Table.REAP, b""):
        ino, generation, kind = keys.parse_reap(key)
        if kind == Work.TRUNCATE:
            owed.add((ino, generation))
    for table in (Table.INODE, Table.ORPHAN):
        for _, record in rows.scan(table, b""):
            attr = unpack_attr(record)
            if attr.flags & Flag.TRUNCATING and (attr.ino, attr.data_generation) not in owed:
                yield Finding("truncating-for-ever", f"inode {attr.ino:#x}")


# ---- the child -----------------------------------------------------------------------------------


async def check_in_child(state_dir: Path) -> AsyncIterator[common_pb2.Finding]:
    import asyncio  # the child itself does without

    from superfs.v1 import common_pb2

    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "superfs.meta.fsck",
        str(state_dir),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    try:
        async for line in child.stdout:
            found = json.loads(line)
            yield common_pb2.Finding(severity=common_pb2.Finding.ERROR, **found)
        died = _death(data_file(state_dir), await child.wait())
        if died is not None:
            yield common_pb2.Finding(
                severity=common_pb2.Finding.ERROR,
                kind="check-died",
                object=str(data_file(state_dir)),
                detail=f"{died}: restart metad, which verifies",
            )
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


def _death(path: Path, code: int) -> str | None:
    """Of a child that did not get to its end; FsError where that says nothing of the store."""
    if code == 0:
        return None
    if code == EXIT_IO:
        raise FsError(Code.IO, f"{path}: the check failed, see the daemon's log")
    if code > 0:
        return f"the check ended with status {code}"
    error = death_of(path, code)
    if error.code is not Code.DAMAGED:
        raise error
    return error.detail


def main() -> int:
    state_dir = Path(sys.argv[1])
    size = data_file(state_dir).stat().st_size // PAGE_BYTES * PAGE_BYTES
    try:
        environment = Environment(state_dir, size, readonly=True)
        with environment.reading() as rows:
            for finding in check_store(rows):
                print(json.dumps(asdict(finding)), flush=True)
    except (FsError, lmdb.Error, MemoryError) as error:
        path = data_file(state_dir)
        found = fault_of(path, error) if isinstance(error, lmdb.Error) else error
        if isinstance(found, MemoryError) or found.code is Code.IO:
            print(f"superfs-metad: the check of {path}: {found!r}", file=sys.stderr)
            return EXIT_IO
        finding = Finding(Code.DAMAGED.name.lower(), str(path), found.detail)
        print(json.dumps(asdict(finding)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
