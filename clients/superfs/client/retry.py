"""How long to wait before asking again: pure, no clock, no IO."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

FIRST_S = 0.005
LAST_S = 1.0
FACTOR = 2.0


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
