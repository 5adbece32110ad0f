"""Free room of a slab, against a plain list of which granules are free."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from superfs.data.kvcache.runs import Runs


@given(steps=st.lists(st.tuples(st.booleans(), st.integers(1, 6), st.integers(0, 40)), max_size=80))
def test_runs(steps: list[tuple[bool, int, int]]) -> None:
    runs, free = Runs(30), [True] * 30
    given_: list[tuple[int, int]] = []
    for take, count, which in steps:
        if take and which < 10:
            at = runs.take(count)
            fits = [i for i in range(31 - count) if all(free[i : i + count])]
            assert at == (fits[0] if fits else None)
        elif take:
            at = which - 10
            good = at + count <= 30 and all(free[at : at + count])
            assert runs.take_at(at, count) == good
            at = at if good else None
        elif given_:
            start, count = given_.pop(which % len(given_))
            runs.give(start, count)
            free[start : start + count] = [True] * count
            at = None
        else:
            continue
        if at is not None:
            given_.append((at, count))
            free[at : at + count] = [False] * count
        assert runs.free == sum(free)
