"""Runs the client's coroutines under trio. The only file that knows both worlds.

A result, an error and a cancellation all pass: the trio task sleeps while the coroutine waits for
a Pending; trio's Cancelled is thrown into the coroutine where it waits. What was already sent
still happens at the server; its answer is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import trio

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from superfs.rpc.pending import Pending

T = TypeVar("T")


async def drive(coro: Coroutine[Any, Any, T]) -> T:
    """A call that never has to wait never lets other tasks run: callers that loop over cached
    answers put a checkpoint of their own."""
    thrown: BaseException | None = None
    while True:
        try:
            pending = coro.send(None) if thrown is None else coro.throw(thrown)
        except StopIteration as stop:
            return cast("T", stop.value)
        try:
            await _park(pending)
            thrown = None
        except BaseException as error:
            thrown = error


async def _park(pending: Pending[Any]) -> None:
    task = trio.lowlevel.current_task()
    token = trio.lowlevel.current_trio_token()
    parked = True

    def resume() -> None:
        # In the trio thread. A cancelled task has been resumed by trio already.
        nonlocal parked
        if parked:
            parked = False
            trio.lowlevel.reschedule(task)

    def notify() -> None:
        try:
            token.run_sync_soon(resume)
        except trio.RunFinishedError:
            return  # nobody is left to be told

    def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
        nonlocal parked
        parked = False
        return trio.lowlevel.Abort.SUCCEEDED

    if pending.on_done(notify):
        try:
            await trio.lowlevel.wait_task_rescheduled(abort)
        finally:
            parked = False  # also where the coroutine is closed: the task is at something else
