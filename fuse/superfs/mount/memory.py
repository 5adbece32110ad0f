"""What this mount remembers is bounded, and what it has no use for goes back.

Directory by directory, least recently used first:

1. names and inodes that the kernel does not hold: one look-up brings them back;
2. what the kernel holds: it is asked to let go (FUSE_NOTIFY_PRUNE), and what it then has forgotten
   is forgotten here;
3. where it does not let go: attributes. They are asked for when somebody wants them.

A directory that the kernel has forgotten with all that is in it is remembered for FORGOTTEN_S
after its last use, then forgotten too. The lease of what is neither in the kernel nor remembered
goes back to the daemon (docs/decisions/0018-memory-of-a-mount.md).
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections import OrderedDict
from typing import TYPE_CHECKING

import trio

from superfs.mount.budget import Budget
from superfs.mount.leases import NEVER
from superfs.mount.notify import PRUNED_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from superfs.mount.mounted import Mounted
    from superfs.mount.nodes import Node
    from superfs.mount.places import Place

NODE_BYTES = 850
"""Of an inode: what stands for it, its attributes, their form for the kernel."""
COUNTED_BYTES = 110
"""And more when the kernel knows it."""
NAME_BYTES = 120
LEASE_BYTES = 200

TICK_S = 0.05
GIVE_BACK_S = 1.0
FORGOTTEN_S = 10.0
SWEEP_S = 30.0
"""How often leases are looked for that cover nothing: of inodes that went without a word."""
RUN_NAMES = 5000
"""So many, then requests come first."""
FORGET_LOOKS, FORGET_LOOK_S = 20, 0.01
"""How often it is seen whether the kernel's FORGETs have come."""
TRIM_S = 5.0

log = logging.getLogger("superfs.mount.memory")


class Memory:
    def __init__(
        self,
        mounted: Mounted,
        max_bytes: int,
        *,
        forgotten: Callable[[int], None],
        resident: Callable[[], int] | None = None,
    ) -> None:
        """`forgotten`: told of each directory, by the kernel's number, of which names go."""
        self._m = mounted
        self._forgotten = forgotten
        self._resident = resident or resident_bytes
        self.budget = Budget(max_bytes, self._resident())
        self._idle: OrderedDict[int, float] = OrderedDict()
        """Leases that cover nothing in the kernel, and until when that is forgiven."""
        self._leaving: set[int] = set()  # to go back
        self._give_back_at = self._sweep_at = self._trim_at = 0.0
        self.returned = 0
        self.evicted = 0
        """Inodes that were forgotten for want of memory."""

    @property
    def resident(self) -> int:
        return self._resident()

    @property
    def remembered(self) -> int:
        """Bytes, about."""
        m = self._m
        return (
            m.nodes.alive_count * NODE_BYTES
            + len(m.nodes) * COUNTED_BYTES
            + m.cache.names * NAME_BYTES
            + len(m.leases) * LEASE_BYTES
            + m.contents.bytes_kept
        )

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(TICK_S)
            await self.tick()

    async def tick(self) -> None:
        now = self._m.now()
        self._m.cache.turn += 1
        self._forget_idle(now)
        excess = self.budget.excess(self._resident(), self.remembered)
        if excess:
            self._m.crowded = trio.Event()
            try:
                await self._forget_bytes(excess)
            finally:
                self._m.crowded.set()
                self._m.crowded = None
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_S
            self._sweep()
        if now >= self._give_back_at:
            self._give_back_at = now + GIVE_BACK_S
            self.give_back()
        if now >= self._trim_at and self.budget.is_tight(self._resident()):
            self._trim_at = now + TRIM_S
            await trio.to_thread.run_sync(_trim)

    # ---- leases

    def _forget_idle(self, now: float) -> None:
        m = self._m
        let_go, m.nodes.held.let_go = m.nodes.held.let_go, set()
        for lease_id in let_go:
            self._idle[lease_id] = now + FORGOTTEN_S
            self._idle.move_to_end(lease_id)
        names = m.cache.names
        # The rest next time, when it takes long: requests come first.
        while self._idle and m.cache.names > names - RUN_NAMES:
            lease_id, due = self._idle.popitem(last=False)
            if due > now:
                self._idle[lease_id] = due
                self._idle.move_to_end(lease_id, last=False)
                break
            if not m.nodes.held[lease_id]:
                self._forget_unused(lease_id, now)

    def _forget_unused(self, lease_id: int, now: float) -> None:
        place = self._m.cache.places.get(lease_id)
        unused = FORGOTTEN_S if place is None else (self._m.cache.turn - place.used) * TICK_S
        if unused < FORGOTTEN_S:
            self._idle[lease_id] = now + FORGOTTEN_S - unused
        else:
            self._forget(lease_id)

    def _forget(self, lease_id: int) -> None:
        """What the kernel knows nothing of."""
        m = self._m
        assert not m.nodes.held[lease_id], f"{lease_id} is in the kernel"
        place = m.cache.places.get(lease_id)
        if place is not None:
            self._leaving.update(node.place for _, node in place.believed())
            self._drop(place, place.everything())
            m.cache.drop_place(place)
        self._leaving.add(lease_id)

    def _sweep(self) -> None:
        """Leases of what was told, and dropped without ever having been in the kernel."""
        self._leaving.update(
            lease_id
            for lease_id in self._m.leases.held()
            if not self._m.nodes.held[lease_id] and self._m.nodes.alive(lease_id) is None
        )

    def give_back(self) -> None:
        """Where nothing comes under them: neither in the kernel nor among the names here."""
        m, leaving = self._m, self._leaving
        if not leaving:
            return
        self._leaving = set()
        going = m.leases.give_back(
            lease_id
            for lease_id in leaving
            if not m.nodes.held[lease_id] and lease_id not in m.cache.places
        )
        if going:
            self.returned += len(going)
            m.meta.return_leases(going)

    # ---- too much

    async def _forget_bytes(self, excess: int) -> None:
        m = self._m
        goal = max(0, self.remembered - excess)
        before = m.nodes.alive_count
        for step in (self._forget_unheld, self._prune, self._strip):
            for place in sorted(m.cache.places.values(), key=lambda place: place.used):
                if self.remembered <= goal:
                    break
                if m.cache.places.get(place.node.ino) is place:
                    await step(place, goal)
        self.evicted += max(0, before - m.nodes.alive_count)
        log.debug("%d bytes were too much: %d inodes less", excess, before - m.nodes.alive_count)

    async def _forget_unheld(self, place: Place, _goal: int) -> None:
        m = self._m
        if not m.nodes.held[place.node.ino]:
            self._forget(place.node.ino)
        elif m.nodes.held[place.node.ino] <= len(place):
            self._drop(place, [known for known in place.everything() if not _in(known[1])])
        await _breathe(len(place))

    async def _prune(self, place: Place, goal: int) -> None:
        """The kernel is asked, and what it has let go of is forgotten."""
        m = self._m
        names = [name for name, node in place.believed() if self._may_go(node)]
        for start in range(0, len(names), PRUNED_MAX):
            portion = names[start : start + PRUNED_MAX]
            await m.notify.prune(place.node.number, place.known(portion)).wait()
            for _ in range(FORGET_LOOKS):
                if not any(_in(node) for _, node in place.known(portion)):
                    break
                await trio.sleep(FORGET_LOOK_S)
            self._drop(place, [known for known in place.known(portion) if not _in(known[1])])
            if self.remembered <= goal:
                break
        place.used = m.cache.turn  # whatever the kernel keeps is in use

    def _drop(self, place: Place, names: Iterable[tuple[bytes, Node | None]]) -> None:
        """With the contents of their files, unless the kernel has them under another name."""
        m = self._m
        dropped = []
        for name, node in names:
            dropped.append(name)
            if node is not None and node.whole is not None and not _in(node):
                m.contents.drop(node)
        if dropped:
            place.node.census = None
            self._forgotten(place.node.number)
            m.cache.drop_names(place, dropped)

    def _may_go(self, node: Node) -> bool:
        if node.file is not None or node.nlookup <= 0:
            return False
        attr = node.attr
        # A directory with something in it cannot go: its own turn comes when that has gone.
        return attr is None or not attr.is_dir or self._m.nodes.held[node.ino] <= 1

    async def _strip(self, place: Place, _goal: int) -> None:
        for _, node in place.believed():
            ours = node.place == place.node.ino  # nobody else is listing it just now
            if ours and node.file is None and not node.gone and not place.node.readers:
                node.lease = NEVER
                node.attr = node.packed = None
                place.forget_whole()  # a listing tells attributes too
        await _breathe(len(place))


def _in(node: Node | None) -> bool:
    """The kernel."""
    return node is not None and node.nlookup > 0


async def _breathe(names: int) -> None:
    if names > RUN_NAMES:
        await trio.lowlevel.checkpoint()


def resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _trim() -> None:
    """What the C library keeps for the next time."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
