"""What a client of a lent segment does, on a store in the test's process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from harness import datastore
from superfs.core.limits import MIB
from superfs.data import records
from superfs.data.keys import ChunkKey
from superfs.data.lending import Placed

if TYPE_CHECKING:
    from superfs.data.segments import Segment
    from superfs.data.store import DataStore

KEY = ChunkKey(1, 1, 0)


def put(segment: Segment, place: int, data: bytes) -> None:
    """As a client does, through a descriptor of its own."""
    fd = os.open(segment.path, os.O_RDWR)
    os.pwrite(fd, data, place)
    os.close(fd)


def placed(store: DataStore, segment: Segment, place: int, data: bytes, offset: int = 0) -> None:
    put(segment, place, data)
    crcs = records.block_crcs(data)
    store.place(7, KEY, Placed(segment.number, place, offset, len(data), crcs))


def read_all(store: DataStore, end: int) -> bytes:
    parts = [
        datastore.read(store, 1, at, min(MIB, end - at)).ljust(min(MIB, end - at), b"\0")
        for at in range(0, end, MIB)
    ]
    return b"".join(parts)
