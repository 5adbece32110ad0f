"""How sessions end: by a goodbye, or by silence; and what is left of them.

Silence counts while this daemon was there to listen: after a pause of its own (it was stopped, or
the machine slept) nobody has been silent for longer than before.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from superfs.meta.commit import full_store_is_no_end
from superfs.meta.fences import Fences
from superfs.meta.sweeper import Swept

if TYPE_CHECKING:
    from superfs.daemon.world import World
    from superfs.meta.background import Background
    from superfs.meta.config import MetaConfig
    from superfs.meta.node import MetaNode
    from superfs.meta.store import LmdbTxn

FORGET_EVERY_S = 3600.0
FORGET_EXCLUSIVE_S = 10.0


class Expiry:
    def __init__(self, node: MetaNode, config: MetaConfig, world: World) -> None:
        self._node = node
        self._sessions = node.sessions
        self._config = config
        self._world = world
        self._forget_next = 0.0
        self.fences = Fences(node.datads.call, node.datads.nodes, self._fenced, world)

    def start(self, background: Background) -> None:
        """The sessions are loaded."""
        self._background = background
        self.fences.owe(self._sessions.unfenced)
        background.start(self.fences.run(), "fences")
        background.start(self._expire(), "session expiry")
        background.start(self._forget(), "ended sessions")

    async def end(self, session: int, silent_since: float | None = None) -> None:
        """`silent_since`: only if it has not been heard of after that moment."""
        epoch = await self._end(session, silent_since)
        if not epoch:
            self._let_go(session)
        elif silent_since is None:
            self.fences.owe({session: epoch})
            self._ended(session, expired=False)
        else:  # others wait for this one, and for no other
            self._background.start(self._end_expired(session, epoch), "end of a session")

    async def end_dead(self, session: int) -> None:
        """Its process is known to have ended: nobody waits for it any more."""
        epoch = await self._end(session, None)
        if epoch:
            await self._end_expired(session, epoch)

    async def _end(self, session: int, silent_since: float | None) -> int:
        """On record. The lowest epoch that data daemons may still let in; 0: it is not there, or
        was heard of."""
        left: list[Swept] = []

        def end(txn: LmdbTxn) -> int:
            left.clear()
            client = self._sessions.get(session)
            if client is not None and silent_since is not None and client.heard >= silent_since:
                return 0
            epoch = client.epoch if client is not None else 1
            if not self._sessions.end(txn, session):
                return 0
            found = txn.get_session(session)
            if found is not None and found.range:
                left.append(Swept(session, found.epoch, found.range, found.used))
            return epoch + 1

        epoch = await self._node.committer.run(end, weight=64)
        self._node.sweeper.ended(left)
        return epoch

    async def _end_expired(self, session: int, epoch: int) -> None:
        """Nobody goes on without it before it is kept from the data daemons."""
        await self.fences.put_up(session, epoch)
        self._ended(session, expired=True)

    def _ended(self, session: int, *, expired: bool) -> None:
        self._let_go(session)
        self._world.log.info("session ended", session=f"{session:#x}", expired=expired)

    def _let_go(self, session: int) -> None:
        if self._sessions.get(session) is None:
            self._node.lessor.end(session)
            self._node.grace.back(session)
            self._node.grace.settled(session)

    async def _fenced(self, session: int) -> None:
        with full_store_is_no_end():
            await self._node.committer.run(partial(self._sessions.fenced, session=session))

    async def _expire(self) -> None:
        timeout_s = self._config.session_timeout_s
        lease_timeout_s = self._config.lease_timeout_s
        pause_s = min(1.0, lease_timeout_s / 4)
        lessor, grace = self._node.lessor, self._node.grace
        now = self._world.clock.monotonic()
        while True:
            await asyncio.sleep(pause_s)
            before, now = now, self._world.clock.monotonic()
            if now - before > pause_s + lease_timeout_s / 4:
                self._world.log.warning("did not run for a while", seconds=round(now - before, 1))
                self._sessions.excuse(now - before)
                lessor.excuse(now - before)
            lessor.tick(now)
            grace.tick(now)
            await self._forget_exclusive(now)
            for session in self._sessions.silent_since(now - timeout_s):
                with full_store_is_no_end():
                    await self.end(session, now - timeout_s)

    async def _forget_exclusive(self, now: float) -> None:
        """On record: who has held nothing exclusively for a while now need not be waited for."""
        none = self._sessions.holding_none(self._node.lessor.exclusives.has_any)
        if none and not self._node.grace.active and now >= self._forget_next:
            self._forget_next = now + FORGET_EXCLUSIVE_S
            with full_store_is_no_end():
                await self._node.committer.run(partial(self._sessions.hold_none, sessions=none))

    async def _forget(self) -> None:
        """What ended sessions have left, a part at a time: others want the writer too."""
        sessions, run = self._sessions, self._node.committer.run
        while True:
            with full_store_is_no_end():
                await run(sessions.release_dead)
                start = await run(partial(sessions.forget_ended, start=b""))
                while start:
                    start = await run(partial(sessions.forget_ended, start=start))
            await asyncio.sleep(FORGET_EVERY_S)
