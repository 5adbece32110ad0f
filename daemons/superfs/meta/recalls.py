"""Pushed invalidations that are not acknowledged yet, and who waits for them. Event loop only.

Every invalidation has a number of its session's. It is over when the client has acknowledged that
number, or is known to have forgotten everything: it said hello, was silent for too long, or ended.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

THINGS_MAX = 64
"""Names and inodes of one lease in one message; more recall it whole."""
UNANSWERED_MAX = 256
"""Of one session; from there on every lease is recalled whole, which ends the messages about it."""
NAME_LENGTH_BYTES = 2

Thing = int | bytes
"""An inode or a name under a lease."""


class _Pending:
    """One message to one session."""

    __slots__ = ("answered", "leases", "session", "since", "waiters")

    def __init__(self, session: int, leases: Collection[int], since: float) -> None:
        self.answered: Callable[[], None] | None = None
        self.session = session
        self.leases = leases
        self.since = since
        self.waiters: list[_Waiter] = []


class _Waiter:
    __slots__ = ("future", "left")

    def __init__(self, left: int) -> None:
        self.left = left
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def one_less(self) -> None:
        self.left -= 1
        if not self.left and not self.future.done():
            self.future.set_result(None)


class Recalls:
    def __init__(self, monotonic: Callable[[], float], took: Callable[[float], None]) -> None:
        """`took` is told how long each acknowledgement took."""
        self._monotonic = monotonic
        self._took = took
        self._by_session: dict[int, dict[int, _Pending]] = {}
        self._by_lease: dict[int, set[_Pending]] = {}
        self._numbers: dict[int, int] = {}

    def __len__(self) -> int:
        """Leases with an invalidation that is not acknowledged."""
        return len(self._by_lease)

    def is_slow(self, session: int) -> bool:
        return len(self._by_session.get(session, ())) >= UNANSWERED_MAX

    def add(
        self, session: int, commit: int, recalls: dict[int, set[Thing] | None]
    ) -> meta_pb2.Invalidate:
        """The message that is to be pushed. None stands for the whole lease."""
        number = self._numbers[session] = self._numbers.get(session, 0) + 1
        pending = _Pending(session, tuple(recalls), self._monotonic())
        self._by_session.setdefault(session, {})[number] = pending
        for lease in recalls:
            self._by_lease.setdefault(lease, set()).add(pending)
        return meta_pb2.Invalidate(
            number=number, commit=commit, recalls=[_encode(*r) for r in recalls.items()]
        )

    def add_exclusive(
        self, session: int, commit: int, leases: Iterable[int], answered: Callable[[], None]
    ) -> meta_pb2.Invalidate:
        """That the session is to give up its sole use of these. No answer waits for it: who does
        asks for what it is about. `answered` is called for an acknowledgement only, not if the
        session is heard of no more: what it has done by itself is still to come."""
        number = self._numbers[session] = self._numbers.get(session, 0) + 1
        pending = _Pending(session, (), self._monotonic())
        pending.answered = answered
        self._by_session.setdefault(session, {})[number] = pending
        recalls = [meta_pb2.Recall(lease=lease, exclusive=True) for lease in leases]
        return meta_pb2.Invalidate(number=number, commit=commit, recalls=recalls)

    def acknowledged(self, session: int, number: int) -> float:
        """How long that took. Of a number that is not open (any more): nothing."""
        mine = self._by_session.get(session)
        pending = mine.pop(number, None) if mine is not None else None
        if pending is None:
            return 0.0
        if not mine:
            del self._by_session[session]
        took_s = self._monotonic() - pending.since
        self._over(pending)
        if pending.answered is not None:
            pending.answered()
            return 0.0  # it had to ship first
        self._took(took_s)
        return took_s

    def asked_since(self, session: int) -> float | None:
        """Since when it has owed the oldest acknowledgement; None: it owes none."""
        mine = self._by_session.get(session)
        return next(iter(mine.values())).since if mine else None

    def drop(self, session: int) -> None:
        """It has forgotten everything."""
        for pending in self._by_session.pop(session, {}).values():
            self._over(pending)

    def forget(self, session: int) -> None:
        """It has ended, and its numbers with it."""
        self.drop(session)
        self._numbers.pop(session, None)

    def settled(self, leases: Iterable[int] | None, session: int) -> asyncio.Future[None] | None:
        """Done when nobody but the session itself has yet to acknowledge what was pushed about
        these leases (None: about any) until now. None: that is so already."""
        if not self._by_lease:
            return None
        found: set[_Pending] = set()
        for lease in self._by_lease if leases is None else leases:
            found.update(p for p in self._by_lease.get(lease, ()) if p.session != session)
        if not found:
            return None
        waiter = _Waiter(len(found))
        for pending in found:
            pending.waiters.append(waiter)
        return waiter.future

    def excuse(self, seconds: float) -> None:
        """So long nobody could be heard."""
        for mine in self._by_session.values():
            for pending in mine.values():
                pending.since += seconds

    def unanswered_since(self, moment: float) -> list[int]:
        """Sessions that have owed an acknowledgement for so long."""
        return [
            session
            for session, mine in self._by_session.items()
            if next(iter(mine.values())).since < moment
        ]

    def _over(self, pending: _Pending) -> None:
        for lease in pending.leases:
            open_ones = self._by_lease[lease]
            open_ones.remove(pending)
            if not open_ones:
                del self._by_lease[lease]
        for waiter in pending.waiters:
            waiter.one_less()


def _encode(lease: int, things: set[Thing] | None) -> meta_pb2.Recall:
    if things is None:
        return meta_pb2.Recall(lease=lease, whole=True)
    names = [t for t in things if isinstance(t, bytes)]
    return meta_pb2.Recall(
        lease=lease,
        names=b"".join(len(n).to_bytes(NAME_LENGTH_BYTES, "little") + n for n in names),
        inos=[t for t in things if isinstance(t, int)],
    )
