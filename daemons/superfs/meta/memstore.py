"""The tables of a metadata daemon in plain dicts: what tests and models run the rules on.

Keeps the contract of `Txn` to the letter: copies in and out, nothing missing is deleted, a rule
that raised FsError has changed nothing. There is one transaction at a time and no way back; a
commit is one operation, unless the caller holds it open (`batch`).
"""

from __future__ import annotations

import bisect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from superfs.core.errors import FsError
from superfs.core.ids import (
    ChainId,
    DataGeneration,
    Generation,
    InodeId,
    SessionId,
    file_id,
)
from superfs.core.layout import assign_chains
from superfs.core.limits import INLINE_BYTES_MAX, SYMLINK_BYTES_MAX
from superfs.core.namespace.check import Finding, check
from superfs.core.namespace.make_root import make_root
from superfs.core.namespace.txn import Caller, Dentry, Directory, Orphan, Txn
from superfs.core.namespace.verbs import VERBS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from superfs.core.attrs import Attr
    from superfs.core.namespace.outcome import Outcome

P = ParamSpec("P")
T = TypeVar("T")

_START_NS = 1_000_000_000_000_000_000
_TICK_NS = 1_000


class MemStore:
    """A store and its one transaction. `room_bytes` and `chains` may be set by a test."""

    def __init__(self, *, with_root: bool = True) -> None:
        self.dentries: dict[int, dict[bytes, Dentry]] = {}
        self.names: dict[int, list[bytes]] = {}  # of each directory, sorted
        self.inodes: dict[tuple[int, int], Attr] = {}
        self.directories: dict[int, Directory] = {}
        self.xattrs: dict[tuple[int, int], dict[bytes, bytes]] = {}
        self.inline: dict[tuple[int, int], bytes] = {}
        self.moved: dict[int, int] = {}
        self.orphans: dict[int, Orphan] = {}
        self.opened: dict[int, set[int]] = {}
        self.reserved: dict[int, int] = {}
        self.reaped: list[tuple[int, int]] = []  # (ino, data generation)
        self.shrunk: list[tuple[int, int, int]] = []  # (ino, data generation, size)
        self.chains: tuple[int, ...] = (1, 2)
        self.room_bytes = 1 << 40
        self.mutations = 0
        self._now_ns = _START_NS
        self._commit = 0
        self._numbers: dict[tuple[str, int], int] = {}
        self._in_batch = False
        if with_root:
            self.run(make_root)

    # ---- running rules

    def run(self, rule: Callable[Concatenate[Txn, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """One operation: the next moment, and the next commit unless in a batch."""
        self._now_ns += _TICK_NS
        if not self._in_batch:
            self._commit += 1
        before = self.mutations
        try:
            return rule(self, *args, **kwargs)
        except FsError:
            assert self.mutations == before, f"{rule.__name__} changed something and then raised"
            raise

    def do(self, verb: str, caller: Caller, *args: object, **options: object) -> Outcome:
        """One operation by the name that it has on the wire."""
        return self.run(VERBS[verb], caller, *args, **options)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Operations that become durable together: one commit number for all."""
        self._commit += 1
        self._in_batch = True
        try:
            yield
        finally:
            self._in_batch = False

    @property
    def now_ns(self) -> int:
        return self._now_ns

    @property
    def commit(self) -> int:
        return self._commit

    # ---- dentries

    def get_dentry(self, directory: int, name: bytes) -> Dentry | None:
        dentry = self.dentries.get(directory, {}).get(name)
        return None if dentry is None else _copy_dentry(dentry)

    def put_dentry(self, directory: int, name: bytes, dentry: Dentry) -> None:
        self.mutations += 1
        assert dentry.generation, dentry
        entries = self.dentries.setdefault(directory, {})
        if name not in entries:
            bisect.insort(self.names.setdefault(directory, []), name)
        entries[name] = _copy_dentry(dentry)

    def delete_dentry(self, directory: int, name: bytes) -> None:
        self.mutations += 1
        assert name in self.dentries.get(directory, {}), (directory, name)
        del self.dentries[directory][name]
        names = self.names[directory]
        del names[bisect.bisect_left(names, name)]
        if not names:
            del self.dentries[directory], self.names[directory]

    def list_dentries(
        self, directory: int, after: bytes, limit: int
    ) -> Iterable[tuple[bytes, Dentry]]:
        names = self.names.get(directory, [])
        first = bisect.bisect_right(names, after) if after else 0
        entries = self.dentries.get(directory, {})
        return iter([(n, _copy_dentry(entries[n])) for n in names[first : first + limit]])

    # ---- inodes and directories

    def get_inode(self, place: int, ino: int) -> Attr | None:
        attr = self.inodes.get((place, ino))
        return None if attr is None else attr.copy()

    def put_inode(self, attr: Attr) -> None:
        self.mutations += 1
        assert attr.generation, attr
        assert attr.nlink > 0, attr
        assert not attr.is_dir, attr
        self.inodes[attr.place, attr.ino] = attr.copy()

    def delete_inode(self, place: int, ino: int) -> None:
        self.mutations += 1
        del self.inodes[place, ino]

    def get_directory(self, ino: int) -> Directory | None:
        directory = self.directories.get(ino)
        return None if directory is None else directory.copy()

    def put_directory(self, directory: Directory) -> None:
        self.mutations += 1
        attr = directory.attr
        assert attr.is_dir, attr
        assert attr.place == attr.ino, attr
        assert attr.generation, attr
        self.directories[attr.ino] = directory.copy()

    def delete_directory(self, ino: int) -> None:
        self.mutations += 1
        del self.directories[ino]

    # ---- xattrs and inline contents

    def get_xattr(self, place: int, ino: int, name: bytes) -> bytes | None:
        return self.xattrs.get((place, ino), {}).get(name)

    def put_xattr(self, place: int, ino: int, name: bytes, value: bytes) -> None:
        self.mutations += 1
        self.xattrs.setdefault((place, ino), {})[name] = bytes(value)

    def delete_xattr(self, place: int, ino: int, name: bytes) -> None:
        self.mutations += 1
        values = self.xattrs[place, ino]
        del values[name]
        if not values:
            del self.xattrs[place, ino]

    def list_xattrs(self, place: int, ino: int) -> Sequence[bytes]:
        return sorted(self.xattrs.get((place, ino), ()))

    def get_inline(self, place: int, ino: int) -> bytes | None:
        return self.inline.get((place, ino))

    def put_inline(self, place: int, ino: int, data: bytes) -> None:
        self.mutations += 1
        assert len(data) <= max(INLINE_BYTES_MAX, SYMLINK_BYTES_MAX), len(data)
        self.inline[place, ino] = bytes(data)

    def delete_inline(self, place: int, ino: int) -> None:
        self.mutations += 1
        del self.inline[place, ino]

    # ---- files elsewhere

    def get_moved(self, ino: int) -> int | None:
        return self.moved.get(ino)

    def put_moved(self, ino: int, place: int) -> None:
        self.mutations += 1
        self.moved[ino] = place

    def delete_moved(self, ino: int) -> None:
        self.mutations += 1
        del self.moved[ino]

    def get_orphan(self, ino: int) -> Orphan | None:
        orphan = self.orphans.get(ino)
        return None if orphan is None else orphan.copy()

    def put_orphan(self, orphan: Orphan) -> None:
        self.mutations += 1
        assert orphan.attr.place == orphan.attr.ino, orphan
        assert orphan.attr.nlink == 0, orphan
        assert orphan.holders, orphan
        self.orphans[orphan.attr.ino] = orphan.copy()

    def delete_orphan(self, ino: int) -> None:
        self.mutations += 1
        del self.orphans[ino]

    def open_sessions(self, ino: int, place: int = 0) -> Iterable[int]:
        return tuple(self.opened.get(ino, ()))

    # ---- numbers

    def _count(self, kind: str, slot: int, count: int = 1) -> int:
        self.mutations += 1
        first = self._numbers.get((kind, slot), 1)
        self._numbers[kind, slot] = first + count
        return first

    def new_inode_ids(self, slot: int, count: int) -> InodeId:
        return file_id(slot, self._count("ino", slot, count))

    def new_generation(self, slot: int) -> Generation:
        return Generation(self._count("generation", slot))

    def new_data_generation(self, slot: int) -> DataGeneration:
        return DataGeneration(self._count("data", slot))

    def reserve_inode_ids(self, slot: int, count: int, session: int) -> InodeId:
        first = self.new_inode_ids(slot, count)
        self.reserved.update((ino, session) for ino in range(first, first + count))
        return first

    def reserved_by(self, ino: int) -> SessionId | None:
        session = self.reserved.get(ino)
        return None if session is None else SessionId(session)

    def use_reserved(self, ino: int) -> None:
        self.mutations += 1
        del self.reserved[ino]

    # ---- work for the data daemons

    def reap_data(self, attr: Attr) -> None:
        # Not a mutation: a rule may reap what a refused writer has written (see Txn).
        assert attr.data_generation, attr
        self.reaped.append((attr.ino, attr.data_generation))

    def truncate_data(self, attr: Attr, size: int) -> None:
        self.mutations += 1
        assert attr.data_generation, attr
        self.shrunk.append((attr.ino, attr.data_generation, size))

    def choose_chains(self, ino: int, layout: Sequence[int]) -> tuple[ChainId, ...]:
        wanted = [c for c in layout if c in self.chains] or self.chains
        return tuple(ChainId(c) for c in assign_chains(wanted, ino, len(wanted)))

    def has_room(self, bytes_wanted: int) -> bool:
        return bytes_wanted <= self.room_bytes

    def findings(self) -> list[Finding]:
        """What `check` has to say of these tables."""
        return list(check(_Walker(self)))


class _Walker:
    def __init__(self, store: MemStore) -> None:
        self._store = store

    def dentries(self) -> Iterator[tuple[int, bytes, Dentry]]:
        for directory, entries in self._store.dentries.items():
            yield from ((directory, name, dentry) for name, dentry in entries.items())

    def inodes(self) -> Iterator[tuple[int, int, Attr]]:
        return ((place, ino, a) for (place, ino), a in self._store.inodes.items())

    def directories(self) -> Iterator[tuple[int, Directory]]:
        return iter(self._store.directories.items())

    def xattrs(self) -> Iterator[tuple[int, int, bytes]]:
        for (place, ino), values in self._store.xattrs.items():
            yield from ((place, ino, name) for name in values)

    def inlines(self) -> Iterator[tuple[int, int, int]]:
        return ((place, ino, len(data)) for (place, ino), data in self._store.inline.items())

    def moved(self) -> Iterator[tuple[int, int]]:
        return iter(self._store.moved.items())

    def orphans(self) -> Iterator[tuple[int, Orphan]]:
        return iter(self._store.orphans.items())


def _copy_dentry(d: Dentry) -> Dentry:
    return Dentry(d.ino, d.generation, d.mode, d.uid, d.gid, d.flags)
