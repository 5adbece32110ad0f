"""Which leases are refused for a while, and how long anybody remembers."""

from __future__ import annotations

import pytest

from superfs.meta.heat import CHANGERS_MAX, ENTRIES_MAX, FEW, Heat


def test_heat_doubles_and_is_forgotten() -> None:
    heat, now = Heat(), 0.0
    for expected in (1, 2, 4, 8, 16, 32, 60, 60):
        assert not heat.count(1, range(64), (), now)
        assert heat.count(1, (9,), (), now)
        assert heat.refuses(1, now + expected - 0.01)
        assert not heat.refuses(1, now + expected)
        assert not heat.refuses(2, now)
        assert not heat.count(1, range(1000), (), now)  # refused already
        now += expected
    heat.cool(now + 119)
    assert len(heat) == 1
    heat.cool(now + 120)
    assert not len(heat)
    assert heat.count(1, range(65), (), now + 120)
    assert not heat.refuses(1, now + 121)
    assert not heat.count(2, range(64), (), 0.0)
    assert not heat.count(2, range(64), (), 1.0)  # another second
    for lease in range(ENTRIES_MAX + 5):
        heat.count(lease, (9,), (), 2.0)
    assert len(heat) == ENTRIES_MAX


@pytest.mark.parametrize("changers", [2, FEW + 1, FEW + 2, CHANGERS_MAX + 1])
def test_a_few_who_all_change_it_are_told_of_each_other(changers: int) -> None:
    heat = Heat()
    hot = False
    for turn in range(1000):
        now = turn / 500
        others = [session for session in range(1, changers + 1) if session != turn % changers + 1]
        hot = hot or heat.count(1, others, [turn % changers + 1], now)
    assert hot is (changers - 1 > FEW)


def test_heat_lasts_a_second_from_when_somebody_was_told_last() -> None:
    heat = Heat()
    heat.count(1, (9,), (), 10.0)
    heat.count(1, (9,), (), 10.9)
    heat.cool(11.8)
    assert 1 in heat
    heat.cool(11.9)
    assert 1 not in heat


def test_who_only_looks_on_is_one_too_many() -> None:
    heat = Heat()
    counts = [heat.count(1, (1 if turn % 2 else 2, 3), [turn % 2 + 1], 10.0) for turn in range(100)]
    assert counts.index(True) == 63
