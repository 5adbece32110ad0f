"""Brings the log to its daemon, part by part, and says how that went.

One part is on its way at a time. What cannot be shipped any more is lost, with everything behind
it: one line in the log of this process for each file, and whoever repeats what this client did is
told to forget it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from superfs.client.delegation.waiters import Waiters
from superfs.client.ops import Call
from superfs.client.session import MUTATIONS
from superfs.core.attrs import PACKED_ATTR_BYTES, unpack_attr
from superfs.core.errors import Code, FsError, known_code
from superfs.core.ids import ROOT
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from superfs.client.connection import Connection
    from superfs.client.delegation.journal import Sealed
    from superfs.client.delegation.state import Delegations
    from superfs.client.dispatch import Dispatch
    from superfs.client.leases import LeaseHolder
    from superfs.client.session import Session

SHIP_AFTER_S = 0.25
"""What is done is shipped so long after, if nobody asks for it before."""
RETRY_S = 0.1

log = logging.getLogger("superfs.client")


class Shipping:
    """`holder` repeats what this client did (the mount)."""

    def __init__(
        self, connection: Connection, state: Delegations, dispatch: Dispatch, holder: LeaseHolder
    ) -> None:
        self._connection = connection
        self._state = state
        self._dispatch = dispatch
        self._holder = holder
        self._waiters = Waiters(connection, state)
        self._running = False
        self._gathering = False  # somebody waits for the part that is not sealed yet
        self._alarmed = False  # a timer is set for when the part is to be shipped
        self._session = 0
        self._bound: Session | None = None  # in which the log may be shipped, and in no other
        self._welcomes = 0

    # ---- called with the lock of the state

    def noted(self) -> None:
        """Something was done."""
        part = self._state.part
        if part.is_full:
            self._state.seal()
            self.kick()
        elif not self._alarmed and (part.entries or part.touched):
            self._alarmed = True
            self._connection.background.call_later(SHIP_AFTER_S, self._ring)

    def kick(self) -> None:
        if self._state.sealed and not self._running:
            self._running = True
            self._connection.background.spawn(self._run())

    def _ring(self) -> None:
        state = self._state
        with state.lock:
            self._alarmed = False
            if state.part.entries and state.now() - state.part.since < SHIP_AFTER_S / 2:
                self.noted()  # it was begun after the one that the timer was set for
                return
            state.seal()
            self.kick()

    # ---- waiting

    async def ship(self) -> None:
        """What was done until now is done at the daemon, and durable. UNAVAILABLE when that takes
        longer than anything is waited for; it is not given up. IO when it is lost.

        While a part is on its way, what others ask for meanwhile gathers in the next one: there is
        one at a time, and each is a message and a commit."""
        state = self._state
        with state.lock:
            losses = len(state.losses)
            target = 0 if state.is_synced else self._gather()
        # A part of which nothing is left, for it was removed again, is never shipped.
        try:
            await self._waiters.until(lambda: state.shipped >= target or state.is_synced)
            state.losses.raise_since(losses, target)
        except FsError:
            await state.losses.told()
            raise
        await state.losses.told()

    def _gather(self) -> int:
        """The part that has to be shipped."""
        state = self._state
        if not (self._running and state.sealed):
            target = state.seal()
            self.kick()
            return target
        if not (state.part.entries or state.part.touched):
            return state.sealed[-1].number
        self._gathering = True
        return state.part.number

    async def room(self) -> None:
        """Until the log is not full any more."""
        state = self._state
        with state.lock:
            if not state.is_full:
                return
            state.seal()
            self.kick()
        try:
            await self._waiters.until(lambda: not state.is_full)
        except FsError as error:
            if error.code is not Code.IO:  # what was before it is lost; there is room now
                raise

    # ---- in the background

    async def _run(self) -> None:
        state = self._state
        while True:
            with state.lock:
                if self._gathering and not state.sealed:
                    self._gathering = False
                    state.seal()
                if not state.sealed:
                    self._running = False
                    self._waiters.tell()
                    return
                part, bound = state.sealed[0], self._bound
            try:
                if part.contents:
                    await state.contents.send(part.contents)
                result = await self._send(part, bound)
            except FsError as error:
                if self._connection.is_closed:
                    return
                lost = self._lose(f"{error}", part)
                # What was refused is dealt with there, and what a session has left when it ends.
                # Of the rest the daemon does not know.
                known = 1 if error.code is Code.LOG_REFUSED else 0
                if error.code is not Code.SESSION_EXPIRED:
                    for later in lost[known:]:
                        await self._bury(later, bound)
                continue
            with state.lock:
                self._done(part, result)
                refused = [d for d in part.made if d in state.provisional]
                going = state.crowded_out()
            self._let_go(going)
            if refused:
                self._not_granted(refused)

    def _let_go(self, directories: list[int]) -> None:
        if directories:
            self._connection.meta_stream(ROOT).downgrade(directories)
            with self._state.lock:
                self._state.let_gone(directories)

    def _not_granted(self, directories: list[int]) -> None:
        """They were made here, and the daemon has not made them ours. What was done in them
        meanwhile is shipped at once; until we give them back it keeps them from others."""
        state = self._state
        with state.lock:
            state.let_go(directories)
            state.seal()
            self.kick()
        self._drop(directories)
        self._connection.background.spawn(self._give_back(directories))

    async def _give_back(self, directories: list[int]) -> None:
        """When all of them is shipped: who changed them sooner would have the rest refused."""
        if await self._is_shipped("before directories are given back"):
            self._connection.meta_stream(ROOT).give_back(directories)
            with self._state.lock:
                self._state.let_gone(directories)

    async def _is_shipped(self, when: str) -> bool:
        """However long it takes; or lost. False: the connection is closed."""
        while not self._connection.is_closed:
            try:
                await self.ship()
                return True
            except FsError as error:
                log.warning("%s: %s", when, error)
        return False

    def _drop(self, directories: Iterable[int]) -> None:
        """Nothing of them is repeated any more."""
        message = meta_pb2.Invalidate()
        for directory in sorted(directories):
            message.recalls.add(lease=directory, whole=True)
        self._holder.recalled(message, _nothing)

    async def _bury(self, part: Sealed, bound: Session | None) -> None:
        """The numbers of its files are used up, and their data is nobody's."""
        part.log.lost = True
        try:
            await self._send(part, bound)
        except FsError as error:
            log.warning("data of lost files may be left on data daemons: %s", error)

    async def _send(self, part: Sealed, bound: Session | None) -> meta_pb2.Result:
        call = Call("log", part.log, ROOT, mutates=True)
        while True:
            item = self._dispatch._item(call, None, MUTATIONS, bound)
            item.patient = True
            self._connection.meta_stream(ROOT).submit((item,))
            result, _ = await item.pending
            if not result.code:
                return result
            error = FsError(known_code(result.code), result.detail)
            if not error.retryable:
                raise error
            await self._connection.sleep(RETRY_S)

    def _done(self, part: Sealed, result: meta_pb2.Result) -> None:
        """Versions are the daemon's from now on, if nothing was done since."""
        state = self._state
        overlay = state.overlay
        if not state.sealed or state.sealed[0] is not part:
            return  # lost meanwhile
        state.sealed.popleft()
        state.shipped = part.number
        overlay.commit = max(overlay.commit, result.number)
        groups = overlay.groups
        for ino, (directory, _) in part.files.items():
            group = groups.get(directory)
            attr = group.inodes.get(ino) if group is not None else None
            if attr is not None and attr.change < result.number:
                attr.change = result.number
        packed = result.listing.attrs
        for index, (place, ino) in enumerate(part.changed):
            ours = overlay.attr_of(place, ino)
            if ours is None or len(packed) < (index + 1) * PACKED_ATTR_BYTES:
                continue
            theirs = unpack_attr(packed, index * PACKED_ATTR_BYTES)
            if ours.change < theirs.change:
                ours.change = theirs.change
        for ino, data in part.inline.items():
            if overlay.inline.get(ino) is data:
                del overlay.inline[ino]
        self._waiters.tell()

    def closed(self) -> None:
        """The connection is closed, and nothing of it runs any more."""
        if not self._state.is_synced:
            self._lose("the connection was closed before it was shipped")

    def _lose(self, reason: str, first: Sealed | None = None) -> list[Sealed]:
        """Everything that is not shipped. `first`: nothing, if that is not the first of it any
        more: it was lost with its session, whose end is told late."""
        state = self._state
        with state.lock:
            if first is not None and (not state.sealed or state.sealed[0] is not first):
                return []
            state.seal()
            lost, last = list(state.sealed), state.part.number - 1
            state.sealed.clear()
            state.shipped = last
            directories = set(state.overlay.groups)
            for part in lost:
                directories |= part.places
            state.forget_all()
            state.overlay.inline.clear()
            given_back = set(state.exclusive)
            state.let_go(given_back | directories)
            error = FsError(Code.IO, f"what was done before is lost: {reason}")
            heard = state.losses.add(lost[0].number, error) if lost else _nothing
            self._waiters.tell(error)
        state.losses.write_down(lost, reason)
        going = given_back | directories
        state.contents.drop_all(ino for part in lost for ino in part.contents)
        self._drop(directories)
        self._holder.lost(set().union(*(part.touched for part in lost)), error, heard)
        if not self._connection.is_closed:
            self._connection.meta_stream(ROOT).give_back(sorted(going))
        with state.lock:
            state.let_gone(going)
        return lost

    # ---- in the reader's thread of the stream

    def extended(self, until: float) -> None:
        self._state.extended(until)

    def heard_time(self, server_ns: int) -> None:
        if server_ns:
            self._state.heard_time(server_ns)

    def granted(self, directories: Iterable[int], commit: int) -> None:
        state = self._state
        with state.lock:
            state.overlay.commit = max(state.overlay.commit, commit)
            if not state.suspended:
                state.provisional.difference_update(directories)
                state.exclusive.update(d for d in directories if d not in state.leaving)

    def recalled(self, message: meta_pb2.Invalidate, acknowledge: Callable[[], None]) -> None:
        state = self._state
        rest = meta_pb2.Invalidate(number=message.number, commit=message.commit)
        with state.lock:
            ours = [r.lease for r in message.recalls if r.exclusive or r.lease in state.exclusive]
            rest.recalls.extend(r for r in message.recalls if not r.exclusive)
            state.exclusive.difference_update(ours)
            state.provisional.difference_update(ours)
            state.spoil(r.lease for r in message.recalls)
            for directory in ours:
                state.wanted.pop(directory, None)
            wait = any(state.concerns(directory) for directory in ours)
            if wait:
                state.seal()
                self.kick()
            # There the daemon has changed something by itself, the end of a truncation.
            state.forget(r.lease for r in rest.recalls)
            state.forget(ours)
            state.recalls += len(ours)

        def go_on() -> None:
            if rest.recalls:
                self._holder.recalled(rest, acknowledge)
            else:
                acknowledge()

        if wait:
            self._connection.background.spawn(self._ship_and(go_on))
        else:
            go_on()

    async def _ship_and(self, then: Callable[[], None]) -> None:
        try:
            await self.ship()
        except FsError as error:
            if error.code is not Code.IO:
                log.warning("a recall waits for the log: %s", error)
                return  # the daemon waits for the end of our leases
        then()

    def broken(self) -> None:
        state = self._state
        with state.lock:
            self._welcomes += 1
            state.suspended = True
            state.spoil(list(state.learning))

    def welcomed(
        self, session: int, welcome: meta_pb2.Welcome, settled: Callable[[], None]
    ) -> None:
        """Whatever was done before is shipped first; then everything begins anew."""
        state = self._state
        state.heard_time(welcome.now_ns)
        with state.lock:
            same = self._session in (0, session)
            self._session = session
            if same or state.is_synced:
                self._bound = self._connection.session
            state.suspended = True
            state.overlay.use_range(welcome.number_range)
            if not same:
                state.overlay.generations.clear()
            self._welcomes += 1
            number = self._welcomes
        self._connection.background.spawn(self._settle(number, same, settled))

    async def _settle(self, number: int, same: bool, settled: Callable[[], None]) -> None:
        state = self._state
        if not same:
            if not state.is_synced:
                self._lose("the session has expired")
            with state.lock:
                self._bound = self._connection.session
        if not await self._is_shipped("after a new connection"):
            return
        with state.lock:
            if self._welcomes != number:
                return  # there is a newer connection
            state.forget_all()
            state.exclusive.clear()
            state.provisional.clear()
            state.leaving.clear()
            state.wanted.clear()
            state.suspended = False
        settled()


def _nothing() -> None:
    return None
