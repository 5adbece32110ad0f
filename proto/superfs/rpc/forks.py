"""fork() beside gRPC: nothing of this process is inside its library at that moment.

gRPC repairs itself in a child only when no thread of the parent was inside of it; else it gives up
without an error ("skipping fork() handlers"), and whatever the child asks of it hangs or aborts.
A client always has a thread in there, for its streams wait for messages. So before a fork streams
hang up, calls that are short are waited for, and nobody gets in; afterwards the parent's streams
connect again and repeat what has no answer, as after any broken connection. What a child has of
its parent's connections is refused there (client/connection.py); it opens its own.

Only os.fork() comes by here: subprocess, and multiprocessing's other methods, do not need it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger("superfs.rpc")

PATIENCE_S = 1.0
"""For how long a fork waits for a call before it is interrupted."""
LIMIT_S = 3.0
"""For how long a fork waits at all."""
THREAD_S = 0.2
LOOK_S = 0.01


class Visit:
    """One thread or call that is inside. `interrupt`, if any, makes it leave soon: called any
    number of times from any thread, and not before a fork has waited for `patience_s`."""

    __slots__ = ("interrupt", "patience_s")

    def __init__(self, interrupt: Callable[[], object] | None, patience_s: float) -> None:
        self.interrupt = interrupt
        self.patience_s = patience_s


class _Depth(threading.local):
    value = 0


class Gate:
    def __init__(self) -> None:
        self._one_fork = threading.Lock()
        self._changed = threading.Condition()
        self._shut = False
        self._visits: set[Visit] = set()
        self._leaving: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._depth = _Depth()

    def enter(
        self, interrupt: Callable[[], object] | None = None, patience_s: float = PATIENCE_S
    ) -> Visit:
        """Waits for a fork that is under way, unless this thread is inside already."""
        visit = Visit(interrupt, patience_s)
        with self._changed:
            while self._shut and not self._depth.value:
                self._changed.wait()
            self._visits.add(visit)
        return visit

    def leave(self, visit: Visit) -> None:
        with self._changed:
            self._visits.discard(visit)
            self._changed.notify_all()

    @contextlib.contextmanager
    def inside(
        self, interrupt: Callable[[], object] | None = None, patience_s: float = PATIENCE_S
    ) -> Iterator[None]:
        visit = self.enter(interrupt, patience_s)
        self._depth.value += 1
        try:
            yield
        finally:
            self._depth.value -= 1
            self.leave(visit)

    def leaving(self) -> None:
        """This thread is gRPC's, and ends with its call: a fork waits for that, too."""
        self._leaving.add(threading.current_thread())

    def shut(self) -> None:
        """Returns when nobody is inside, or the limit is reached."""
        self._one_fork.acquire()
        began = time.monotonic()
        with self._changed:
            self._shut = True
        while True:
            waited_s = time.monotonic() - began
            with self._changed:
                visits = list(self._visits)
            if not visits:
                break
            if waited_s > LIMIT_S:
                log.warning(
                    "fork() while %d calls are under way: the child may not be able to use gRPC",
                    len(visits),
                )
                break
            for visit in visits:
                if visit.interrupt is not None and waited_s >= visit.patience_s:
                    visit.interrupt()
            with self._changed:
                if self._visits:
                    self._changed.wait(LOOK_S)
        for thread in list(self._leaving):
            if thread is not threading.current_thread():
                thread.join(THREAD_S)

    def reopen(self) -> None:
        with self._changed:
            self._shut = False
            self._changed.notify_all()
        self._one_fork.release()


GATE = Gate()


def _before() -> None:
    GATE.shut()


def _in_parent() -> None:
    GATE.reopen()


def _in_child() -> None:
    """Nobody who was inside, or waited, is here."""
    GATE.__init__()  # type: ignore[misc]  # others hold it by name


# Hooks that run before a fork run in reverse order: ours ahead of that of `logging`, which takes
# the lock that threads may need on their way out.
os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
