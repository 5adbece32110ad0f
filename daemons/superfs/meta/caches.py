"""What bounded cache directories need besides the transactions: time, and what these leave undone.

Directories that were moved in or out are walked, clients that hold a directory exclusively are
asked for it when its cache needs the room, and what was not used for long goes, or could not go
before. In the event loop; every change is a job of the writer, who makes room at its end.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.meta import keys, records
from superfs.meta.cachetxn import WALK_ENTRIES, CachingTxn
from superfs.meta.commit import full_store_is_no_end
from superfs.meta.evicting import SECOND_NS, STEPS_MAX
from superfs.meta.keys import Order, Table

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Ref
    from superfs.daemon.world import World
    from superfs.meta.background import Background
    from superfs.meta.cachetxn import Left
    from superfs.meta.node import MetaNode
    from superfs.meta.store import LmdbTxn
    from superfs.meta.table import Records

TICK_S = 1.0


class Caches:
    def __init__(self, node: MetaNode, world: World) -> None:
        self._node = node
        self._world = world
        self._recalling: set[int] = set()
        self._again: set[int] = set()
        self._woken = asyncio.Event()

    def start(self, background: Background) -> None:
        self._background = background
        background.start(self._walk(), "directories of caches")
        background.start(self._run(), "caches")

    def look_after(self, left: Left) -> None:
        """After a commit."""
        self._again |= left.again
        if left.walks or left.again:
            self._woken.set()
        recall = left.recall - self._recalling
        if recall:
            self._recalling |= recall
            self._background.start(self._recall(recall), "room in caches")

    async def _recall(self, places: set[int]) -> None:
        """What clients have done there by themselves is shipped, and then something else may go."""
        try:
            await self._node.lessor.opened(places, 0)
        finally:
            self._recalling -= places
        with self._node.environment.reading() as rows:
            roots = {root for place in places if (root := root_of(rows, place))}
        await self._make_room(roots)

    async def _make_room(self, roots: set[int]) -> None:
        def due(txn: LmdbTxn) -> None:
            assert isinstance(txn, CachingTxn)
            txn.due |= roots

        if roots:
            with full_store_is_no_end():
                await self._node.committer.run(due, weight=STEPS_MAX)

    async def _walk(self) -> None:
        """What was under way when the daemon ended goes on."""
        while True:
            with self._node.environment.reading() as rows:
                waits = rows.state.counts[Table.CACHEWALK]
            if not waits and not self._again:
                await self._woken.wait()
            self._woken.clear()
            again, self._again = self._again, set()
            await self._make_room(again)
            if waits:
                try:
                    await self._node.committer.run(_walk, weight=WALK_ENTRIES)
                except FsError as error:
                    if error.code is not Code.NO_SPACE:
                        raise
                    await asyncio.sleep(TICK_S)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            await self._make_room(self._due())

    def _due(self) -> set[int]:
        """Caches that have too much, or something that was not used for too long."""
        found: set[int] = set()
        now = self._world.clock.now_ns()
        with self._node.environment.reading() as rows:
            if not rows.state.counts[Table.CACHE]:
                return found
            for key, record in rows.scan(Table.CACHE, b""):
                root, cache = keys.parse_id(key), records.unpack_cache(record)
                late_ns = now - cache.ttl_s * SECOND_NS
                late = cache.ttl_s and _oldest_ns(rows, root, now) < late_ns
                if 0 < cache.bytes_max < cache.bytes or late:
                    found.add(root)
        return found


def _walk(txn: LmdbTxn) -> None:
    assert isinstance(txn, CachingTxn)
    txn.walk()


def _oldest_ns(rows: Records, root: int, now: int) -> int:
    prefix = keys.pack_ranks(root, Order.USED)
    for key in rows.keys(Table.CACHERANK, prefix, prefix):
        return keys.parse_rank(key)[2][0]
    return now


def root_of(rows: Records, directory: int) -> int | None:
    record = rows.get(Table.CACHED, keys.pack_id(directory))
    return None if record is None else records.unpack_id(record)


def usage(txn: LmdbTxn, inode: Ref) -> bytes:
    """What USAGE_XATTR says. NO_XATTR for what is no cache."""
    rows = txn.rows
    record = rows.get(Table.CACHE, keys.pack_id(inode.ino))
    if record is None:
        raise FsError(Code.NO_XATTR, "not a cache")
    c = records.unpack_cache(record)
    return (
        f"bytes={c.bytes} files={c.files} evicted_files={c.evicted_files} "
        f"evicted_bytes={c.evicted_bytes} filing={int(rows.state.counts[Table.CACHEWALK] > 0)}"
    ).encode()
