"""Which leases are not worth granting: what many hold and many change costs a message to each of
them for every change. Such a lease is refused for a while, longer each time.

A few who all change a directory are told of each other's changes: under the lease, who makes a file
saves looking up its name, and three questions about it, which is more than a message to each other.

Pure bookkeeping; `now` is the daemon's boot time in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

FEW = 3
CHANGERS_MAX = 16
"""Of one lease, that are told apart."""
MESSAGES_MAX = 64
WINDOW_S = 1.0
REFUSED_MIN_S = 1.0
REFUSED_MAX_S = 60.0
ENTRIES_MAX = 4096


@dataclass(slots=True)
class _Warm:
    since: float
    messages: int = 0
    refused_s: float = 0.0
    until: float = 0.0
    told: float = 0.0  # when anybody last was
    changed: dict[int, float] = field(default_factory=dict)
    """When a session last did."""

    def wasted(self, told: Collection[int], now: float) -> int:
        """Messages to those who do not change it themselves."""
        busy = sum(now < self.changed.get(session, -WINDOW_S) + WINDOW_S for session in told)
        return len(told) - (busy if busy <= FEW else 0)

    def note(self, changers: Collection[int], now: float) -> None:
        if len(self.changed) + len(changers) > CHANGERS_MAX:
            self.changed.clear()
        else:
            self.changed.update(dict.fromkeys(changers, now))

    def is_cold(self, now: float) -> bool:
        """It may be forgotten: quiet for a while, and for twice as long as it was refused."""
        return now >= max(self.told + WINDOW_S, self.until + 2 * self.refused_s)


class Heat:
    """At most ENTRIES_MAX are remembered, the oldest is forgotten."""

    def __init__(self) -> None:
        self._warm: dict[int, _Warm] = {}

    def __len__(self) -> int:
        return len(self._warm)

    def __contains__(self, lease: int) -> bool:
        """Whether anybody was told of a change in the last second, or it is refused. In any
        thread."""
        return lease in self._warm

    def count(
        self, lease: int, told: Collection[int], changers: Collection[int], now: float
    ) -> bool:
        """Sessions that one change is told to, and those that made it. True: it is refused from now
        on."""
        warm = self._warm.get(lease)
        if warm is not None and warm.is_cold(now):
            del self._warm[lease]
            warm = None
        if warm is None:
            if len(self._warm) >= ENTRIES_MAX:
                del self._warm[next(iter(self._warm))]
            warm = self._warm[lease] = _Warm(now)
        elif now >= warm.since + WINDOW_S:
            warm.since, warm.messages = now, 0
        warm.told = now
        warm.messages += warm.wasted(told, now)
        warm.note(changers, now)
        if warm.messages <= MESSAGES_MAX or now < warm.until:
            return False
        warm.refused_s = min(max(REFUSED_MIN_S, 2 * warm.refused_s), REFUSED_MAX_S)
        warm.until = now + warm.refused_s
        warm.messages = 0
        return True

    def refuses(self, lease: int, now: float) -> bool:
        warm = self._warm.get(lease)
        return warm is not None and now < warm.until

    def refused(self, now: float) -> int:
        """How many leases are not granted at present."""
        return sum(now < warm.until for warm in self._warm.values())

    def cool(self, now: float) -> None:
        for lease in [k for k, warm in self._warm.items() if warm.is_cold(now)]:
            del self._warm[lease]
