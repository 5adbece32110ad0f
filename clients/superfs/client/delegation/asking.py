"""Asking the daemon, and doing things here instead where directories are held exclusively.

What changes something, or is about something that the log is about, waits until the log is
shipped so far. While a directory that is held is asked about nothing is done in it here.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

from superfs.client.delegation import concerns, journal
from superfs.client.delegation.absorbing import absorb, moved
from superfs.client.delegation.overlay import Away
from superfs.client.dispatch import ASK_AGAIN
from superfs.client.meta import MetaClient
from superfs.core.errors import Code, FsError
from superfs.core.ids import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from superfs.client.delegation.shipping import Shipping
    from superfs.client.delegation.state import Delegations
    from superfs.client.dispatch import Router
    from superfs.client.ops import Call
    from superfs.client.session import OpItem, Session
    from superfs.core.namespace.outcome import Outcome
    from superfs.core.namespace.txn import Caller
    from superfs.v1 import meta_pb2

T = TypeVar("T")
_ALONE = frozenset(("reserve", "statfs"))
"""Verbs that neither change nor tell anything that a log is about."""
_UNORDERED = frozenset(("touch",))
"""Changes that nobody minds to see before earlier ones."""
_NOBODYS = _ALONE | _UNORDERED | {"log"}
"""Changes that make no copy of ours old."""


class Asking(MetaClient):
    def __init__(self, router: Router, state: Delegations) -> None:
        super().__init__(router)
        self._state = state
        self._overlay = state.overlay
        self.shipping: Shipping | None = None  # set by the connection
        reads: dict[str, Callable[[], float]] = {
            "exclusive": lambda: len(state.exclusive),
            "log_entries": lambda: state.entries,
            "log_bytes": lambda: state.bytes,
            "log_age_seconds": lambda: state.age_s,
            "log_shipped": lambda: state.shipped,
            "local_changes": lambda: state.local_operations,
            "exclusive_recalls": lambda: state.recalls,
            "lost_files": lambda: state.losses.files,
        }
        self.figures = {  # type: ignore[misc]
            name: (MetaClient.figures[name][0], read) for name, read in reads.items()
        }

    async def sync(self) -> None:
        """What was done so far survives the loss of power."""
        assert self.shipping is not None
        await self.shipping.ship()

    @property
    def is_synced(self) -> bool:
        return self._state.is_synced and self._state.losses.are_told

    # ---- asking the daemon

    async def ask(
        self,
        call: Call,
        decode: Callable[[meta_pb2.Result, frozenset[int]], T],
        caller: Caller | None = None,
        *,
        ask_again: frozenset[Code] = ASK_AGAIN,
        session: Session | None = None,
    ) -> T:
        asking = super().ask(call, decode, caller, ask_again=ask_again, session=session)
        if call.verb in _ALONE:
            return await asking
        with self._asking(call) as groups, contextlib.closing(asking):
            await self._ship_before(call, groups)
            return await asking

    async def run(
        self,
        call: Call,
        caller: Caller | None = None,
        *,
        ask_again: frozenset[Code] = ASK_AGAIN,
        absent_ok: bool = False,
        session: Session | None = None,
    ) -> Outcome:
        running = super().run(
            call, caller, ask_again=ask_again, absent_ok=absent_ok, session=session
        )
        if call.verb in _ALONE:
            return await running
        with self._asking(call) as groups:
            try:
                outcome = await running
            except BaseException as error:
                if call.mutates and not _is_refusal(error):
                    self._forget(groups)  # nobody knows what was done,
                    self._forget_linked()
                    if isinstance(error, FsError):  # nor will ever
                        self.let_go(groups)
                raise
            if call.mutates and call.verb not in _UNORDERED:
                with self._state.lock:
                    moved(self._state, call, outcome)
                    absorb(self._state, call, outcome, groups)
            return outcome

    async def run_many(
        self, calls: Sequence[Call], caller: Caller | None = None
    ) -> list[Outcome | FsError]:
        with contextlib.ExitStack() as stack:
            for call in calls:
                groups = stack.enter_context(self._asking(call))
                await self._ship_before(call, groups)
                if call.mutates:
                    self._forget(groups)
                    self._forget_linked()
            return await super().run_many(calls, caller)

    @contextlib.contextmanager
    def _asking(self, call: Call) -> Iterator[list[int]]:
        """What we hold of what the operation is about: meanwhile nothing is done there by oneself.
        What is not held is counted, too: it may come to be held meanwhile."""
        state, overlay = self._state, self._overlay
        with state.lock:
            about = concerns.places(call, overlay)
            groups = [directory for directory in about if directory in overlay.groups]
            for place in about:
                state.busy[place] = state.busy.get(place, 0) + 1
            changes = _keys(call, about)
            state.begin(changes)
        try:
            yield groups
        finally:
            with state.lock:
                for place in about:
                    state.busy[place] -= 1
                    if not state.busy[place]:
                        del state.busy[place]
                state.end(changes)

    def _item(
        self, call: Call, caller: Caller | None, lane: int, session: Session | None = None
    ) -> OpItem:
        """Whoever asked may have stopped waiting: the operation is under way until its answer."""
        item = super()._item(call, caller, lane, session)
        with self._state.lock:
            changes = _keys(call, ())
            self._state.begin(changes)
        if changes:
            item.pending.on_done(lambda: self._ended(changes))
        return item

    def _ended(self, changes: frozenset[int]) -> None:
        with self._state.lock:
            self._state.end(changes)

    async def _ship_before(self, call: Call, groups: list[int]) -> None:
        state = self._state
        with state.lock:
            ordered = call.mutates and call.verb not in _UNORDERED
            wait = not state.is_synced and (
                ordered
                or state.has_linked
                or any(state.concerns(place) for place in concerns.places(call, self._overlay))
            )
        if wait:
            assert self.shipping is not None
            try:
                await self.shipping.ship()
            except FsError as error:
                # Who only asks is told what is so. A change was to come after what is lost.
                if call.mutates or error.code is not Code.IO:
                    raise

    def _forget(self, groups: Iterable[int]) -> None:
        with self._state.lock:
            self._state.forget(groups)

    def _forget_linked(self) -> None:
        with self._state.lock:
            self._state.forget_linked()

    # ---- doing it here

    async def room(self) -> None:
        with self._state.lock:
            is_full = self._state.is_full
        if is_full:
            assert self.shipping is not None
            await self.shipping.room()

    def _here(self, do: Callable[[], Outcome], *directories: int) -> Outcome | None:
        """The outcome of what is done here; None: it cannot be, and nothing was done. Whatever the
        rule refuses is refused."""
        state = self._state
        with state.lock:
            if not state.is_good or not state.is_open(*directories) or state.is_full:
                return None
            try:
                outcome = do()
            except Away:
                return None
            except FsError as error:
                if error.retryable:
                    return None  # a data daemon has yet to do something: that is waited for there
                raise
            outcome.leases = frozenset(directories)
            state.local_operations += 1
            for place, ino in self._overlay.touched:
                state.part.touch(place, ino)
            state.touch(directories[0])
            assert self.shipping is not None
            self.shipping.noted()
            return outcome

    def _caller(self, caller: Caller | None) -> Caller:
        return caller or self._router.caller

    def _step(
        self,
        caller: Caller | None,
        names: Iterable[tuple[int, bytes]],
        inos: Iterable[int],
        directories: Iterable[int],
        entry: meta_pb2.LogEntry,
    ) -> None:
        overlay = self._overlay
        entry.now_ns = overlay.now_ns
        step = journal.Step(entry, self._encode_caller(self._caller(caller)))
        self._state.part.did(step, names, inos, directories, self._state.now())

    def return_leases(self, leases: Iterable[int]) -> None:
        state = self._state
        with state.lock:
            going = [lease for lease in leases if not state.concerns(lease)]
            state.let_go(going)
            state.let_gone(going)
        super().return_leases(going)

    def let_go(self, directories: Iterable[int]) -> None:
        """Not changed here any more; what is known of them is still good. Only of what the log is
        not about."""
        state = self._state
        with state.lock:
            going = [d for d in directories if d in state.exclusive and not state.concerns(d)]
            state.let_go(going)
        if going:
            self._router.meta_stream(ROOT).downgrade(going)
            with state.lock:
                state.let_gone(going)


def _keys(call: Call, about: Iterable[int]) -> frozenset[int]:
    """What a change of the daemon's is about."""
    if not call.mutates or call.verb in _NOBODYS:
        return frozenset()
    return concerns.keys(call, about)


def _is_refusal(error: BaseException) -> bool:
    """Nothing was done, and that is sure."""
    if isinstance(error, Away):
        return True
    return isinstance(error, FsError) and error.code not in (
        Code.UNAVAILABLE, Code.DEADLINE, Code.IO, Code.INTERNAL, Code.SESSION_EXPIRED
    )  # fmt: skip
