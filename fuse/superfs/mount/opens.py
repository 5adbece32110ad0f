"""Which inodes the server believes this mount has open.

The server needs to know, so that a file which another client unlinks stays as long as it is open
here. It is told late on purpose: an Open only when the file is still open a moment later, a
Release only when the file was not opened again for some seconds. What this mount removes itself
does not depend on it: the request says `keep`, and what was kept is let go when the kernel has
forgotten it. A look-up may have found it before, and its open is still to come.

Pure bookkeeping but for `settle`, `left` and `run`.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING

import trio

from superfs.core.errors import FsError
from superfs.rpc.bridge import drive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from superfs.client.meta import MetaClient
    from superfs.core.namespace.txn import Ref
    from superfs.mount.nodes import Node

KEPT_S = 60.0
"""How long a removed file is kept that the kernel neither opens nor forgets."""
OPEN_DELAY_S = 0.05
TICK_S = 0.1
RELEASE_BATCH_MAX = 1024

log = logging.getLogger("superfs.mount.opens")
Key = tuple[int, int]  # number, generation


class Opens:
    def __init__(
        self,
        meta: MetaClient,
        release_delay_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._meta = meta
        self._release_delay_s = release_delay_s
        self._now = now
        self._told: set[Key] = set()
        self._writing: dict[Key, bool] = {}
        """Open here for writing, in caches; and whether the server was told so."""
        self._to_open: dict[Key, tuple[Node, float]] = {}
        self._to_release: dict[Key, tuple[Ref, float]] = {}
        self._leaving: dict[Key, trio.Event] = {}

    def opened(self, node: Node, *, told: bool = False) -> None:
        """First handle here. `told`: the server has registered it already."""
        key = (node.ino, node.generation)
        if told:
            self._told.add(key)
        if self._to_release.pop(key, None) is None and key not in self._told:
            self._to_open[key] = (node, self._now() + OPEN_DELAY_S)

    def writing(self, node: Node) -> None:
        """A handle here may write to a file in a cache, which leaves it alone meanwhile."""
        key = (node.ino, node.generation)
        if not self._writing.setdefault(key, False):
            self._to_release.pop(key, None)
            self._to_open.setdefault(key, (node, self._now() + OPEN_DELAY_S))

    def closed(self, node: Node) -> None:
        """Last handle here."""
        key = (node.ino, node.generation)
        wrote = self._writing.pop(key, None) is not None
        self._to_open.pop(key, None)
        if key in self._told:  # what was written is to be evicted like any other from now on
            self._release_later(node, 0.0 if wrote else self._release_delay_s)

    def _release_later(self, node: Node, delay_s: float) -> None:
        if node.gone:
            delay_s = KEPT_S if node.nlookup > 0 else 0.0
        self._to_release[node.ino, node.generation] = (node.ref, self._now() + delay_s)

    def forgotten(self, node: Node) -> None:
        """By the kernel: nobody can open it any more without a look-up."""
        waiting = self._to_release.get((node.ino, node.generation))
        if node.gone and waiting is not None:
            self._to_release[node.ino, node.generation] = (waiting[0], self._now())

    def kept(self, node: Node) -> None:
        """The server keeps a removed file for this mount."""
        key = (node.ino, node.generation)
        self._to_open.pop(key, None)
        if key not in self._told:
            self._told.add(key)
            self._meta.note_open(node.ref)
        if node.file is None:
            self._release_later(node, 0.0)

    def holds(self, node: Node) -> bool:
        """Whether the server keeps it as long as we say nothing."""
        return (node.ino, node.generation) in self._told

    @property
    def registered(self) -> int:
        return len(self._told)

    async def before_unlink(self, node: Node) -> None:
        """Of a file that is closed here the server must not believe that it is open, or it would
        keep it for nothing."""
        waiting = self._to_release.pop((node.ino, node.generation), None)
        if waiting is not None:
            await self._release([((node.ino, node.generation), waiting[0])])

    # ---- removals under way that will keep nothing

    @contextlib.contextmanager
    def leaving(self, node: Node) -> Iterator[None]:
        key = (node.ino, node.generation)
        event = self._leaving[key] = trio.Event()
        try:
            yield
        finally:
            if self._leaving.get(key) is event:
                del self._leaving[key]
            event.set()

    def is_leaving(self, node: Node) -> bool:
        return bool(self._leaving) and (node.ino, node.generation) in self._leaving

    async def left(self, node: Node) -> None:
        """Whoever opens it meanwhile waits for what comes of it."""
        await self._leaving[node.ino, node.generation].wait()

    async def run(self) -> None:
        while True:
            await trio.sleep(TICK_S)
            await self.settle()

    async def settle(self, *, everything: bool = False) -> None:
        now = self._now()
        await self._tell([k for k, (_, due) in self._to_open.items() if everything or due <= now])
        due = [
            (key, ref) for key, (ref, due) in self._to_release.items() if everything or due <= now
        ]
        for start in range(0, len(due), RELEASE_BATCH_MAX):
            batch = due[start : start + RELEASE_BATCH_MAX]
            for key, _ in batch:
                del self._to_release[key]
            await self._release(batch)

    async def _tell(self, keys: list[Key]) -> None:
        async with trio.open_nursery() as nursery:
            for key in keys:
                node, _ = self._to_open.pop(key)
                again = key in self._told
                self._told.add(key)
                nursery.start_soon(self._tell_one, node, again)

    async def _tell_one(self, node: Node, again: bool) -> None:
        key = (node.ino, node.generation)
        write = key in self._writing
        if write:
            self._writing[key] = True
        try:
            await drive(self._meta.open(node.ref, write=write))
            if again:  # it is counted once, whatever we said
                await drive(self._meta.release([node.ref]))
        except FsError as error:
            # Removed by another client before we said so: reads will say STALE.
            log.debug("open of inode %d was not registered: %s", node.ino, error)

    async def _release(self, batch: list[tuple[Key, Ref]]) -> None:
        for key, _ in batch:
            self._told.discard(key)
        try:
            await drive(self._meta.release([ref for _, ref in batch]))
        except FsError as error:
            # The server drops what a session had open when the session ends.
            log.warning("%d releases were not delivered: %s", len(batch), error)
