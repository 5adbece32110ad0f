"""Drops what ended sessions have left at the data daemons under numbers of their ranges.

A client writes the contents of a file there before it ships the log that makes the file. When it
ends without that, nobody will ever name them. They are the numbers above the highest that a log
has used: none of these is ever accepted, for the session has ended. So no list of files is needed
to know them, and each data daemon is asked for what it has of them.

It is on record until it is done: the record of the session keeps its range. A data daemon that is
away is asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from superfs.core.errors import FsError
from superfs.meta.commit import full_store_is_no_end

if TYPE_CHECKING:
    from collections.abc import Iterable

    from superfs.daemon.world import World
    from superfs.meta.commit import Committer
    from superfs.meta.datads import DataDaemons
    from superfs.meta.store import LmdbTxn

RETRY_S = 10.0


@dataclass(frozen=True, slots=True)
class Swept:
    """An ended session, and from where on its range is unused."""

    session: int
    epoch: int
    range: int
    used: int


class Sweeper:
    def __init__(self, datads: DataDaemons, committer: Committer, world: World) -> None:
        self._datads = datads
        self._committer = committer
        self._world = world
        self._todo: dict[Swept, set[int]] = {}
        """And the data daemons that are done."""
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._todo)

    def ended(self, sessions: Iterable[Swept]) -> None:
        for session in sessions:
            self._todo.setdefault(session, set())
        self._news.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if self._todo else None):
                    await self._news.wait()
            self._news.clear()
            for swept in list(self._todo):
                if await self._sweep(swept):
                    with full_store_is_no_end():
                        await self._committer.run(partial(_forget, session=swept.session))
                        del self._todo[swept]

    async def _sweep(self, swept: Swept) -> bool:
        done, nodes = self._todo[swept], self._datads.nodes()
        for node in nodes:
            if node in done:
                continue
            try:
                dropped = await self._datads.drop_range(node, swept)
            except FsError as error:
                self._world.log.debug("not swept yet", node=node, error=str(error))
                continue
            done.add(node)
            if dropped:
                self._world.log.info(
                    "data that became no files", node=node, session=f"{swept.session:#x}",
                    files=dropped,
                )  # fmt: skip
        return bool(nodes) and done.issuperset(nodes)


def _forget(txn: LmdbTxn, session: int) -> None:
    found = txn.get_session(session)
    if found is not None:
        found.range = 0
        txn.put_session(session, found)
