"""Reads everything of a metadata store, in a process of its own, before a daemon opens it.

LMDB answers a zeroed page with abort() and a file that is too short with SIGBUS: whoever looks
first dies. So a child looks first, and its death becomes a message. It checks, in this order,
the file (length, both meta pages), the identity inside, every record's checksum, that every
record is also found by its key (a damaged branch page hides it), and the tallies of the tables.

    python -m superfs.meta.verify STATE_DIR IDENTITY_JSON     prints one JSON line; 0: all is well
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmdb

from superfs.core.errors import Code, FsError
from superfs.daemon.statedir import Identity
from superfs.meta import records
from superfs.meta.environment import PAGE_BYTES, Environment, data_file
from superfs.meta.keys import IDENTITY_KEY, STATE_KEY, Table
from superfs.meta.records import SUM_MASK, checksum_of

if TYPE_CHECKING:
    from superfs.meta.table import Records

ADVICE = (
    "Nothing was changed. Keep the directory, restore it from a copy of the same moment, "
    "or bring back the disk it lies on"
)


def verify_in_child(state_dir: Path, identity: Identity) -> dict[str, int]:
    """Counts of what was read. FsError DAMAGED or WRONG_IDENTITY says what is wrong."""
    child = subprocess.run(
        [sys.executable, "-m", __name__, str(state_dir), json.dumps(asdict(identity))],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        raise FsError(
            Code.DAMAGED,
            f"{data_file(state_dir)} cannot be read: the check was ended by {name}, "
            f"as it is for a page that is zeroed or cut off. {ADVICE}",
        )
    try:
        answer = json.loads(child.stdout)
        if child.returncode == 0:
            return {str(k): int(v) for k, v in answer.items()}
        error = FsError(Code(answer["code"]), str(answer["detail"]))
    except (ValueError, KeyError, TypeError):
        text = child.stderr.decode(errors="replace").strip().splitlines()
        last = text[-1] if text else "no message"
        error = FsError(Code.DAMAGED, f"{data_file(state_dir)}: the check failed: {last}")
    raise FsError(error.code, f"{state_dir}: {error.detail}. {ADVICE}")


def verify(state_dir: Path, identity: Identity) -> dict[str, int]:
    started = time.monotonic()
    _verify_file(data_file(state_dir))
    size = data_file(state_dir).stat().st_size // PAGE_BYTES * PAGE_BYTES
    try:
        environment = Environment(state_dir, size, readonly=True)
        with environment.reading() as rows:
            _verify_identity(rows, identity, size)
            count = sum(_verify_table(rows, environment, t) for t in Table if t != Table.META)
    except lmdb.Error as error:
        raise FsError(Code.DAMAGED, f"{data_file(state_dir)}: {error}") from None
    return {"records": count, "milliseconds": int(1000 * (time.monotonic() - started))}


def _verify_file(path: Path) -> None:
    """LMDB would take an empty file for a new store, so it never gets to see one."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(2 * PAGE_BYTES)
    except OSError as error:
        raise FsError(Code.DAMAGED, f"{path}: {error.strerror}") from None
    if len(head) < 2 * PAGE_BYTES:
        raise FsError(Code.DAMAGED, f"{path} has only {size} bytes")
    pages = [_MetaPage(head[i * PAGE_BYTES : (i + 1) * PAGE_BYTES]) for i in range(2)]
    for number, page in enumerate(pages):
        if not page.plausible(number):
            raise FsError(Code.DAMAGED, f"{path}: meta page {number} is not one")
    # Of two commits the older one is at most one behind: else one of the pages is an old copy.
    if abs(pages[0].txn - pages[1].txn) > 1:
        raise FsError(Code.DAMAGED, f"{path}: a meta page is older than it can be")
    last = max(page.last_page for page in pages)
    if size < (last + 1) * PAGE_BYTES:
        raise FsError(
            Code.DAMAGED, f"{path} has {size} bytes, its pages need {(last + 1) * PAGE_BYTES}"
        )


class _MetaPage:
    """The fields of LMDB's meta page that tell a good one from any other bytes (64-bit build)."""

    MAGIC = 0xBEEFC0DE

    def __init__(self, page: bytes) -> None:
        def number(offset: int, size: int = 8) -> int:
            return int.from_bytes(page[offset : offset + size], "little")

        self.page = number(0)
        self.magic = number(16, 4)
        self.version = number(20, 4)
        self.last_page = number(136)
        self.txn = number(144)

    def plausible(self, position: int) -> bool:
        return self.magic == self.MAGIC and self.version == 1 and self.page == position


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
    database = environment.databases[table]
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
    answer: dict[str, Any]
    try:
        answer = dict(verify(Path(sys.argv[1]), Identity(**json.loads(sys.argv[2]))))
    except FsError as error:
        answer = {"code": int(error.code), "detail": error.detail}
    print(json.dumps(answer))
    return 78 if "code" in answer else 0


if __name__ == "__main__":
    sys.exit(main())
