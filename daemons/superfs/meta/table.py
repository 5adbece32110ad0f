"""Records in one LMDB transaction: sealed when written, checked when read, tallied by table.

The tally of a table is the number of its records and the sum, mod 2^64, of their checksums. It is
commutative, so every put and delete adjusts it in place, and it is stored in the same transaction
(`Records.flush`). META holds the tallies and has none of its own.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol, Self

from xxhash import xxh3_64_digest

from superfs.meta import records
from superfs.meta.keys import STATE_KEY, Table
from superfs.meta.records import CHECKSUM_BYTES, SUM_MASK, State, checksum_of, damaged, seal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


class LmdbCursor(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...
    def __iter__(self) -> Iterator[tuple[bytes, bytes]]: ...
    def set_range(self, key: bytes) -> bool: ...
    def iternext(self, keys: bool, values: bool) -> Iterator[bytes]: ...
    def putmulti(self, items: Sequence[tuple[bytes, bytes]], *, overwrite: bool) -> tuple[int, int]:
        """(how many were looked at, how many were put)."""


class LmdbTransaction(Protocol):
    """What we use of lmdb.Transaction, opened with buffers=False: everything is bytes."""

    def get(self, key: bytes, *, db: Any) -> bytes | None: ...  # noqa: ANN401
    def put(self, key: bytes, value: bytes, *, db: Any) -> bool: ...  # noqa: ANN401
    def replace(self, key: bytes, value: bytes, *, db: Any) -> bytes | None: ...  # noqa: ANN401
    def pop(self, key: bytes, *, db: Any) -> bytes | None: ...  # noqa: ANN401
    def cursor(self, *, db: Any) -> LmdbCursor: ...  # noqa: ANN401
    def stat(self, *, db: Any) -> dict[str, int]: ...  # noqa: ANN401
    def commit(self) -> None: ...
    def abort(self) -> None: ...


class Records:
    """One LMDB transaction. Valid only in the thread and for the life of that transaction."""

    __slots__ = ("_databases", "_nest", "bytes_written", "changes", "state", "txn")

    def __init__(
        self,
        txn: LmdbTransaction,
        databases: Mapping[Table, Any],
        nest: Callable[[LmdbTransaction], LmdbTransaction] | None = None,
    ) -> None:
        """`nest` begins a transaction within one that writes."""
        self.txn = txn
        self._databases = databases
        self._nest = nest
        self.changes = 0
        self.bytes_written = 0
        state = self.get(Table.META, STATE_KEY)
        self.state = State() if state is None else records.unpack_state(state)

    def get(self, table: Table, key: bytes) -> bytes | None:
        value = self.txn.get(key, db=self._databases[table])
        if value is None:
            return None
        record = value[:-CHECKSUM_BYTES]
        if xxh3_64_digest(key + record, table) != value[-CHECKSUM_BYTES:]:
            raise damaged(table, key)
        return record

    def exists(self, table: Table, key: bytes) -> bool:
        return self.txn.get(key, db=self._databases[table]) is not None

    def put(self, table: Table, key: bytes, record: bytes) -> None:
        value = seal(table, key, record)
        self.changes += 1
        self.bytes_written += len(key) + len(value)
        old = self.txn.replace(key, value, db=self._databases[table])
        state, added = self.state, checksum_of(value)
        if old is None:
            state.counts[table] += 1
        else:
            added -= checksum_of(old)
        state.sums[table] = (state.sums[table] + added) & SUM_MASK

    def add_all(self, table: Table, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        """As `put` of each (key, record). Asserts that none was there."""
        values = [(key, seal(table, key, record)) for key, record in pairs]
        with self.txn.cursor(db=self._databases[table]) as cursor:
            _, added = cursor.putmulti(values, overwrite=False)
        assert added == len(pairs), (table, len(pairs), added)
        self.changes += added
        self.bytes_written += sum([len(key) + len(value) for key, value in values])
        state = self.state
        state.counts[table] += added
        total = state.sums[table] + sum([checksum_of(value) for _, value in values])
        state.sums[table] = total & SUM_MASK

    def delete(self, table: Table, key: bytes) -> None:
        """Asserts that it is there: nothing deletes what it has not seen."""
        self.changes += 1
        old = self.txn.pop(key, db=self._databases[table])
        assert old is not None, (table, key)
        state = self.state
        state.counts[table] -= 1
        state.sums[table] = (state.sums[table] - checksum_of(old)) & SUM_MASK

    def scan(
        self, table: Table, start: bytes, prefix: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """Records from `start` on that begin with `prefix`; nothing may change meanwhile."""
        with self.txn.cursor(db=self._databases[table]) as cursor:
            if not cursor.set_range(start):
                return
            for key, value in cursor:
                if not key.startswith(prefix):
                    return
                yield key, records.unseal(table, key, value)

    def keys(self, table: Table, start: bytes, prefix: bytes = b"") -> Iterator[bytes]:
        with self.txn.cursor(db=self._databases[table]) as cursor:
            if not cursor.set_range(start):
                return
            for key in cursor.iternext(keys=True, values=False):
                if not key.startswith(prefix):
                    return
                yield key

    @contextlib.contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """What is written inside is written for good at the end, or not at all if that is an
        exception. Costs next to nothing: LMDB hands the pages of the inner transaction over."""
        assert self._nest is not None
        outer, before = self.txn, records.copy_state(self.state)
        changes, bytes_written = self.changes, self.bytes_written
        self.txn = self._nest(outer)
        try:
            yield
            self.txn.commit()
        except BaseException:
            self.txn.abort()
            self.state, self.changes, self.bytes_written = before, changes, bytes_written
            raise
        finally:
            self.txn = outer

    def flush(self) -> None:
        """The last write of a transaction."""
        value = seal(Table.META, STATE_KEY, records.pack_state(self.state))
        self.txn.put(STATE_KEY, value, db=self._databases[Table.META])

    def pages(self) -> int:
        """Pages in use by all tables, of LMDB's own lists a generous guess."""
        used = 2
        for database in self._databases.values():
            stat = self.txn.stat(db=database)
            used += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return used + 8 + used // 64
