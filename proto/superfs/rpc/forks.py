"""fork() beside gRPC: nothing of this process is inside its library at that moment.

gRPC repairs itself in a child only when no thread of the parent was inside of it; else it gives up
without an error ("skipping fork() handlers"), and whatever the child asks of it hangs or aborts.
A client always has a thread in there, for its streams wait for messages. So before a fork nobody
gets in any more, what has been asked is waited for, for a while, and streams hang up; afterwards
the parent's streams connect again and repeat what has no answer. What a child has of its parent's
connections and channels is refused there; it opens its own.

os.fork() comes by here, and what is made of it: forkpty, multiprocessing's "fork", subprocess with
`preexec_fn`. Plain subprocess and multiprocessing's other methods do not, and need not.
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

    Interrupt = Callable[[float], object]

log = logging.getLogger("superfs.rpc")

PATIENCE_S = 1.0
"""For how long a fork waits for what has been asked before it is cut off."""
LIMIT_S = 3.0
"""For how long a fork waits at all."""
THREAD_S = 0.2
LOOK_S = 0.005
SETTLE_S = 0.05
"""What was closed is not gone yet: gRPC's threads see to it. A fork meanwhile can find them, and
wait for one that waits for the fork (github.com/grpc/grpc/issues/31885): one of 100 forks without
this pause, none of 3,000 with three fifths of it."""


class Visit:
    """One thread or call that is inside. `interrupt` is told how long a fork has waited for it, in
    seconds, again and again, from the thread that forks; it must not block."""

    __slots__ = ("interrupt",)

    def __init__(self, interrupt: Interrupt | None) -> None:
        self.interrupt = interrupt


class _Depth(threading.local):
    value = 0


class Gate:
    def __init__(self) -> None:
        self.generation = 0
        """How many forks lie between the first process and this one."""
        self._depth = _Depth()
        self._begin()

    def _begin(self) -> None:
        self._forker = 0
        self._changed = threading.Condition(threading.Lock())
        self._visits: set[Visit] = set()
        self._left_s = 0.0  # when the last one left
        self._leaving: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    def enter(self, interrupt: Interrupt | None = None) -> Visit:
        """Waits for a fork that is under way, unless this thread is inside already, or forks."""
        visit = Visit(interrupt)
        self._enter(visit)
        return visit

    def _enter(self, visit: Visit) -> None:
        with self._changed:
            me = threading.get_ident()
            while self._forker not in (0, me) and not self._depth.value:
                self._changed.wait()
            self._visits.add(visit)

    def leave(self, visit: Visit) -> None:
        with self._changed:
            self._visits.discard(visit)
            self._left_s = time.monotonic()
            self._changed.notify_all()

    @contextlib.contextmanager
    def inside(self, interrupt: Interrupt | None = None) -> Iterator[None]:
        visit = Visit(interrupt)
        try:
            self._enter(visit)
            self._depth.value += 1
            try:
                yield
            finally:
                self._depth.value -= 1
        finally:
            self.leave(visit)

    def leaving(self) -> None:
        """This thread is gRPC's, and ends with its call: a fork waits for that, too."""
        with self._changed:
            self._leaving.add(threading.current_thread())

    @property
    def is_shut(self) -> bool:
        return self._forker != 0

    def shut(self) -> None:
        """Returns when nobody is inside, or the limit is reached. What a signal handler raises
        meanwhile is raised in the end; nobody hears it but who prints what hooks raise."""
        with self._changed:
            while self._forker:
                self._changed.wait()
            self._forker = threading.get_ident()
        began, error = time.monotonic(), None
        while True:
            try:
                if self._is_clear(time.monotonic() - began):
                    break
            except BaseException as raised:
                error = error or raised
        if error is not None:
            raise error

    def _is_clear(self, waited_s: float) -> bool:
        with self._changed:
            visits, threads = list(self._visits), list(self._leaving)
        if visits and waited_s <= LIMIT_S:
            for visit in visits:
                if visit.interrupt is not None:
                    visit.interrupt(waited_s)
            with self._changed:
                if self._visits:
                    self._changed.wait(LOOK_S)
            return False
        if visits:
            log.warning(
                "fork() while %d calls are under way: the child may not be able to use gRPC",
                len(visits),
            )
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(THREAD_S)
        settled_in_s = self._left_s + SETTLE_S - time.monotonic()
        if settled_in_s > 0 and not visits:
            time.sleep(settled_in_s)
        return True

    def reopen(self) -> None:
        with self._changed:
            if self._forker == threading.get_ident():  # else `shut` was interrupted before it began
                self._forker = 0
                self._changed.notify_all()

    def begin_child(self) -> None:
        """Nobody who was inside, or waited, is here."""
        self.generation += 1
        self._begin()


GATE = Gate()

# Hooks that run before a fork run in reverse order: ours ahead of that of `logging`, which takes
# the lock that threads may need on their way out.
os.register_at_fork(before=GATE.shut, after_in_parent=GATE.reopen, after_in_child=GATE.begin_child)
