"""The gate before a fork, without any fork."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import pytest

from harness.waiting import wait_until
from superfs.rpc import forks
from superfs.rpc.forks import Gate

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def gate() -> Gate:
    return Gate()


def start(run: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_a_fork_waits_for_who_is_inside(gate: Gate) -> None:
    visit = gate.enter()
    fork = start(gate.shut)
    fork.join(0.1)
    assert fork.is_alive()
    gate.leave(visit)
    fork.join(5)
    assert not fork.is_alive()
    gate.reopen()


def test_nobody_gets_in_meanwhile(gate: Gate) -> None:
    gate.shut()
    entered: list[forks.Visit] = []
    caller = start(lambda: entered.append(gate.enter()))
    caller.join(0.1)
    assert not entered
    gate.reopen()
    caller.join(5)
    gate.leave(entered[0])


def test_who_is_inside_may_go_further_in(gate: Gate) -> None:
    within, further, out = threading.Event(), threading.Event(), threading.Event()

    def visit() -> None:
        with gate.inside():
            within.set()
            further.wait(5)
            with gate.inside():
                gate.leave(gate.enter())
        out.set()

    start(visit)
    assert within.wait(5)
    fork = start(gate.shut)
    wait_until(lambda: gate._forker, "a fork begins")
    further.set()
    assert out.wait(5)
    fork.join(5)
    assert not fork.is_alive()
    gate.reopen()


def test_who_is_inside_is_told_how_long_a_fork_has_waited(gate: Gate) -> None:
    told: list[float] = []

    def interrupt(waited_s: float) -> None:
        told.append(waited_s)
        if len(told) == 3:
            gate.leave(visit)

    visit = gate.enter(interrupt)
    gate.shut()
    assert told == sorted(told)
    assert len(told) == 3
    gate.reopen()


def test_what_a_signal_raises_does_not_end_the_wait(gate: Gate) -> None:
    told: list[float] = []

    def interrupt(waited_s: float) -> None:
        told.append(waited_s)
        if len(told) == 1:
            raise KeyboardInterrupt
        gate.leave(visit)

    visit = gate.enter(interrupt)
    with pytest.raises(KeyboardInterrupt):
        gate.shut()
    assert len(told) == 2
    assert gate.is_shut
    gate.reopen()
    assert not gate.is_shut


def test_the_thread_that_forks_may_still_go_in(gate: Gate) -> None:
    gate.shut()
    with gate.inside():
        pass
    gate.reopen()


def test_a_fork_that_was_interrupted_opens_nothing_of_another_one(gate: Gate) -> None:
    gate.shut()
    other = start(gate.reopen)
    other.join(5)
    late = start(lambda: gate.leave(gate.enter()))
    late.join(0.1)
    assert late.is_alive()
    gate.reopen()
    late.join(5)
    assert not late.is_alive()


@pytest.mark.allow_log("calls are under way")
def test_who_never_leaves_is_told_of(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(forks, "LIMIT_S", 0.05)
    visit = gate.enter()
    with caplog.at_level(logging.WARNING, "superfs.rpc"):
        gate.shut()
    assert "1 calls are under way" in caplog.text
    gate.reopen()
    gate.leave(visit)


def test_one_fork_at_a_time(gate: Gate) -> None:
    gate.shut()
    second = start(gate.shut)
    second.join(0.1)
    assert second.is_alive()
    gate.reopen()
    second.join(5)
    assert not second.is_alive()
    gate.reopen()


def test_a_thread_that_is_about_to_end_is_waited_for(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "THREAD_S", 60.0)
    noted, end = threading.Event(), threading.Event()

    def run() -> None:
        gate.leaving()
        noted.set()
        end.wait(60)

    start(run)
    assert noted.wait(5)
    fork = start(gate.shut)
    fork.join(0.1)
    assert fork.is_alive()
    end.set()
    fork.join(5)
    assert not fork.is_alive()
    gate.reopen()
