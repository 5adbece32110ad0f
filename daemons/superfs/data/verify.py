"""Reads the whole index in a process of its own before a data daemon opens it.

LMDB aborts the process at a zeroed page, and a file that is too short kills it with SIGBUS. So a
child looks first, and its death becomes a message. It checks the file (both meta pages, length),
the identity inside, the checksum of every record, and the tallies of the tables.

    python -m superfs.data.verify INDEX_DIRECTORY     one line of JSON; exit status 0 or 78
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lmdb

from superfs.core.errors import Code, FsError
from superfs.data.index import PAGE_BYTES, Index, data_file
from superfs.data.keys import TABLES
from superfs.data.records import Identity, checksum_of, unseal

META_MAGIC = 0xBEEFC0DE
ADVICE = (
    "Nothing was changed. Keep the state directory; restore it from a backup, or mount the disk "
    "that it was on"
)


def verify_in_child(directory: Path) -> Identity:
    """Whose index it is. FsError DAMAGED says what is wrong."""
    child = subprocess.run(
        [sys.executable, "-m", "superfs.data.verify", str(directory)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if child.returncode < 0:
        raise FsError(
            Code.DAMAGED,
            f"{data_file(directory)} cannot be read: the check of it was ended by "
            f"{signal.Signals(-child.returncode).name}, as by a page that is zeroed or cut off. "
            f"{ADVICE}",
        )
    try:
        answer = json.loads(child.stdout)
        if child.returncode:
            raise FsError(Code(answer["code"]), f"{answer['detail']}. {ADVICE}")
        store = bytes.fromhex(answer["store"])
        return Identity(answer["cluster"], answer["node"], store, answer["format"])
    except (ValueError, KeyError, TypeError):
        lines = child.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise FsError(
            Code.DAMAGED, f"{data_file(directory)}: the check failed: {lines[-1]}. {ADVICE}"
        ) from None


def verify(directory: Path) -> Identity:
    path = data_file(directory)
    _verify_file(path)
    try:
        index = Index(directory, path.stat().st_size // PAGE_BYTES * PAGE_BYTES, readonly=True)
        index.position()
        _verify_length(path, index.allocated_bytes())
        for table in TABLES:
            _verify_table(index, table)
        return index.identity()
    except lmdb.Error as error:
        raise FsError(Code.DAMAGED, f"{path}: {error}") from None


def _verify_file(path: Path) -> None:
    """LMDB takes an empty file for a new store: it must never see one."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(2 * PAGE_BYTES)
    except OSError as error:
        raise FsError(Code.DAMAGED, f"{path}: {error.strerror}") from None
    if len(head) < 2 * PAGE_BYTES:
        raise FsError(Code.DAMAGED, f"{path} has only {size} bytes")
    commits, last = [], 0
    for number in range(2):
        page = head[number * PAGE_BYTES :]

        def field(offset: int, size: int = 8, page: bytes = page) -> int:
            return int.from_bytes(page[offset : offset + size], "little")

        if field(0) != number or field(16, 4) != META_MAGIC or field(20, 4) != 1:
            raise FsError(Code.DAMAGED, f"{path}: meta page {number} is damaged")
        last = max(last, field(136))
        commits.append(field(144))
    # The two pages take turns: if they are further apart, one is an old copy.
    if abs(commits[0] - commits[1]) > 1:
        raise FsError(Code.DAMAGED, f"{path}: a meta page is older than it can be")
    if size < (last + 1) * PAGE_BYTES:
        raise FsError(
            Code.DAMAGED, f"{path} has {size} bytes, its pages need {(last + 1) * PAGE_BYTES}"
        )


def _verify_length(path: Path, wanted: int) -> None:
    size = path.stat().st_size
    if size < wanted:
        raise FsError(Code.DAMAGED, f"{path} has {size} bytes, it was allocated with {wanted}")


def _verify_table(index: Index, table: str) -> None:
    count = total = 0
    last = b""
    for key, sealed in index.sealed_records(table):
        unseal(table, key, sealed)
        if key <= last:
            raise FsError(Code.DAMAGED, f"index: table {table}: keys out of order")
        last = key
        count += 1
        total += checksum_of(sealed)
    index.compare_tally(table, count, total)


def main() -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer: dict[str, Any]
    try:
        found = verify(Path(sys.argv[1]))
        answer = {
            "cluster": found.cluster,
            "node": found.node,
            "store": found.store.hex(),
            "format": found.format,
        }
    except FsError as error:
        answer = {"code": int(error.code), "detail": error.detail}
    print(json.dumps(answer))
    return 78 if "code" in answer else 0


if __name__ == "__main__":
    sys.exit(main())
