"""What a transaction stands on: records of the slots that this daemon owns, and numbers.

`Numbered` is the part of `LmdbTxn` (store.py) that gives out numbers: counters of a slot, decoded
while the transaction lasts, and runs of reserved numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from superfs.core.errors import Code, FsError
from superfs.core.ids import (
    GENERATION_HALF,
    RANGE_BIT,
    RANGES_MAX,
    SLOT_SHIFT,
    DataGeneration,
    Generation,
    InodeId,
    SessionId,
    file_id,
)
from superfs.meta import keys, records
from superfs.meta.keys import Table
from superfs.meta.records import Counter, Run, Session

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from superfs.meta.store import LmdbTxn
    from superfs.meta.table import Records

GENERATION_MAX = (1 << 32) - 1


class Outside(Protocol):
    """What a transaction asks of the rest of the daemon. Called in the transaction's thread."""

    def now_ns(self) -> int: ...
    def owns(self, slot: int) -> bool: ...
    def available_chains(self) -> Sequence[int]:
        """Every chain that new data may go to, in the order of the cluster map."""
        ...

    def chains_per_file(self) -> int: ...
    def open_sessions(self, ino: int, place: int, txn: LmdbTxn) -> Iterable[int]:
        """See `Txn.open_sessions`."""
        ...


class Numbered:
    def __init__(self, rows: Records, outside: Outside, *, writable: bool) -> None:
        self.rows = rows
        self._outside = outside
        self._writable = writable
        self._counters: dict[int, Counter] = {}
        self.pinned_generation = 0
        """What the next `new_generation` gives, where a client has given it already."""

    def _own(self, place: int) -> None:
        if not self._outside.owns(place >> SLOT_SHIFT):
            raise FsError(Code.WRONG_OWNER, f"slot {place >> SLOT_SHIFT} is not of this daemon")

    def _get(self, table: Table, place: int, key: bytes) -> bytes | None:
        self._own(place)
        return self.rows.get(table, key)

    def _put(self, table: Table, place: int, key: bytes, record: bytes) -> None:
        assert self._writable
        self._own(place)
        self.rows.put(table, key, record)

    def _delete(self, table: Table, place: int, key: bytes) -> None:
        assert self._writable
        self._own(place)
        self.rows.delete(table, key)

    def is_crowded(self, place: int) -> bool:
        """Whether a directory is in a cache that may need the room soon (cachetxn.py)."""
        return False

    # ---- numbers

    def _counter(self, slot: int) -> Counter:
        assert self._writable
        counter = self._counters.get(slot)
        if counter is None:
            self._own(slot << SLOT_SHIFT)
            record = self.rows.get(Table.COUNTER, keys.pack_slot(slot))
            counter = Counter() if record is None else records.unpack_counter(record)
            self._counters[slot] = counter
        return counter

    def new_inode_ids(self, slot: int, count: int) -> InodeId:
        counter = self._counter(slot)
        first = counter.ino
        if first + count > RANGE_BIT:
            raise FsError(Code.NO_SPACE, f"slot {slot} has no inode numbers left")
        counter.ino += count
        return file_id(slot, first)

    def new_generation(self, slot: int) -> Generation:
        pinned, self.pinned_generation = self.pinned_generation, 0
        return Generation(pinned) if pinned else self.new_generations(slot, 1)

    def new_generations(self, slot: int, count: int) -> Generation:
        """The first of `count` consecutive ones."""
        counter = self._counter(slot)
        first = counter.generation
        if first + count > GENERATION_HALF:
            raise FsError(Code.NO_SPACE, f"slot {slot} has no generations left")
        counter.generation += count
        return Generation(first)

    def new_data_generation(self, slot: int) -> DataGeneration:
        counter = self._counter(slot)
        if counter.data_generation > GENERATION_MAX:
            raise FsError(Code.NO_SPACE, f"slot {slot} has no data generations left")
        counter.data_generation += 1
        return DataGeneration(counter.data_generation - 1)

    # ---- numbers of clients that make files by themselves

    def new_range(self) -> int:
        """Never given before; never 0."""
        state = self.rows.state
        if state.ranges >= RANGES_MAX:
            raise FsError(Code.NO_SPACE, "no range of inode numbers is left")
        state.ranges += 1
        self.rows.changes += 1
        return state.ranges

    def reserve_generations(self, count: int) -> Generation:
        """The first of `count` consecutive ones, never given before in the cluster."""
        state = self.rows.state
        first = state.next_generation
        if first + count - 1 > GENERATION_MAX:
            raise FsError(Code.NO_SPACE, "no generations are left")
        state.next_generation += count
        self.rows.changes += 1
        return Generation(first)

    def get_session(self, session: int) -> Session | None:
        record = self.rows.get(Table.SESSION, keys.pack_id(session))
        return None if record is None else records.unpack_session(record)

    def put_session(self, session: int, record: Session) -> None:
        self.rows.put(Table.SESSION, keys.pack_id(session), records.pack_session(record))

    # ---- runs of reserved numbers

    def reserve_inode_ids(self, slot: int, count: int, session: int) -> InodeId:
        first = self.new_inode_ids(slot, count)
        last = first + count - 1
        self._put(Table.RESERVED, last, keys.pack_id(last), records.pack_run(Run(first, session)))
        return first

    def reserved_by(self, ino: int) -> SessionId | None:
        run = self._run_of(ino)
        return None if run is None else SessionId(run[1].session)

    def _run_of(self, ino: int) -> tuple[int, Run] | None:
        """The run of reserved numbers that holds `ino`, with its last number."""
        self._own(ino)
        if not self.rows.state.counts[Table.RESERVED]:
            return None
        for key, record in self.rows.scan(Table.RESERVED, keys.pack_id(ino)):
            last, run = keys.parse_id(key), records.unpack_run(record)
            return (last, run) if run.first <= ino else None
        return None

    def use_reserved(self, ino: int) -> None:
        """`ino` has become a file: its number is never reserved again, so it is never reused."""
        found = self._run_of(ino)
        assert found is not None, ino
        last, run = found
        if ino == last:
            self._delete(Table.RESERVED, last, keys.pack_id(last))
        else:
            rest = records.pack_run(Run(ino + 1, run.session))
            self._put(Table.RESERVED, last, keys.pack_id(last), rest)
        if run.first < ino:
            head = records.pack_run(run)
            self._put(Table.RESERVED, ino - 1, keys.pack_id(ino - 1), head)
