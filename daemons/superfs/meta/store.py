"""`LmdbTxn`: the `Txn` protocol of the rules on one LMDB transaction.

One instance lives as long as its LMDB transaction, in one thread. A batch of operations shares a
write transaction: directory records and counters are kept decoded while it lasts and written once,
in `finish`. On a read transaction every put is an assertion.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import lmdb

from superfs.core.attrs import Attr, pack_attr, unpack_attr
from superfs.core.errors import Code, FsError
from superfs.core.ids import FIRST_DATA_GENERATION, ChainId
from superfs.core.layout import assign_chains
from superfs.meta import keys, records
from superfs.meta.keys import Table, Work
from superfs.meta.numbers import Numbered
from superfs.meta.records import Debt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from superfs.core.namespace.txn import Dentry, Directory, Orphan
    from superfs.meta.exclusive import Exclusive
    from superfs.meta.numbers import Outside
    from superfs.meta.table import Records

CLOCK_AHEAD_NS = 2 * 1_000_000_000
"""A client's idea of our clock may be ahead of it by so much."""
CLOCK_BACK_NS = 60 * 1_000_000_000
"""A clock that goes back by less is adjusted: time goes on from where it was. One that goes back by
more had been wrong, and no file is to get a time of its future."""

Touched = list[tuple[int, "bytes | int"]]
"""(lease, name or inode number): what a change makes untrue of what others were told."""


class LmdbTxn(Numbered):
    """`room_bytes`: what may still be written before the reserve is touched. `may_grow`: a rule
    that wants more ends the transaction with MapFullError, for a larger map. `held`: what is held
    exclusively (exclusive.py)."""

    def __init__(
        self,
        rows: Records,
        outside: Outside,
        *,
        writable: bool = False,
        room_bytes: int = 0,
        may_grow: bool = False,
        held: Mapping[int, Exclusive] | None = None,
    ) -> None:
        super().__init__(rows, outside, writable=writable)
        self._room_bytes = room_bytes
        self._may_grow = may_grow
        self._now_ns = self._last_ns = rows.state.time_ns
        self._commit = rows.state.commit + 1
        self._directories: dict[int, Directory | None] = {}
        self._dirty: set[int] = set()
        self.debts: dict[bytes, Debt] = {}
        """Work for the data daemons that this transaction asks for, by key."""
        self.after_commit: list[Callable[[], None]] = []
        """What becomes true in memory only when the transaction has become durable."""
        self.touched: Touched = []
        """By the job that runs."""
        self.session: int | None = None
        """On whose behalf; None: the daemon's own, which nothing is closed to."""
        self.granted: dict[int, Exclusive] = {}
        """Exclusively by this transaction: closed to those who come later in it."""
        self.removed: set[int] = set()
        """Directories that are no more."""
        self.delegated: set[int] = set()
        """What was closed to the operation. One that reads goes on to find all of it, and is told
        in the end (`check_open`); one that writes is told at once."""
        self._held: Mapping[int, Exclusive] = held if held is not None else {}
        self.next_operation()

    # ---- the transaction

    @property
    def now_ns(self) -> int:
        return self._now_ns

    @property
    def commit(self) -> int:
        return self._commit

    @property
    def changes(self) -> int:
        """Grows with every change: equal before and after means that nothing was changed."""
        return self.rows.changes

    @property
    def untouched(self) -> bool:
        """Nothing to commit."""
        rows = self.rows
        return not (rows.changes or self.debts or self._counters)

    def close_room(self) -> None:
        """Removals and shrinking only."""
        self._room_bytes = -1

    def next_operation(self) -> None:
        now = self._outside.now_ns()
        if 0 <= self._last_ns - now < CLOCK_BACK_NS:
            now = self._last_ns + 1
        self._now_ns = self._last_ns = now
        self.delegated.clear()

    @property
    def latest_ns(self) -> int:
        """No client has done anything after it, whatever it thinks of our clock."""
        return max(self._outside.now_ns() + CLOCK_AHEAD_NS, self._last_ns)

    def operation_at(self, now_ns: int) -> None:
        """One that was done at that moment already, by a client with about our clock."""
        self._now_ns = min(now_ns, self.latest_ns)
        self._last_ns = max(self._last_ns, self._now_ns)

    def has_room(self, bytes_wanted: int) -> bool:
        fits = self.rows.bytes_written + bytes_wanted < self._room_bytes
        if not fits and self._may_grow:
            raise lmdb.MapFullError("a rule wants more room")
        return fits

    def finish(self) -> None:
        """Writes what was held back. The last call before the commit."""
        assert self._writable
        rows = self.rows
        for ino in self._dirty:
            directory, key = self._directories[ino], keys.pack_id(ino)
            if directory is not None:
                rows.put(Table.DIRECTORY, key, records.pack_directory(directory))
            elif rows.exists(Table.DIRECTORY, key):
                rows.delete(Table.DIRECTORY, key)
        for slot, counter in self._counters.items():
            rows.put(Table.COUNTER, keys.pack_slot(slot), records.pack_counter(counter))
        rows.state.commit = self._commit
        rows.state.time_ns = self._last_ns
        rows.flush()

    @contextlib.contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """What is done inside is undone if it ends with an exception."""
        directories, dirty = self._directories.copy(), self._dirty.copy()
        counters = {slot: replace(c) for slot, c in self._counters.items()}
        debts, granted, removed = self.debts.copy(), self.granted.copy(), self.removed.copy()
        touched, acts = len(self.touched), len(self.after_commit)
        try:
            with self.rows.all_or_nothing():
                yield
        except BaseException:
            self._directories, self._dirty, self._counters = directories, dirty, counters
            self.debts, self.granted, self.removed = debts, granted, removed
            del self.touched[touched:]
            del self.after_commit[acts:]
            raise

    # ---- who holds what exclusively

    def _own(self, place: int) -> None:
        super()._own(place)
        if self._held or self.granted:
            self._check_closed(place)

    @property
    def is_closed(self) -> bool:
        """Whether anything at all is held exclusively."""
        return bool(self._held or self.granted)

    def holders(self) -> set[int]:
        """Sessions that hold something exclusively."""
        return {e.session for e in (*self._held.values(), *self.granted.values())}

    def _check_closed(self, place: int) -> None:
        exclusive = self._held.get(place) or self.granted.get(place)
        if exclusive is None or self.session is None or exclusive.session == self.session:
            return
        self.delegated.add(place)
        if self._writable:
            self.check_open()

    def check_open(self) -> None:
        if self.delegated:
            lease = next(iter(self.delegated))
            raise FsError(Code.DELEGATED, f"directory {lease:#x} is another client's at present")

    # ---- dentries

    def get_dentry(self, directory: int, name: bytes) -> Dentry | None:
        record = self._get(Table.DENTRY, directory, keys.pack_dentry(directory, name))
        return None if record is None else records.unpack_dentry(record)

    def put_dentry(self, directory: int, name: bytes, dentry: Dentry) -> None:
        key = keys.pack_dentry(directory, name)
        self._put(Table.DENTRY, directory, key, records.pack_dentry(dentry))
        self.touched.append((directory, name))

    def delete_dentry(self, directory: int, name: bytes) -> None:
        self._delete(Table.DENTRY, directory, keys.pack_dentry(directory, name))
        self.touched.append((directory, name))

    def list_dentries(
        self, directory: int, after: bytes, limit: int
    ) -> Sequence[tuple[bytes, Dentry]]:
        self._own(directory)
        found: list[tuple[bytes, Dentry]] = []
        if limit <= 0:
            return found
        # The next name in byte order behind `after` is the same with a zero byte.
        start = keys.pack_dentry(directory, after + b"\0" if after else b"")
        for key, record in self.rows.scan(Table.DENTRY, start, keys.pack_id(directory)):
            found.append((key[8:], records.unpack_dentry(record)))
            if len(found) == limit:
                break
        return found

    # ---- inodes

    def get_inode(self, place: int, ino: int) -> Attr | None:
        record = self._get(Table.INODE, place, keys.pack_inode(place, ino))
        return None if record is None else unpack_attr(record)

    def put_inode(self, attr: Attr) -> None:
        self._put(Table.INODE, attr.place, keys.pack_inode(attr.place, attr.ino), pack_attr(attr))
        self.touched.append((attr.place, attr.ino))

    def delete_inode(self, place: int, ino: int) -> None:
        self._delete(Table.INODE, place, keys.pack_inode(place, ino))
        self.touched.append((place, ino))
        if place == ino:
            self.granted.pop(ino, None)
            self.removed.add(ino)

    def put_new_files(
        self,
        directory: int,
        names: Sequence[bytes],
        inos: Sequence[int],
        dentries: Sequence[bytes],
        inodes: Sequence[bytes],
        contents: Sequence[bytes],
    ) -> None:
        """As put_dentry, put_inode and, where there are contents, put_inline of each: packed, of
        regular files, none of which was there."""
        self._own(directory)
        prefix = keys.pack_id(directory)
        places = [prefix + keys.pack_id(ino) for ino in inos]
        inline = [pair for pair in zip(places, contents, strict=True) if pair[1]]
        self.rows.add_all(Table.INLINE, inline)
        self.rows.add_all(Table.INODE, list(zip(places, inodes, strict=True)))
        named = [prefix + name for name in names]
        self.rows.add_all(Table.DENTRY, list(zip(named, dentries, strict=True)))
        self.touched.extend((directory, name) for name in names)

    # ---- directories

    def get_directory(self, ino: int) -> Directory | None:
        if ino in self._directories:
            self._own(ino)
            directory = self._directories[ino]
            return None if directory is None else directory.copy()
        record = self._get(Table.DIRECTORY, ino, keys.pack_id(ino))
        directory = None if record is None else records.unpack_directory(record)
        if self._writable and directory is not None:
            self._directories[ino] = directory.copy()
        return directory

    def put_directory(self, directory: Directory) -> None:
        assert self._writable
        ino = directory.attr.ino
        self._own(ino)
        self._directories[ino] = directory.copy()
        self._dirty.add(ino)
        self.removed.discard(ino)
        self.rows.changes += 1
        self.touched.append((ino, ino))

    def delete_directory(self, ino: int) -> None:
        assert self._writable
        assert self.get_directory(ino) is not None, ino
        self.granted.pop(ino, None)
        self.removed.add(ino)
        self._directories[ino] = None
        self._dirty.add(ino)
        self.rows.changes += 1
        self.touched.append((ino, ino))

    # ---- xattrs and inline contents

    def get_xattr(self, place: int, ino: int, name: bytes) -> bytes | None:
        return self._get(Table.XATTR, place, keys.pack_xattr(place, ino, name))

    def put_xattr(self, place: int, ino: int, name: bytes, value: bytes) -> None:
        self._put(Table.XATTR, place, keys.pack_xattr(place, ino, name), value)
        self.touched.append((place, ino))

    def delete_xattr(self, place: int, ino: int, name: bytes) -> None:
        self._delete(Table.XATTR, place, keys.pack_xattr(place, ino, name))
        self.touched.append((place, ino))

    def list_xattrs(self, place: int, ino: int) -> Sequence[bytes]:
        self._own(place)
        prefix = keys.pack_inode(place, ino)
        return [key[len(prefix) :] for key in self.rows.keys(Table.XATTR, prefix, prefix)]

    def get_inline(self, place: int, ino: int) -> bytes | None:
        return self._get(Table.INLINE, place, keys.pack_inode(place, ino))

    def put_inline(self, place: int, ino: int, data: bytes) -> None:
        self._put(Table.INLINE, place, keys.pack_inode(place, ino), data)
        self.touched.append((place, ino))

    def delete_inline(self, place: int, ino: int) -> None:
        self._delete(Table.INLINE, place, keys.pack_inode(place, ino))
        self.touched.append((place, ino))

    # ---- where single-link files went

    def get_moved(self, ino: int) -> int | None:
        record = self._get(Table.MOVED, ino, keys.pack_id(ino))
        return None if record is None else records.unpack_id(record)

    def put_moved(self, ino: int, place: int) -> None:
        self._put(Table.MOVED, ino, keys.pack_id(ino), records.pack_id(place))

    def delete_moved(self, ino: int) -> None:
        self._delete(Table.MOVED, ino, keys.pack_id(ino))

    # ---- files without a name

    def get_orphan(self, ino: int) -> Orphan | None:
        record = self._get(Table.ORPHAN, ino, keys.pack_id(ino))
        return None if record is None else records.unpack_orphan(record)

    def put_orphan(self, orphan: Orphan) -> None:
        ino = orphan.attr.ino
        self._put(Table.ORPHAN, ino, keys.pack_id(ino), records.pack_orphan(orphan))

    def delete_orphan(self, ino: int) -> None:
        self._delete(Table.ORPHAN, ino, keys.pack_id(ino))

    def open_sessions(self, ino: int, place: int = 0) -> Iterable[int]:
        return self._outside.open_sessions(ino, place, self)

    # ---- work for the data daemons

    def drop_reserved(self, last: int) -> None:
        """The run that ends with `last` becomes no files any more. Data that was written for them
        goes, whichever chains the client has chosen."""
        run = self._run_of(last)
        assert run is not None, last
        self._delete(Table.RESERVED, last, keys.pack_id(last))
        chains = self.all_chains()
        if chains:
            for ino in range(run[1].first, last + 1):
                lost = Attr(ino, 0, ino, 0, 0, 0, 0, data_generation=FIRST_DATA_GENERATION)
                lost.chains = chains
                self.reap_data(lost)

    def all_chains(self) -> tuple[ChainId, ...]:
        return tuple(ChainId(c) for c in self._outside.available_chains())

    def reap_data(self, attr: Attr) -> None:
        if not attr.chains:
            return
        self._owe(attr, Work.REAP, 0)
        shrink = keys.pack_reap(attr.ino, attr.data_generation, Work.TRUNCATE)
        if self.rows.exists(Table.REAP, shrink):  # there is nothing left to shrink
            self.rows.delete(Table.REAP, shrink)
            self.rows.changes -= 1

    def truncate_data(self, attr: Attr, size: int) -> None:
        assert attr.chains, attr
        self._owe(attr, Work.TRUNCATE, size)

    def _owe(self, attr: Attr, kind: Work, size: int) -> None:
        key = keys.pack_reap(attr.ino, attr.data_generation, kind)
        debt = Debt(size, attr.place, attr.chains)
        self._put(Table.REAP, attr.ino, key, records.pack_debt(debt))
        self.debts[key] = debt
        # A rule may fail after this one change: the debt stands whatever becomes of the operation.
        self.rows.changes -= 1

    def choose_chains(self, ino: int, layout: Sequence[int]) -> tuple[ChainId, ...]:
        available = self._outside.available_chains()
        if not available:
            raise FsError(Code.UNAVAILABLE, "no data daemon has registered yet")
        if layout:
            strange = set(layout) - set(available)
            if strange:
                raise FsError(Code.INVALID, f"no chain {min(strange)} in the cluster map")
            return tuple(ChainId(c) for c in layout)
        width = self._outside.chains_per_file()
        return tuple(ChainId(c) for c in assign_chains(available, ino, width))
