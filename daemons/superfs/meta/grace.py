"""After a start: leases that this daemon granted before may still be used, and it does not know
which. Changes wait until every session that has leases on record has said hello, has ended, or
must have let go of them; reads are answered meanwhile.

Sessions that may have exclusive ones on record have changed things that nobody here knows of:
until they have shipped that, and said so, others wait with questions too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.limits import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from superfs.daemon.world import World
    from superfs.meta.commit import Job


HELD_BYTES_MAX = 256 * MIB
"""Of the requests that wait. More would be memory for the asking: a client may try again."""


class Grace:
    def __init__(self, world: World, timeout_s: float, submit: Callable[[Job], None]) -> None:
        self._world = world
        self._timeout_s = timeout_s
        self._submit = submit
        self._awaited: set[int] = set()
        self._unsettled: dict[int, float] = {}
        """Who may have something to ship, and until when that is waited for."""
        self._asking: list[tuple[int, asyncio.Future[None]]] = []
        self._held: deque[Job] = deque()
        self._held_bytes = 0
        self._started = 0.0
        self._took_s = 0.0

    @property
    def active(self) -> bool:
        return bool(self._awaited or self._unsettled)

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return self._world.clock.monotonic() - self._started if self.active else self._took_s

    def start(self, sessions: Iterable[int], exclusive: Iterable[int] = ()) -> None:
        self._awaited = set(sessions)
        self._started = self._world.clock.monotonic()
        self._unsettled = dict.fromkeys(exclusive, self._started + self._timeout_s)
        if self.active:
            self._world.log.info(
                "grace: changes wait for clients that have leases",
                sessions=len(self._awaited),
                exclusive=len(self._unsettled),
            )

    def may_log(self, session: int) -> bool:
        """What is waited for does not wait."""
        return session in self._unsettled and session not in self._awaited

    def may_read(self, session: int) -> bool:
        return not self._unsettled or self._unsettled.keys() <= {session}

    async def others_settled(self, session: int) -> None:
        while not self.may_read(session):
            future = asyncio.get_running_loop().create_future()
            self._asking.append((session, future))
            await future

    def hold(self, job: Job) -> None:
        """Until the end of the grace; then in the order they came."""
        assert self.active
        if self._held and self._held_bytes + job.size_bytes > HELD_BYTES_MAX:
            job.failed(FsError(Code.GRACE, "too much waits for clients to come back: ask again"))
            return
        self._held_bytes += job.size_bytes
        self._held.append(job)

    def back(self, session: int) -> None:
        """It has said hello, or has ended: it uses no lease of before."""
        if session not in self._awaited:
            return
        self._awaited.discard(session)
        if session in self._unsettled:
            self._unsettled[session] = self._world.clock.monotonic() + self._timeout_s
        self._check()

    def settled(self, session: int) -> None:
        """It has shipped what it did before, or never will."""
        if self._unsettled.pop(session, None) is not None:
            self._check()

    def tick(self, now: float) -> None:
        if not self.active:
            return
        if self._awaited and now - self._started >= self._timeout_s:
            for session in self._awaited:
                self._unsettled.pop(session, None)
            self._awaited.clear()
        for session in [s for s, until in self._unsettled.items() if now >= until]:
            del self._unsettled[session]
        self._check()

    def stop(self) -> None:
        self._unsettled.clear()
        self._wake()
        while self._held:
            self._held.popleft().failed(FsError(Code.UNAVAILABLE, "the daemon is stopping"))

    def _check(self) -> None:
        self._wake()
        if not self.active:
            self._end()

    def _wake(self) -> None:
        asking, self._asking = self._asking, []
        for session, future in asking:
            if not self.may_read(session):
                self._asking.append((session, future))
            elif not future.done():
                future.set_result(None)

    def _end(self) -> None:
        self._took_s = self._world.clock.monotonic() - self._started
        self._world.log.info(
            "grace is over", seconds=round(self._took_s, 3), changes=len(self._held)
        )
        while self._held:
            self._submit(self._held.popleft())
