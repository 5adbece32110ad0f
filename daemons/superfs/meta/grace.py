"""After a start: leases that this daemon granted before may still be used, and it does not know
which. Changes wait until every session that has leases on record has said hello, has ended, or
must have let go of them; reads are answered meanwhile.
"""

from __future__ import annotations

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
        self._held: deque[Job] = deque()
        self._held_bytes = 0
        self._started = 0.0
        self._took_s = 0.0

    @property
    def active(self) -> bool:
        return bool(self._awaited)

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return self._world.clock.monotonic() - self._started if self._awaited else self._took_s

    def start(self, sessions: Iterable[int]) -> None:
        self._awaited = set(sessions)
        self._started = self._world.clock.monotonic()
        if self._awaited:
            self._world.log.info(
                "grace: changes wait for clients that have leases", sessions=len(self._awaited)
            )

    def hold(self, job: Job) -> None:
        """Until the end of the grace; then in the order they came."""
        assert self._awaited
        if self._held and self._held_bytes + job.size_bytes > HELD_BYTES_MAX:
            job.failed(FsError(Code.GRACE, "too much waits for clients to come back: ask again"))
            return
        self._held_bytes += job.size_bytes
        self._held.append(job)

    def back(self, session: int) -> None:
        """It has said hello, or has ended: it uses no lease of before."""
        if session in self._awaited:
            self._awaited.discard(session)
            if not self._awaited:
                self._end()

    def tick(self, now: float) -> None:
        if self._awaited and now - self._started >= self._timeout_s:
            self._awaited.clear()
            self._end()

    def stop(self) -> None:
        while self._held:
            self._held.popleft().failed(FsError(Code.UNAVAILABLE, "the daemon is stopping"))

    def _end(self) -> None:
        self._took_s = self._world.clock.monotonic() - self._started
        self._world.log.info(
            "grace is over", seconds=round(self._took_s, 3), changes=len(self._held)
        )
        while self._held:
            self._submit(self._held.popleft())
