"""Our own policy: its index against all ways to stop, and what it learns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superfs.core.kvcache.hazard import gittins
from superfs.kvcache.simulate import simulate
from superfs.kvcache.trace import Request

counts = st.lists(
    st.tuples(st.floats(0, 50, allow_subnormal=False), st.floats(0, 50, allow_subnormal=False)),
    min_size=2,
    max_size=8,
)


def best(hits: list[float], ends: list[float], age: int) -> float:
    """Tries every age at which to stop."""
    gain = time = 0.0
    alive, found = 1.0, 0.0
    for at in range(age, len(hits)):
        risk = sum(hits[at:]) + sum(ends[at:])
        hazard = hits[at] / risk if risk and at < len(hits) - 1 else 0.0
        gain += alive * hazard
        time += alive * (1 - hazard / 2)
        found = max(found, gain / time)
        alive *= 1 - hazard
    return found


@given(counts=counts)
def test_the_index_of_gittins(counts: list[tuple[float, float]]) -> None:
    hits, ends = [list(column) for column in zip(*counts, strict=True)]
    values = gittins(hits, ends)
    for age, value in enumerate(values):
        assert value == pytest.approx(best(hits, ends, age), abs=1e-9)


def test_waiting_can_pay() -> None:
    """Nobody comes back at once, everybody a little later: the wait is worth the hits behind it."""
    values = gittins([0, 0, 10, 0, 0], [0, 0, 0, 0, 5])
    assert values[2] > values[1] > values[0] > values[3] == 0


def test_it_learns_what_comes_back() -> None:
    """Ten prefixes come back, among what comes once: farther apart than LRU can see."""
    trace = []
    for turn in range(900):
        hot = 10 * (turn % 10)
        trace.append(Request(0, 1024, (hot, hot + 1)))
        trace += [Request(0, 512, (1000 + 4 * turn + n,)) for n in range(4)]
    lru, ours = (simulate(trace, policy, 40).prefix_hit_rate for policy in ("lru", "hazard"))
    assert lru == 0
    assert ours > 0.25, "of the third that could be"
