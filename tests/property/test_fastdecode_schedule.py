"""When sequences start: the load never goes over its limit, and stays level."""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superfs.core.errors import FsError
from superfs.core.fastdecode.schedule import LoadControl, Ramp, Span, level_peak


def load(spans: list[Span], step: int) -> int:
    return sum(span.load(step) for span in spans)


@given(st.data())
def test_the_limit_is_kept_at_every_step(data: st.DataObject) -> None:
    """Against all steps looked at one by one; and what is refused would have broken it."""
    limit = data.draw(st.integers(5, 120))
    control = LoadControl(limit)
    running: dict[int, Span] = {}
    for now in range(data.draw(st.integers(1, 40))):
        for number in [n for n, span in running.items() if span.end < now]:
            control.remove(number)
            del running[number]
        early = data.draw(st.lists(st.integers(0, 50), max_size=2))
        for number in {sorted(running)[n % len(running)] for n in early if running}:
            control.remove(number)  # early
            del running[number]
        for _ in range(data.draw(st.integers(0, 3))):
            steps, tokens = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 30))
            span = Span(now, now + steps - 1, tokens)
            with_it = [*running.values(), span]
            peak = max(load(with_it, step) for step in range(now, span.end + 1))
            assert control.peak_with(span) == peak
            if control.fits(span):
                running[len(running) + 1000 * now + 1] = span
                control.add(max(running), span)
        last = max((span.end for span in running.values()), default=now)
        assert all(load(list(running.values()), t) <= limit for t in range(now, last + 1))
    assert len(control) == len(running)


def levelled(batch: int, length: int, interval: int, lengths: list[int]) -> list[tuple[int, int]]:
    """Serves so many sequences one step after the other: of each step, how many there were and
    their tokens."""
    ramp = Ramp(batch, length, interval)
    control = LoadControl(round(level_peak(batch, length, interval)))
    waiting = deque(enumerate(lengths))
    running: dict[int, tuple[int, Span]] = {}
    seen = []
    step = 0
    while waiting or running:
        while waiting and len(running) < batch:
            number, real = waiting[0]
            span = Span(step, step + length - 1, 1)
            if (running and not ramp.allowed(step)) or not control.fits(span):
                break
            waiting.popleft()
            ramp.started()
            control.add(number, span)
            running[number] = (real, span)
        seen.append((len(running), sum(span.load(step) for _, span in running.values())))
        for number, (real, span) in list(running.items()):
            if step - span.start + 1 >= real:
                del running[number]
                control.remove(number)
                ramp.ended(length - real)
        step += 1
    return seen


@pytest.mark.parametrize("interval", [1, 4, 8, 16, 32])
@pytest.mark.parametrize("batch", [64, 256])
def test_the_peak_is_half(batch: int, interval: int) -> None:
    """B(S+F)/2 within 5 %, where naively it is B*S; and the batch is full once it is warm."""
    length = 64
    seen = levelled(batch, length, interval, [length] * 10 * batch)
    peak = max(tokens for _, tokens in seen)
    assert peak == pytest.approx(level_peak(batch, length, interval), rel=0.05)
    warm = [count for count, _ in seen[2 * length : -2 * length]]
    assert min(warm) >= 0.95 * batch * (1 - interval / length)
    assert len(seen) <= 10 * length + 2 * length + interval


def test_ends_that_come_early_give_room_back() -> None:
    """Nobody knows the lengths; twice as many sequences go through when they are half as long."""
    random.seed(5)
    batch, length, interval = 64, 64, 4
    whole = len(levelled(batch, length, interval, [length] * 640))
    shorter = [random.randint(1, length) for _ in range(640)]
    seen = levelled(batch, length, interval, shorter)
    assert max(tokens for _, tokens in seen) <= level_peak(batch, length, interval)
    assert len(seen) < 0.65 * whole


@given(st.integers(1, 300), st.integers(1, 100), st.integers(1, 100), st.lists(st.integers(1, 100)))
def test_everybody_gets_a_turn(batch: int, length: int, interval: int, lengths: list[int]) -> None:
    if interval > length:
        with pytest.raises(FsError):
            Ramp(batch, length, interval)
        return
    seen = levelled(batch, length, interval, [min(one, length) for one in lengths])
    assert max((tokens for _, tokens in seen), default=0) <= level_peak(batch, length, interval) + 1
    assert max((count for count, _ in seen), default=0) <= batch


def test_a_limit_of_nothing() -> None:
    with pytest.raises(FsError):
        LoadControl(0)
