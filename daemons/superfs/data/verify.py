"""Reads the whole index in a process of its own before a data daemon opens it.

Checks the file (daemon/lmdbfile.py says why in a child), the identity inside, the checksum of
every record, and the tallies of the tables.

    python -m superfs.data.verify INDEX_DIRECTORY     exit status 0 or 78
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import lmdb

from superfs.core.errors import Code, FsError
from superfs.daemon.lmdbfile import (
    PAGE_BYTES,
    check_file,
    check_in_child,
    child_main,
    data_file,
    fault_of,
)
from superfs.data.index import Index
from superfs.data.keys import TABLES
from superfs.data.records import checksum_of, unseal


def verify_in_child(directory: Path) -> None:
    """FsError DAMAGED says what is wrong."""
    check_in_child("superfs.data.verify", [str(directory)], data_file(directory))


def verify(directory: Path) -> None:
    path = data_file(directory)
    check_file(path)
    try:
        index = Index(directory, path.stat().st_size // PAGE_BYTES * PAGE_BYTES, readonly=True)
        index.position()
        _verify_length(path, index.allocated_bytes())
        for table in TABLES:
            _verify_table(index, table)
        index.walk_all_pages()
        index.identity()
        index.boots()
    except lmdb.Error as error:
        raise fault_of(path, error) from None


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
    return child_main(lambda: verify(Path(sys.argv[1])))


if __name__ == "__main__":
    sys.exit(main())
