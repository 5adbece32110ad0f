"""One thread that runs coroutines nobody waits for, and rings timers.

Started with its first task, ended by `close`. Between tasks it sleeps until the next timer.
`spawn` and `sleep` may be called from any thread, and from a finalizer: they only put into a
SimpleQueue, whose `put` is reentrant.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from superfs.core.errors import Code, FsError
from superfs.rpc.pending import Pending

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")
log = logging.getLogger("superfs.rpc")


class Background:
    def __init__(self, name: str) -> None:
        self._name = name
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._active: dict[Coroutine[Any, Any, Any], Pending[Any]] = {}
        self._sleepers: set[Pending[None]] = set()

    def spawn(self, coro: Coroutine[Any, Any, T]) -> Pending[T]:
        """Its result, for whoever cares. An error that nobody can see is the coroutine's to log:
        the Pending holds it."""
        result: Pending[T] = Pending()
        try:
            self._post(lambda: self._begin(coro, result))
        except FsError:
            coro.close()
            raise
        return result

    def sleep(self, seconds: float) -> Pending[None]:
        """Fails when it is closed before."""
        result: Pending[None] = Pending()
        self._sleepers.add(result)
        result.on_done(lambda: self._sleepers.discard(result))
        self.call_later(seconds, lambda: result.complete(None))
        return result

    def call_later(self, seconds: float, callback: Callable[[], object]) -> None:
        """In the background thread; must be short. Dropped when closed before."""
        due = time.monotonic() + seconds
        self._post(lambda: self._add_timer(due, callback))

    def close(self) -> None:
        """Ends the thread. What still runs is closed where it waits, and its Pending fails."""
        self._closed = True
        thread = self._thread
        self._inbox.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        while not self._inbox.empty():
            task = self._inbox.get()
            if task is not None:
                task()  # too late to begin anything: `_begin` says so to its Pending
        for coro, result in list(self._active.items()):
            coro.close()
            result.fail(_closed())
        self._active.clear()
        self._timers.clear()
        for sleeper in list(self._sleepers):
            sleeper.fail(_closed())

    # ---- in the thread

    def _post(self, task: Callable[[], None]) -> None:
        if self._closed:
            raise _closed()
        self._inbox.put(task)
        if self._thread is None:
            with self._starting:
                if self._thread is None and not self._closed:
                    self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            try:
                task = self._inbox.get(timeout=timeout)
            except queue.Empty:
                task = _nothing
            if task is None:
                return
            task()
            while self._timers and self._timers[0][0] <= time.monotonic():
                _, _, ring = heapq.heappop(self._timers)
                try:
                    ring()
                except Exception:
                    log.exception("a timer failed")

    def _add_timer(self, due: float, callback: Callable[[], object]) -> None:
        heapq.heappush(self._timers, (due, next(self._order), callback))

    def _begin(self, coro: Coroutine[Any, Any, Any], result: Pending[Any]) -> None:
        if self._closed:
            coro.close()
            result.fail(_closed())
            return
        self._active[coro] = result
        self._step(coro)

    def _step(self, coro: Coroutine[Any, Any, Any]) -> None:
        result = self._active.get(coro)
        if result is None or self._closed:
            return
        try:
            while True:
                pending = coro.send(None)
                if pending.on_done(lambda: self._inbox.put(lambda: self._step(coro))):
                    return
        except StopIteration as stop:
            self._active.pop(coro)
            result.complete(stop.value)
        except Exception as error:
            if not isinstance(error, FsError | OSError):  # a bug, and perhaps nobody waits for it
                log.exception("a background task failed")
            self._active.pop(coro)
            result.fail(error)


def _closed() -> FsError:
    return FsError(Code.UNAVAILABLE, "the connection was closed")


def _nothing() -> None:
    return None
