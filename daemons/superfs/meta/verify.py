"""Reads everything of a metadata store, in a process of its own, before a daemon opens it.

LMDB answers a zeroed page with abort() and a file that is too short with SIGBUS: whoever looks
first dies. So a child looks first, and its death becomes a message (daemon/lmdbfile.py). It
checks, in this order, the file (length, both meta pages), the identity inside, every record's
checksum, that every record is also found by its key (a damaged branch page hides it), and the
tallies of the tables.

    python -m superfs.meta.verify STATE_DIR IDENTITY_JSON
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb

from superfs.core.errors import Code, FsError
from superfs.daemon.lmdbfile import check_file, check_in_child, child_main, fault_of
from superfs.daemon.statedir import Identity
from superfs.meta import records
from superfs.meta.environment import PAGE_BYTES, Environment, data_file
from superfs.meta.keys import IDENTITY_KEY, STATE_KEY, Table
from superfs.meta.records import SUM_MASK, checksum_of

if TYPE_CHECKING:
    from superfs.meta.table import Records


def verify_in_child(state_dir: Path, identity: Identity) -> None:
    """FsError DAMAGED or WRONG_IDENTITY says what is wrong."""
    args = [str(state_dir), json.dumps(asdict(identity))]
    check_in_child(__name__, args, data_file(state_dir))


def verify(state_dir: Path, identity: Identity) -> int:
    """How many records there are."""
    path = data_file(state_dir)
    check_file(path)
    size = path.stat().st_size // PAGE_BYTES * PAGE_BYTES
    try:
        environment = Environment(state_dir, size, readonly=True)
        with environment.reading() as rows:
            _verify_identity(rows, identity, size)
            return sum(_verify_table(rows, environment, t) for t in Table if t != Table.META)
    except lmdb.Error as error:
        raise fault_of(path, error) from None
    except FsError as error:
        raise FsError(error.code, f"{path}: {error.detail}") from None


def _verify_identity(rows: Records, identity: Identity, size: int) -> None:
    record = rows.get(Table.META, IDENTITY_KEY)
    if record is None:
        raise FsError(Code.DAMAGED, "the store has no identity record")
    if records.unpack_identity(record) != identity:
        raise FsError(
            Code.WRONG_IDENTITY, "the identity inside the store is not that of its directory"
        )
    if rows.get(Table.META, STATE_KEY) is None:
        raise FsError(Code.DAMAGED, "the store has no state record")
    if size < rows.state.map_bytes:
        raise FsError(Code.DAMAGED, f"data.mdb was cut from {rows.state.map_bytes} bytes to {size}")


def _verify_table(rows: Records, environment: Environment, table: Table) -> int:
    count = total = 0
    last = b""
    database = environment.databases.get(table)
    if database is None:
        if rows.state.counts[table]:
            raise FsError(Code.DAMAGED, f"there is no table {table.name.lower()}")
        return 0
    with rows.txn.cursor(db=database) as cursor:
        for key, value in cursor:
            if key <= last:
                raise FsError(Code.DAMAGED, f"{table.name.lower()}: keys out of order")
            records.unseal(table, key, value)
            if rows.txn.get(key, db=database) != value:
                raise FsError(
                    Code.DAMAGED, f"{table.name.lower()} record {key.hex()} is not found by its key"
                )
            count += 1
            total += checksum_of(value)
            last = key
    wanted = rows.state.counts[table]
    if count != wanted:
        raise FsError(
            Code.DAMAGED, f"{table.name.lower()} has {count} records, {wanted} were written"
        )
    if total & SUM_MASK != rows.state.sums[table]:
        raise FsError(Code.DAMAGED, f"the records of {table.name.lower()} do not add up")
    return count


def main() -> int:
    state_dir, identity = Path(sys.argv[1]), Identity(**json.loads(sys.argv[2]))
    return child_main(lambda: _verify(state_dir, identity))


def _verify(state_dir: Path, identity: Identity) -> None:
    verify(state_dir, identity)


if __name__ == "__main__":
    sys.exit(main())
