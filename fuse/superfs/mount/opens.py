"""Which inodes the server believes this mount has open.

The server needs to know, so that a file which another client unlinks stays as long as it is open
here. It is told late on purpose: an Open only when the file is still open a moment later, a
Release only when the file was not opened again for some seconds. What this mount unlinks itself
does not depend on it: the request says `keep`.

Pure bookkeeping but for `settle` and `run`.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import trio

from superfs.core.errors import FsError
from superfs.rpc.bridge import drive

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.client.meta import MetaClient
    from superfs.core.namespace.txn import Ref
    from superfs.mount.nodes import Node

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
        self._to_open: dict[Key, tuple[Node, float]] = {}
        self._to_release: dict[Key, tuple[Ref, float]] = {}

    def opened(self, node: Node, *, told: bool = False) -> None:
        """First handle here. `told`: the server has registered it already."""
        key = (node.ino, node.generation)
        if told:
            self._told.add(key)
        if self._to_release.pop(key, None) is None and key not in self._told:
            self._to_open[key] = (node, self._now() + OPEN_DELAY_S)

    def closed(self, node: Node) -> None:
        """Last handle here."""
        key = (node.ino, node.generation)
        self._to_open.pop(key, None)
        if key in self._told:
            delay = 0.0 if node.gone else self._release_delay_s
            self._to_release[key] = (node.ref, self._now() + delay)

    def kept(self, node: Node) -> None:
        """The server keeps an unlinked file for this mount."""
        key = (node.ino, node.generation)
        self._to_open.pop(key, None)
        if key not in self._told:
            self._told.add(key)
            self._meta.note_open(node.ref)
        if node.file is None:
            self._to_release[key] = (node.ref, self._now())

    @property
    def registered(self) -> int:
        return len(self._told)

    async def before_removal(self, node: Node | None) -> None:
        """Called before a name is removed: of a file that is closed here the server must not
        believe that it is open, or it would keep it for nothing; and it must know of every other
        one, because the name may be another file's by now."""
        if node is not None:
            waiting = self._to_release.pop((node.ino, node.generation), None)
            if waiting is not None:
                await self._release([((node.ino, node.generation), waiting[0])])
        if node is None and self._to_open:
            await self._tell(list(self._to_open))

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
                self._told.add(key)
                nursery.start_soon(self._tell_one, node)

    async def _tell_one(self, node: Node) -> None:
        try:
            await drive(self._meta.open(node.ref))
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
