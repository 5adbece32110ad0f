"""Which directories are worth granting exclusively: not where others come and go.

`now` is the daemon's boot time in seconds. `seek` is called by the writer's thread, `recalled` by
the event loop: each writes dicts of its own, and asks all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from superfs.meta.exclusive import Exclusive

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from superfs.meta.exclusive import Exclusives
    from superfs.meta.leases import Leases
    from superfs.meta.sessions import Client
    from superfs.meta.store import LmdbTxn
    from superfs.meta.told import Telling

QUIET_S = 5.0
"""Shared leases that were granted longer ago are recalled for a change, so that the next may be
exclusive."""
RECALLED_MIN_S, RECALLED_MAX_S = 1.0, 60.0
CONTESTED_WINDOW_S, CONTESTED_S = 1.0, 10.0
ENTRIES_MAX = 4096
T = TypeVar("T")


@dataclass(slots=True)
class _Recalled:
    refused_s: float
    until: float


class Granting:
    """At most ENTRIES_MAX of each kind are remembered, the oldest is forgotten."""

    def __init__(
        self, leases: Leases, exclusives: Exclusives, monotonic: Callable[[], float]
    ) -> None:
        self._leases = leases
        self._exclusives = exclusives
        self._monotonic = monotonic
        self.room: Callable[[int], bool] = lambda _: True
        """Whether the store has room for what so many clients may have done and not shipped."""
        self._recalled: dict[int, _Recalled] = {}
        self._changed: dict[int, tuple[int, float]] = {}
        self._contested: dict[int, float] = {}

    def seek(
        self,
        txn: LmdbTxn,
        client: Client,
        telling: Telling,
        leases: Iterable[int],
        made: Collection[int] = (),
    ) -> bool:
        """A client has changed names there: what of it nobody else uses is its own from here on in
        this transaction. Whether there is any. `made`: by its log. It may have gone on there
        already, and what it ships next must find it as it was: so these are closed to everybody
        else even where they are not granted, until it has let go of them."""
        session, now = client.session, self._monotonic()
        for lease in leases:
            self.changed(lease, session, now)
            if not client.range or telling.listener is None:
                continue
            wanted = not (self.refuses(lease, now) or txn.is_crowded(lease))
            if not wanted and lease not in made:
                continue
            mine = self._exclusives.held.get(lease)
            if mine is not None and mine.session == session:
                if wanted:
                    telling.exclusives.append(mine)  # said again: it may have let go of it
                continue
            if lease in txn.granted:
                continue
            holders = self._leases.holders(lease)
            if len(holders) > 1 or (holders and session not in holders):
                telling.sought.add(lease)
                continue
            wanted = wanted and self._may_hold(session)
            if wanted or lease in made:
                exclusive = Exclusive(lease, session, lease in made, wanted)
                txn.granted[lease] = exclusive
                telling.exclusives.append(exclusive)
        return bool(telling.exclusives)

    def _may_hold(self, session: int) -> bool:
        """One more. What it does by itself cannot be refused any more for want of room."""
        held = self._exclusives
        clients = held.sessions + (not held.has_any(session))
        return held.has_room(session) and self.room(clients)

    def confirm(self, telling: Telling, *, may: bool, lives: bool) -> int:
        """What was granted exclusively in the transaction counts from now on, unless somebody was
        told of it meanwhile. How many are new. `may`: the session can be told; `lives`: it will let
        go of what it has made."""
        session, new = telling.session, 0
        for exclusive in telling.exclusives:
            holders = self._leases.holders(exclusive.lease)
            others = len(holders) - (session in holders)
            granted = may and exclusive.wanted and session in holders and not others
            if exclusive.confirmed:
                if self._exclusives.may_use(session, exclusive.lease):
                    telling.confirmed.append(exclusive.lease)
            elif granted and self._exclusives.confirm(exclusive):
                telling.confirmed.append(exclusive.lease)
                new += 1
            elif exclusive.made and lives and not others:
                self._exclusives.close(exclusive)
            else:
                self._exclusives.drop(exclusive)
        return new

    def changed(self, lease: int, session: int, now: float) -> None:
        """Names in it."""
        other, since = self._changed.pop(lease, (session, now))
        if other != session and now < since + CONTESTED_WINDOW_S:
            _remember(self._contested, lease, now + CONTESTED_S)
        _remember(self._changed, lease, (session, now))

    def recalled(self, lease: int, now: float) -> None:
        """Somebody else wanted it. Forgotten when it was quiet for twice as long as refused."""
        before = self._recalled.pop(lease, None)
        refused_s = RECALLED_MIN_S
        if before is not None and now < before.until + 2 * before.refused_s:
            refused_s = min(2 * before.refused_s, RECALLED_MAX_S)
        _remember(self._recalled, lease, _Recalled(refused_s, now + refused_s))

    def refuses(self, lease: int, now: float) -> bool:
        recalled = self._recalled.get(lease)
        if recalled is not None and now < recalled.until:
            return True
        return now < self._contested.get(lease, 0.0)


def _remember(entries: dict[int, T], lease: int, value: T) -> None:
    if len(entries) >= ENTRIES_MAX:
        del entries[next(iter(entries))]
    entries[lease] = value
