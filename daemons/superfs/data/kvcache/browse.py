"""Looking at what is stored, block by block: nothing here counts as a use, holds a block, or brings
one back to memory.

A listing goes through the rows of the memory's table, then through those of the disk's; where it
goes on is a row. A block keeps its row as long as it is stored, so what is there the whole time
comes once. (One that goes from memory to disk only, or back, meanwhile, may come twice or not.)
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xxhash import xxh3_64_intdigest

from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from superfs.data.kvcache.disk import Disk
    from superfs.data.kvcache.namespaces import Namespace
    from superfs.data.kvcache.places import Place
    from superfs.data.kvcache.pool import Pool

BLOCKS_MAX = 1024
"""In one answer."""
ROWS_MAX = 4096
"""That are looked at for one answer: others wait meanwhile, for a millisecond or so."""
SHELF = 1 << 32
"""Where to go on: a row of the memory's table, or so much more than one of the disk's."""


@dataclass(slots=True)
class Listing:
    keys: bytearray = field(default_factory=bytearray)
    lengths: list[int] = field(default_factory=list)
    afters: list[int] = field(default_factory=list)
    next: int = 0  # 0: there are no more


def listed(space: Namespace, after: int, limit: int) -> Listing:
    limit = min(limit or BLOCKS_MAX, BLOCKS_MAX)
    found, looked = Listing(), 0
    if after < SHELF:
        rows = space.table.index.rows
        at, end = after, min(rows, after + ROWS_MAX)
        while at < end and len(found.lengths) < limit:
            length = space.places.length_at(at)
            at += 1
            looked += 1
            if length:
                _add(found, space.table.index.key(at - 1), length, at)
        after = at if at < rows else SHELF
    shelf = space.shelf
    if after < SHELF or shelf is None:
        found.next = after if after < SHELF else 0
        return found
    rows = SHELF + shelf.table.index.rows
    end = min(rows, after + ROWS_MAX - looked)
    while after < end and len(found.lengths) < limit:
        length = shelf.places.length_at(after - SHELF)
        after += 1
        if length:
            key = shelf.table.index.key(after - 1 - SHELF)
            if not space.places.committed(key):
                _add(found, key, length, after)
    found.next = after if after < rows else 0
    return found


def _add(found: Listing, key: bytes, length: int, after: int) -> None:
    found.keys += key
    found.lengths.append(length)
    found.afters.append(after)


def lengths(space: Namespace, keys: list[bytes]) -> list[int]:
    """Each by itself; 0: it is neither in memory nor on disk."""
    return [place.length if (place := _place(space, key)) is not None else 0 for key in keys]


def _place(space: Namespace, key: bytes) -> Place | None:
    place = space.places.get(key)
    return place if place is not None and place.committed else space.on_disk(key)


async def contents(
    pool: Pool, disk: Disk | None, threads: Executor, space: Namespace, key: bytes
) -> bytes:
    """What was stored, from memory or from disk. NOT_FOUND: it is in neither, or was damaged: then
    it goes."""
    while (place := _place(space, key)) is not None:
        place.readers += 1  # its room is nobody else's until it was read
        try:
            loop = asyncio.get_running_loop()
            data = await loop.run_in_executor(threads, _read, place)
        finally:
            place.let_go()
        if data is not None:
            return data
        if place.slab is not pool.slab:
            assert disk is not None
            disk.tier.lose(space, key, place)
        else:
            pool.check(space, key, place)
            if space.places.get(key) is place:
                break  # here it is well: somebody has written to it while it was read
    raise FsError(Code.NOT_FOUND, "no such block, or not any more")


def _read(place: Place) -> bytes | None:
    """In a thread."""
    try:
        data = place.slab.read(place.at, 0, place.length)
    except (FsError, OSError):
        return None
    return data if xxh3_64_intdigest(data) == place.checksum else None
