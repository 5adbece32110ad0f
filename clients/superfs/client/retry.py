"""When to ask again, and how long to wait before: pure, no clock, no IO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.errors import Code

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

FIRST_S = 0.005
LAST_S = 1.0
FACTOR = 2.0

LOST_RACE = frozenset({Code.STALE_DATA, Code.NOT_INLINE, Code.INLINE_FULL, Code.BUSY})
"""Write again: under the attributes that the file has by now."""
TRY_LATER = frozenset({Code.UNAVAILABLE, Code.DEADLINE, Code.GRACE, Code.BUSY})
"""The bytes are kept; anything else that fails a write loses them, loudly."""


def delays(
    rng: random.Random, *, first_s: float = FIRST_S, last_s: float = LAST_S
) -> Iterator[float]:
    """Endless: doubling from `first_s` to `last_s`, each somewhere in its upper half, so that
    clients that failed together do not come back together."""
    ceiling = first_s
    while True:
        yield ceiling * (0.5 + 0.5 * rng.random())
        ceiling = min(ceiling * FACTOR, last_s)


def attempts(
    budget_s: float, rng: random.Random, *, first_s: float = FIRST_S, last_s: float = LAST_S
) -> Iterator[float]:
    """Ends when the delays given so far have used up the budget."""
    left = budget_s
    for delay in delays(rng, first_s=first_s, last_s=last_s):
        if left <= 0:
            return
        yield min(delay, left)
        left -= delay
