"""Who holds a directory exclusively: nobody else reads or changes it (docs/decisions/0019).

The writer's thread adds what a transaction has granted, as soon as that is durable; the event loop
confirms it when the commit is announced, and alone takes it away. Both look things up. Everything
that is asked from both threads is one step of a dict.

A session that has said hello again uses nothing of before, but has not shipped all of it yet: what
it held stays closed until it has `settled`, or its time is over.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

EXCLUSIVE_PER_SESSION_MAX = 16_384
"""No more are granted. Less than leases of all kinds, of which some can always be given up."""


@dataclass(slots=True, eq=False)
class Exclusive:
    """One grant. `over` is made when somebody waits for its end. `made`: by a log of this session,
    which goes on there by itself until it hears that it may not (`wanted`)."""

    lease: int
    session: int
    made: bool = False
    wanted: bool = True
    confirmed: bool = False
    recalled: bool = False
    over: asyncio.Future[None] | None = None


class Exclusives:
    def __init__(self) -> None:
        self.held: dict[int, Exclusive] = {}
        """By lease: closed to everybody but its session."""
        self._by_session: dict[int, dict[int, Exclusive]] = {}
        """Those that are confirmed."""
        self._settling: dict[int, float] = {}
        """Sessions that have yet to ship what they did before their hello, and until when."""

    def __len__(self) -> int:
        return len(self.held)

    # ---- in both threads

    def closed(self, lease: int, session: int | None) -> bool:
        found = self.held.get(lease)
        return found is not None and found.session != session

    def holds(self, session: int, lease: int) -> bool:
        found = self.held.get(lease)
        return found is not None and found.session == session

    @property
    def sessions(self) -> int:
        """That hold any."""
        return len(self._by_session)

    def has_room(self, session: int) -> bool:
        return len(self._by_session.get(session, ())) < EXCLUSIVE_PER_SESSION_MAX

    def has_any(self, session: int) -> bool:
        return session in self._by_session or session in self._settling

    def add(self, granted: Mapping[int, Exclusive]) -> None:
        """The writer's: the commit that they were granted in is durable."""
        self.held.update(granted)

    # ---- the event loop's

    def of(self, session: int) -> Collection[int]:
        return self._by_session.get(session, ())

    def may_use(self, session: int, lease: int) -> bool:
        """It holds that, and nobody has asked for it."""
        found = self._by_session.get(session, {}).get(lease)
        return found is not None and not found.recalled and session not in self._settling

    def confirm(self, exclusive: Exclusive) -> bool:
        """False if somebody has asked for it already."""
        if exclusive.recalled:
            return False
        return self.close(exclusive)

    def close(self, exclusive: Exclusive) -> bool:
        """It is kept from others until its session has let go of it, granted or not."""
        if self.held.get(exclusive.lease) is not exclusive:
            return False
        exclusive.confirmed = True
        self._by_session.setdefault(exclusive.session, {})[exclusive.lease] = exclusive
        return True

    def drop(self, exclusive: Exclusive) -> None:
        lease, session = exclusive.lease, exclusive.session
        if self.held.get(lease) is exclusive:
            del self.held[lease]
        mine = self._by_session.get(session, {})
        if mine.get(lease) is exclusive:
            del mine[lease]
            if not mine:
                del self._by_session[session]
        if exclusive.over is not None and not exclusive.over.done():
            exclusive.over.set_result(None)

    def removed(self, lease: int) -> None:
        """The directory is no more. (A grant that nobody was told of yet is of a later one.)"""
        found = self.held.get(lease)
        if found is not None and found.confirmed:
            self.drop(found)

    def give_up(self, session: int, lease: int) -> None:
        found = self._by_session.get(session, {}).get(lease)
        if found is not None:
            self.drop(found)

    def end(self, session: int) -> None:
        """Of everything that is confirmed; what is not finds its stream gone."""
        self._settling.pop(session, None)
        for found in list(self._by_session.get(session, {}).values()):
            self.drop(found)

    def to_recall(self, leases: Iterable[int], session: int) -> dict[int, list[Exclusive]]:
        """By holder, what keeps `session` from these. A grant that nobody has been told of yet is
        taken back here and now, but of what its session has made itself."""
        found: dict[int, list[Exclusive]] = {}
        for lease in leases:
            exclusive = self.held.get(lease)
            if exclusive is None or exclusive.session == session:
                continue
            if exclusive.made:
                self.close(exclusive)
            if exclusive.confirmed:
                found.setdefault(exclusive.session, []).append(exclusive)
            else:
                self.drop(exclusive)
        return found

    async def gone(self, exclusives: Iterable[Exclusive]) -> None:
        waits = []
        for exclusive in exclusives:
            if self.held.get(exclusive.lease) is exclusive:
                if exclusive.over is None:
                    exclusive.over = asyncio.get_running_loop().create_future()
                waits.append(exclusive.over)
        if waits:
            await asyncio.wait(waits)

    # ---- after a hello

    def settle(self, session: int, until: float) -> None:
        """It has said hello. Saying it again wins no time."""
        if session in self._by_session:
            self._settling.setdefault(session, until)

    def is_settling(self, session: int) -> bool:
        return session in self._settling

    def expire(self, now: float) -> list[int]:
        """Sessions whose time is over by now."""
        late = [session for session, until in self._settling.items() if now >= until]
        for session in late:
            self.end(session)
        return late

    def excuse(self, seconds: float) -> None:
        """So long nobody could be heard."""
        for session in self._settling:
            self._settling[session] += seconds
