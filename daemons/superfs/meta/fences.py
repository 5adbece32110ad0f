"""Keeps ended sessions out of the data daemons: nothing that such a client still sends is let in.

A session's fence is owed from the transaction that ends it, which says so in its record, until
every data daemon of the cluster map has it on its disk. One that is away is told when it comes
back, also after a restart of this daemon. Until then it lets a client write that does not know of
its end.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from superfs.core.errors import FsError
from superfs.v1 import data_pb2

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from superfs.daemon.world import World

RETRY_S = 5.0
WAIT_S = 2.0
"""So long the leases of an expired session are kept for a data daemon that does not answer."""


class Fences:
    def __init__(
        self,
        tell: Callable[[int, data_pb2.DataRequest], Awaitable[object]],
        nodes: Callable[[], Iterable[int]],
        paid: Callable[[int], Awaitable[None]],
        world: World,
    ) -> None:
        """`nodes`: the data daemons there are. `paid`: nothing is owed any more for a session."""
        self._tell = tell
        self._nodes = nodes
        self._paid = paid
        self._world = world
        self._owed: dict[int, int] = {}  # session -> lowest epoch still let in
        self._told: dict[int, set[int]] = {}
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._owed)

    def owe(self, sessions: Mapping[int, int]) -> None:
        """They are told of in the background (`run`)."""
        self._owed.update(sessions)
        self._news.set()

    async def put_up(self, session: int, epoch: int) -> None:
        """Returns when every data daemon knows, at the latest after WAIT_S."""
        self._owed[session] = epoch
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                await self._send(session, set())
        if session in self._owed:
            self._news.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            self._news.clear()
            away: set[int] = set()
            for session in list(self._owed):
                await self._send(session, away)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if self._owed else None):
                    await self._news.wait()

    async def _send(self, session: int, away: set[int]) -> None:
        """To all but those that are known to be `away`, which become more."""
        told = self._told.setdefault(session, set())
        nodes = set(self._nodes())
        await asyncio.gather(*(self._send_to(n, session, away) for n in nodes - told - away))
        if nodes and nodes <= told and self._owed.pop(session, None) is not None:
            del self._told[session]
            with contextlib.suppress(FsError):  # it is told again after the next start
                await self._paid(session)

    async def _send_to(self, node: int, session: int, away: set[int]) -> None:
        epoch = self._owed.get(session)
        if epoch is None:
            return
        body = data_pb2.Fence(session_id=session, epoch=epoch)
        try:
            await self._tell(node, data_pb2.DataRequest(fence=body))
        except FsError as error:
            self._world.log.debug("not fenced yet", node=node, error=str(error))
            away.add(node)
            return
        self._told.get(session, set()).add(node)
