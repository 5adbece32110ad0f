"""Access times: set in memory when something is read, told to the server a little later.

relatime, the default, sets one only where it tells something new: after a change, or once a day.
In a bounded cache directory each use counts, whatever the policy: what is not read is what goes.
There opening a file for reading is a use, for what is in the kernel's pages is read without us.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from superfs.core.attrs import Flag
from superfs.core.errors import FsError
from superfs.core.limits import TOUCH_INODES_MAX

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Ref
    from superfs.mount.mounted import Mounted
    from superfs.mount.nodes import Node

TICK_S = 1.0
DAY_NS = 86_400 * 10**9
CACHE_NS = 10**9
"""In a cache: not more than once in so long."""
CACHED = int(Flag.CACHED)

log = logging.getLogger("superfs.mount.atimes")


def is_due(policy: str, attr: Attr, atime_ns: int, now_ns: int) -> bool:
    if policy == "noatime":
        return False
    if policy == "strictatime":
        return True
    stale = atime_ns <= attr.mtime_ns or atime_ns <= attr.ctime_ns
    return stale or now_ns - atime_ns >= DAY_NS


class Atimes:
    def __init__(self, mounted: Mounted) -> None:
        self._m = mounted
        self._waiting: dict[int, Node] = {}
        self._policy = "noatime" if mounted.options.read_only else mounted.options.atime
        self._may = not mounted.options.read_only

    def counts(self, node: Node) -> bool:
        """Whether it is a file in a bounded cache directory."""
        directory = self._m.nodes.alive(node.place) if self._may else None
        attr = directory.attr if directory is not None and directory is not node else None
        return attr is not None and bool(attr.flags & CACHED)

    def touch(self, node: Node) -> None:
        """Something in it was read."""
        attr = node.attr
        if attr is None or node.gone:
            return
        cached = self.counts(node)
        if not cached and self._policy == "noatime":
            return
        now_ns = self._m.wall_ns()
        before_ns = max(attr.atime_ns, node.atime_ns)
        if cached:
            is_due_now = now_ns - before_ns >= CACHE_NS
        else:
            is_due_now = is_due(self._policy, attr, before_ns, now_ns)
        if is_due_now:
            node.atime_ns = now_ns
            node.packed = None
            self._waiting[node.number] = node

    def overruled(self, node: Node) -> None:
        """Somebody has set the access time."""
        node.atime_ns = 0
        self._waiting.pop(node.number, None)

    async def run(self) -> None:
        while True:
            await trio.sleep(TICK_S)
            await self.ship()

    async def ship(self) -> None:
        """Many at once, of one directory each: an access time is not worth a message."""
        waiting, self._waiting = self._waiting, {}
        places: dict[int, list[tuple[Ref, int]]] = {}
        for node in waiting.values():
            places.setdefault(node.place, []).append((node.ref, node.atime_ns))
        async with trio.open_nursery() as nursery:
            for inodes in places.values():
                for at in range(0, len(inodes), TOUCH_INODES_MAX):
                    nursery.start_soon(self._ship, inodes[at : at + TOUCH_INODES_MAX])

    async def _ship(self, inodes: list[tuple[Ref, int]]) -> None:
        try:
            await self._m.call(self._m.meta.touch(inodes))
        except FsError as error:
            log.debug("access times of %d inodes: %s", len(inodes), error)
