"""Values that arrive later, and coroutines that wait for them under any engine or none.

The client is written once, as coroutines that await nothing but `Pending`. A Pending yields
itself; whoever drives the coroutine waits for it in the way of its world: `run_sync` blocks the
calling thread, `bridge.drive` parks a trio task, `gather` and `run_bounded` interleave several
coroutines in whatever drives them, `background.Background` has a thread of its own.

No coroutine here belongs to a thread: completions come from gRPC's threads, resumption happens
in the driver. `_GUARD` protects every Pending and lock for a few instructions; nothing that could
run a finalizer is allocated under it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
    from types import TracebackType

T = TypeVar("T")
_GUARD = threading.Lock()


def _after_fork_in_child() -> None:
    """Whoever held it is not here to release it."""
    global _GUARD
    _GUARD = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)


class Pending(Generic[T]):
    """A value or an error, set once, from any thread. May be awaited by many coroutines."""

    __slots__ = ("_callbacks", "_done", "_error", "_value")

    def __init__(self) -> None:
        self._done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[], object]] = []

    @property
    def done(self) -> bool:
        return self._done

    @property
    def failed(self) -> bool:
        return self._error is not None

    def complete(self, value: T) -> bool:
        """False when it was decided before."""
        return self._decide(value, None)

    def fail(self, error: BaseException) -> bool:
        return self._decide(None, error)

    def _decide(self, value: T | None, error: BaseException | None) -> bool:
        with _GUARD:
            if self._done:
                return False
            self._value = value
            self._error = error
            self._done = True
        # Nobody appends any more: on_done looks at _done under the guard.
        for callback in self._callbacks:
            callback()
        self._callbacks.clear()
        return True

    def on_done(self, callback: Callable[[], object]) -> bool:
        """Calls back once, from the completing thread; False when there is nothing to wait for
        (then it is not called). The callback must be short and must not raise."""
        with _GUARD:
            if self._done:
                return False
            self._callbacks.append(callback)
            return True

    def result(self) -> T:
        assert self._done, "a Pending is read before its time"
        if self._error is not None:
            raise self._error
        return cast("T", self._value)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Blocks the calling thread; False when the time is over first."""
        if self._done:
            return True
        gate = threading.Lock()
        gate.acquire()
        if not self.on_done(gate.release):
            return True
        return gate.acquire(timeout=-1 if timeout_s is None else max(0.0, timeout_s))

    def __await__(self) -> Generator[Pending[Any], None, T]:
        if not self._done:
            yield self
        return self.result()


def completed(value: T) -> Pending[T]:
    pending: Pending[T] = Pending()
    pending.complete(value)
    return pending


def run_sync(coro: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
    """Drives a coroutine from an ordinary thread. Past the timeout it gets a DEADLINE error where
    it waits; so it does with whatever interrupts the wait (KeyboardInterrupt)."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    thrown: BaseException | None = None
    while True:
        try:
            pending = coro.send(None) if thrown is None else coro.throw(thrown)
        except StopIteration as stop:
            return cast("T", stop.value)
        try:
            left = None if deadline is None else deadline - time.monotonic()
            thrown = None if pending.wait(left) else FsError(Code.DEADLINE, f"{timeout_s} s")
        except BaseException as error:
            thrown = error


def at_once(coro: Coroutine[Any, Any, T]) -> T:
    """Drives a coroutine that has nothing to wait for."""
    try:
        coro.send(None)
    except StopIteration as stop:
        return cast("T", stop.value)
    finally:
        coro.close()
    raise AssertionError("it waits for something")


class Crew(Generic[T]):
    """Coroutines stepped in turn by the one coroutine that awaits `next_done`. `close` ends those
    that are left where they wait."""

    def __init__(self) -> None:
        self._ready: deque[Coroutine[Any, Any, T]] = deque()
        self._active: set[Coroutine[Any, Any, T]] = set()
        self._waiter: Pending[None] | None = None

    def __len__(self) -> int:
        return len(self._active)

    def start(self, coro: Coroutine[Any, Any, T]) -> None:
        self._active.add(coro)
        self._wake(coro)

    def close(self) -> None:
        for coro in self._active:
            coro.close()
        self._active.clear()

    def _wake(self, coro: Coroutine[Any, Any, T]) -> None:
        with _GUARD:
            self._ready.append(coro)
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.complete(None)

    async def next_done(self) -> tuple[Coroutine[Any, Any, T], T | None, BaseException | None]:
        """Steps what is ready until one ends: (it, its value, its error)."""
        assert self._active, "nobody is left to wait for"
        while True:
            fresh: Pending[None] = Pending()
            with _GUARD:
                coro = self._ready.popleft() if self._ready else None
                if coro is None:
                    self._waiter = fresh
            if coro is None:
                await fresh
                continue
            try:
                while True:
                    pending = coro.send(None)
                    if pending.on_done(lambda coro=coro: self._wake(coro)):
                        break
            except StopIteration as stop:
                self._active.discard(coro)
                return coro, cast("T", stop.value), None
            except Exception as error:
                self._active.discard(coro)
                return coro, None, error


async def run_bounded(
    coros: Iterable[Coroutine[Any, Any, T]] | Iterator[Coroutine[Any, Any, T]],
    width: int,
    on_result: Callable[[T], object] | None = None,
) -> None:
    """Runs coroutines of an iterator, `width` at a time. After the first error no more are
    started; those on the way end before it is raised."""
    crew: Crew[T] = Crew()
    source = iter(coros)
    failed: BaseException | None = None
    exhausted = False
    try:
        while True:
            while not exhausted and failed is None and len(crew) < width:
                coro = next(source, None)
                if coro is None:
                    exhausted = True
                else:
                    crew.start(coro)
            if not len(crew):
                break
            _, value, error = await crew.next_done()
            if error is not None:
                failed = failed or error
            elif on_result is not None:
                on_result(cast("T", value))
    finally:
        crew.close()
    if failed is not None:
        raise failed


async def gather(coros: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Results in order. All of them end before the first error is raised."""
    order = list(coros)
    if len(order) == 1:
        return [await order[0]]
    crew: Crew[T] = Crew()
    results: dict[Coroutine[Any, Any, T], T] = {}
    failed: BaseException | None = None
    for coro in order:
        crew.start(coro)
    try:
        while len(crew):
            coro, value, error = await crew.next_done()
            if error is not None:
                failed = failed or error
            else:
                results[coro] = cast("T", value)
    finally:
        crew.close()
    if failed is not None:
        raise failed
    return [results[coro] for coro in order]


async def settle(awaitables: Iterable[Awaitable[T]]) -> list[T | FsError]:
    """Results and errors in order, one after the other: for Pendings already on their way."""
    results: list[T | FsError] = []
    for awaitable in awaitables:
        try:
            results.append(await awaitable)
        except FsError as error:
            results.append(error)
    return results


class Lock:
    """Mutual exclusion of coroutines, whatever drives them; first come, first served."""

    __slots__ = ("_held", "_waiters")

    def __init__(self) -> None:
        self._held = False
        self._waiters: deque[Pending[None]] = deque()

    @property
    def held(self) -> bool:
        return self._held

    async def __aenter__(self) -> None:
        turn: Pending[None] = Pending()
        with _GUARD:
            if not self._held:
                self._held = True
                return
            self._waiters.append(turn)
        try:
            await turn
        except BaseException:
            if not self._leave_queue(turn):
                self.release()
            raise

    def _leave_queue(self, turn: Pending[None]) -> bool:
        with _GUARD:
            if turn in self._waiters:
                self._waiters.remove(turn)
                return True
            return False

    def acquire_nowait(self) -> bool:
        with _GUARD:
            if self._held:
                return False
            self._held = True
            return True

    def release(self) -> None:
        with _GUARD:
            assert self._held, "released twice"
            turn = self._waiters.popleft() if self._waiters else None
            if turn is None:
                self._held = False
        if turn is not None:
            turn.complete(None)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class Budget:
    """So many units (bytes, say) may be out at once. Asking for more than all of them is granted
    when nothing else is out."""

    def __init__(self, units: int) -> None:
        self._units = units
        self._out = 0
        self._waiters: deque[tuple[int, Pending[None]]] = deque()

    @property
    def out(self) -> int:
        return self._out

    @property
    def free(self) -> int:
        return max(0, self._units - self._out)

    def _fits(self, units: int) -> bool:
        return self._out == 0 or self._out + units <= self._units

    def acquire_nowait(self, units: int) -> bool:
        with _GUARD:
            if self._waiters or not self._fits(units):
                return False
            self._out += units
            return True

    async def acquire(self, units: int) -> None:
        turn: Pending[None] = Pending()
        waiter = (units, turn)
        with _GUARD:
            if not self._waiters and self._fits(units):
                self._out += units
                return
            self._waiters.append(waiter)
        try:
            await turn
        except BaseException:
            with _GUARD:
                queued = waiter in self._waiters
                if queued:
                    self._waiters.remove(waiter)
            # Whether we held a share or stood at the head of the queue: others may fit now.
            self.release(0 if queued else units)
            raise

    def release(self, units: int) -> None:
        granted: list[Pending[None]] = []
        with _GUARD:
            self._out -= units
            assert self._out >= 0, "released more than was acquired"
            while self._waiters and self._fits(self._waiters[0][0]):
                size, turn = self._waiters.popleft()
                self._out += size
                granted.append(turn)
        for turn in granted:
            turn.complete(None)
