"""Who holds which lease: bookkeeping over numbers, nothing else. The event loop's own.

A lease is the right of a session to repeat what it was told about one id (docs/decisions/0012). Who
holds it is told of every change; a session that holds too many loses those that it was granted
longest ago.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

LEASES_PER_SESSION_MAX = 65_536


class Leases:
    def __init__(self, per_session_max: int = LEASES_PER_SESSION_MAX) -> None:
        self._per_session_max = per_session_max
        self._holders: dict[int, set[int]] = {}
        self._held: dict[int, OrderedDict[int, float]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, lease: int) -> bool:
        """Whether anybody holds it."""
        return lease in self._holders

    @property
    def sessions(self) -> int:
        """That hold any."""
        return len(self._held)

    def holders(self, lease: int) -> Collection[int]:
        return self._holders.get(lease, ())

    def held(self, session: int) -> Collection[int]:
        """The one granted longest ago first."""
        return self._held.get(session, ())

    def granted_at(self, session: int, lease: int) -> float:
        """When it was granted to a holder the last time."""
        return self._held[session][lease]

    def grant(
        self,
        session: int,
        leases: Iterable[int],
        now: float = 0.0,
        stays: Callable[[int, int], bool] | None = None,
    ) -> list[int]:
        """What the session has lost for it. `stays` says what it (session, lease) cannot lose so:
        less than it may hold."""
        mine = self._held.get(session)
        if mine is None:
            mine = self._held[session] = OrderedDict()
        for lease in leases:
            if lease in mine:
                mine.move_to_end(lease)
                mine[lease] = now
                continue
            mine[lease] = now
            self._holders.setdefault(lease, set()).add(session)
            self._count += 1
        lost = []
        while len(mine) > self._per_session_max:
            lease, since = mine.popitem(last=False)
            if stays is not None and stays(session, lease):
                mine[lease] = since
                continue
            self._release(session, lease)
            lost.append(lease)
        if not mine:
            del self._held[session]
        return lost

    def give_up(self, session: int, lease: int) -> None:
        mine = self._held.get(session)
        if mine is None or lease not in mine:
            return
        del mine[lease]
        if not mine:
            del self._held[session]
        self._release(session, lease)

    def forget(self, session: int) -> None:
        for lease in self._held.pop(session, ()):
            self._release(session, lease)

    def _release(self, session: int, lease: int) -> None:
        holders = self._holders[lease]
        holders.remove(session)
        if not holders:
            del self._holders[lease]
        self._count -= 1
