"""Pending values and what runs coroutines that wait for them."""

from __future__ import annotations

import os
import random
import signal
import threading
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from superfs.client.retry import attempts, delays
from superfs.core.errors import Code, FsError
from superfs.rpc import pending as pending_module
from superfs.rpc.background import Background
from superfs.rpc.bridge import drive
from superfs.rpc.pending import Budget, Lock, Pending, completed, gather, run_bounded, run_sync

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator


def complete_elsewhere(pending: Pending[int], value: int) -> None:
    threading.Thread(target=pending.complete, args=(value,)).start()


async def plus_one(pending: Pending[int]) -> int:
    return await pending + 1


# ---- one value


def test_result_and_error_pass_to_a_thread() -> None:
    pending: Pending[int] = Pending()
    complete_elsewhere(pending, 41)
    assert run_sync(plus_one(pending)) == 42
    failed: Pending[int] = Pending()
    threading.Thread(target=failed.fail, args=(FsError(Code.BUSY),)).start()
    with pytest.raises(FsError, match="BUSY"):
        run_sync(plus_one(failed))


def test_first_decision_counts() -> None:
    pending: Pending[int] = Pending()
    assert pending.complete(1)
    assert not pending.complete(2)
    assert not pending.fail(FsError(Code.IO))
    assert pending.result() == 1
    assert not pending.on_done(lambda: None)


def test_timeout_is_thrown_where_it_waits() -> None:
    seen: list[Code] = []

    async def careful(pending: Pending[int]) -> int:
        try:
            return await pending
        except FsError as error:
            seen.append(error.code)
            raise

    with pytest.raises(FsError):
        run_sync(careful(Pending()), timeout_s=0.01)
    assert seen == [Code.DEADLINE]


async def test_drive_passes_results_and_errors() -> None:
    pending: Pending[int] = Pending()
    complete_elsewhere(pending, 1)
    assert await drive(plus_one(pending)) == 2
    assert await drive(plus_one(completed(5))) == 6
    failed: Pending[int] = Pending()
    threading.Thread(target=failed.fail, args=(FsError(Code.STALE),)).start()
    with pytest.raises(FsError, match="STALE"):
        await drive(plus_one(failed))


async def test_drive_throws_a_cancellation_into_the_coroutine() -> None:
    ended: list[str] = []

    async def waiting(pending: Pending[int]) -> None:
        try:
            await pending
        except trio.Cancelled:
            ended.append("cancelled")
            raise

    pending: Pending[int] = Pending()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drive, waiting(pending))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert ended == ["cancelled"]
    complete_elsewhere(pending, 1)  # too late, and harmless
    await trio.testing.wait_all_tasks_blocked()


async def test_many_tasks_wait_at_once() -> None:
    pendings: list[Pending[int]] = [Pending() for _ in range(50)]
    results: list[int] = []

    async def one(pending: Pending[int]) -> None:
        results.append(await drive(plus_one(pending)))

    async with trio.open_nursery() as nursery:
        for pending in pendings:
            nursery.start_soon(one, pending)
        for number, pending in enumerate(pendings):
            complete_elsewhere(pending, number)
    assert sorted(results) == list(range(1, 51))


# ---- several coroutines


def test_gather_keeps_order_and_interleaves() -> None:
    first: Pending[int] = Pending()

    async def second() -> int:
        first.complete(10)
        return 20

    async def waits() -> int:
        return await first

    assert run_sync(gather([waits(), second()])) == [10, 20]


def test_gather_raises_when_all_have_ended() -> None:
    ended: list[int] = []

    async def fails() -> int:
        raise FsError(Code.NOT_FOUND)

    async def ends(pending: Pending[int]) -> int:
        ended.append(await pending)
        return 0

    pending: Pending[int] = Pending()
    complete_elsewhere(pending, 3)
    with pytest.raises(FsError, match="NOT_FOUND"):
        run_sync(gather([fails(), ends(pending)]))
    assert ended == [3]


def test_run_bounded_never_runs_more_at_a_time() -> None:
    running = 0
    most = 0
    gates: list[Pending[int]] = [Pending() for _ in range(20)]

    async def job(index: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            gates[index - 2].complete(0)  # the oldest may end
        await gates[index]
        running -= 1

    def jobs() -> Iterator[Coroutine[object, object, None]]:
        for index in range(len(gates)):
            yield job(index)
        for gate in gates:
            gate.complete(0)

    run_sync(run_bounded(jobs(), 3))
    assert running == 0
    assert most == 3


def test_run_bounded_starts_no_more_after_an_error() -> None:
    started: list[int] = []

    async def job(number: int) -> None:
        started.append(number)
        raise FsError(Code.IO)

    with pytest.raises(FsError):
        run_sync(run_bounded((job(n) for n in range(10)), 2))
    assert len(started) <= 3


def test_cancelling_the_driver_closes_the_coroutines() -> None:
    closed: list[int] = []

    async def job(number: int) -> None:
        try:
            await Pending[None]()
        finally:
            closed.append(number)

    with pytest.raises(FsError):
        run_sync(gather([job(1), job(2)]), timeout_s=0.01)
    assert sorted(closed) == [1, 2]


# ---- locks and budgets


def test_lock_is_fair_and_survives_cancellation() -> None:
    lock = Lock()
    order: list[str] = []

    async def hold(name: str, gate: Pending[int]) -> None:
        async with lock:
            order.append(name)
            await gate

    async def given_up() -> None:
        async with lock:
            order.append("never")

    a, b = Pending[int](), Pending[int]()
    first, second, third = hold("a", a), given_up(), hold("b", b)
    assert first.send(None) is a
    second.send(None)
    third.send(None)
    second.close()
    a.complete(0)
    with pytest.raises(StopIteration):
        first.send(None)
    assert third.send(None) is b
    b.complete(0)
    with pytest.raises(StopIteration):
        third.send(None)
    assert order == ["a", "b"]
    assert not lock.held


def test_a_lock_granted_to_the_cancelled_is_passed_on() -> None:
    lock = Lock()

    async def wants() -> None:
        async with lock:
            pass

    assert lock.acquire_nowait()
    waiting = wants()
    waiting.send(None)
    lock.release()  # granted, but never resumed
    assert lock.held
    waiting.close()
    assert not lock.held


def test_locks_of_many_threads() -> None:
    lock = Lock()
    total = 0

    async def add() -> None:
        nonlocal total
        async with lock:
            seen = total
            await completed(None)
            total = seen + 1

    def work() -> None:
        for _ in range(200):
            run_sync(add())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total == 800


def test_budget_bounds_and_grants_what_is_larger_than_all() -> None:
    budget = Budget(10)
    run_sync(budget.acquire(6))
    waits = budget.acquire(6)
    waits.send(None)
    behind = budget.acquire(1)  # would fit, but others were first
    behind.send(None)
    budget.release(6)
    for waiter in (waits, behind):
        with pytest.raises(StopIteration):
            waiter.send(None)
    assert budget.out == 7
    budget.release(7)
    run_sync(budget.acquire(1000))
    budget.release(1000)
    assert budget.out == 0


def test_budget_of_one_who_gave_up_goes_to_the_next() -> None:
    budget = Budget(10)
    run_sync(budget.acquire(5))
    large, small = budget.acquire(10), budget.acquire(5)
    large.send(None)
    small.send(None)
    large.close()
    with pytest.raises(StopIteration):
        small.send(None)
    assert budget.out == 10


# ---- the background thread


def test_background_runs_sleeps_and_ends() -> None:
    background = Background("test")
    started = threading.active_count()

    async def job() -> str:
        await background.sleep(0.01)
        return threading.current_thread().name

    assert run_sync(plus_one(background.spawn(number(4)))) == 5
    done = background.spawn(job())
    assert done.wait(10)
    assert done.result() == "test"
    background.close()
    assert threading.active_count() == started
    with pytest.raises(FsError, match="closed"):
        background.sleep(1)


async def fail(error: Exception) -> int:
    raise error


@pytest.mark.allow_log("a background task failed")
def test_a_bug_in_the_background_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Also where nobody waits; an error that is an answer is not."""
    background = Background("test")
    try:
        for error in (FsError(Code.NOT_FOUND), OSError(2, "no"), ZeroDivisionError("a bug")):
            task = background.spawn(fail(error))
            assert task.wait(10)
            with pytest.raises(type(error)):
                task.result()
    finally:
        background.close()
    assert caplog.text.count("a background task failed") == 1
    assert "ZeroDivisionError: a bug" in caplog.text


async def number(value: int) -> int:
    return value


def test_closing_the_background_fails_what_still_runs() -> None:
    background = Background("test")
    never: Pending[int] = Pending()
    result = background.spawn(plus_one(never))
    assert run_sync(plus_one(background.spawn(number(1)))) == 2
    background.close()
    with pytest.raises(FsError, match="closed"):
        result.result()


# ---- delays


def test_delays_double_with_jitter_up_to_a_ceiling() -> None:
    given = delays(random.Random(1), first_s=1.0, last_s=8.0)
    for ceiling in (1.0, 2.0, 4.0, 8.0, 8.0, 8.0):
        assert ceiling / 2 <= next(given) <= ceiling


def test_attempts_use_up_their_budget_and_no_more() -> None:
    given = list(attempts(10.0, random.Random(2)))
    assert sum(given) == pytest.approx(10.0)
    assert list(attempts(0.0, random.Random(3))) == []


def test_a_child_after_fork_does_not_wait_for_threads_of_its_parent() -> None:
    with pending_module._GUARD:
        child = os.fork()
        if child == 0:
            signal.alarm(10)  # of a deadlock the child dies
            done: Pending[int] = Pending()
            done.complete(7)
            os._exit(done.result())
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
