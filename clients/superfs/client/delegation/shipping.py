"""Brings the log to its daemon, part by part, and says how that went.

One part is on its way at a time. What cannot be shipped any more is lost, with everything behind
it: one line in the log of this process for each file, and whoever repeats what this client did is
told to forget it.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from superfs.client.ops import Call
from superfs.client.session import MUTATIONS
from superfs.core.attrs import PACKED_ATTR_BYTES, unpack_attr
from superfs.core.errors import Code, FsError, known_code
from superfs.core.ids import ROOT
from superfs.rpc.pending import Pending
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from superfs.client.connection import Connection
    from superfs.client.delegation.journal import Sealed
    from superfs.client.delegation.state import Delegations
    from superfs.client.dispatch import Dispatch
    from superfs.client.leases import LeaseHolder

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
        self._running = False
        self._alarm = 0  # the part that a timer is set for
        self._session = 0
        self._welcomes = 0

    # ---- called with the lock of the state

    def noted(self) -> None:
        """Something was done."""
        part = self._state.part
        if part.is_full:
            self._state.seal()
            self.kick()
        elif self._alarm != part.number and (part.entries or part.touched):
            self._alarm = part.number
            self._connection.background.call_later(SHIP_AFTER_S, lambda: self._ring(part.number))

    def kick(self) -> None:
        if self._state.sealed and not self._running:
            self._running = True
            self._connection.background.spawn(self._run())

    def _ring(self, number: int) -> None:
        with self._state.lock:
            if self._state.part.number == number:
                self._state.seal()
            self.kick()

    # ---- waiting

    async def ship(self) -> None:
        """What was done until now is done at the daemon, and durable. UNAVAILABLE when that takes
        longer than anything is waited for; it is not given up. IO when it is lost."""
        state = self._state
        with state.lock:
            if state.is_synced:
                return
            target, losses = state.seal(), len(state.losses)
            self.kick()
        await self._until(lambda: state.shipped >= target)
        for first, error in state.losses[losses:]:
            if first <= target:
                raise FsError(error.code, error.detail)

    async def room(self) -> None:
        """Until the log is not full any more."""
        state = self._state
        with state.lock:
            if not state.is_full:
                return
            state.seal()
            self.kick()
        try:
            await self._until(lambda: not state.is_full)
        except FsError as error:
            if error.code is not Code.IO:  # what was before it is lost; there is room now
                raise

    async def _until(self, enough: Callable[[], bool]) -> None:
        state, timeout_s = self._state, self._connection.retry_timeout_s
        late = FsError(Code.UNAVAILABLE, f"what was done before is not shipped in {timeout_s} s")
        while True:
            with state.lock:
                if enough():
                    return
                waiter: Pending[None] = Pending()
                state.waiters.append(waiter)
            self._connection.background.call_later(timeout_s, partial(waiter.fail, late))
            await waiter

    def _tell_waiters(self, error: FsError | None = None) -> None:
        waiters, self._state.waiters = self._state.waiters, []
        for waiter in waiters:
            if error is None:
                waiter.complete(None)
            else:
                waiter.fail(error)

    # ---- in the background

    async def _run(self) -> None:
        state = self._state
        while True:
            with state.lock:
                if not state.sealed:
                    self._running = False
                    self._tell_waiters()
                    return
                part = state.sealed[0]
            try:
                result = await self._send(part)
            except FsError as error:
                if self._connection.is_closed:
                    return
                # What was refused is dealt with there; what was to come after it is not known.
                known = 1 if error.code is Code.LOG_REFUSED else 0
                for lost in self._lose(f"{error}")[known:]:
                    await self._bury(lost)
                continue
            with state.lock:
                self._done(part, result)
                going = state.crowded_out()
            if going:
                self._connection.meta_stream(ROOT).give_back(going)

    async def _bury(self, part: Sealed) -> None:
        """The numbers of its files are used up, and their data is nobody's."""
        part.log.lost = True
        try:
            await self._send(part)
        except FsError as error:
            log.warning("data of lost files may be left on data daemons: %s", error)

    async def _send(self, part: Sealed) -> meta_pb2.Result:
        call = Call("log", part.log, ROOT, mutates=True)
        while True:
            item = self._dispatch._item(call, None, MUTATIONS)
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
            group = groups.get(place)
            if group is None or len(packed) < (index + 1) * PACKED_ATTR_BYTES:
                continue
            theirs = unpack_attr(packed, index * PACKED_ATTR_BYTES)
            ours = group.directory.attr if ino == place else group.inodes.get(ino)
            if ours is not None and ours.change < theirs.change:
                ours.change = theirs.change
        for ino, data in part.inline.items():
            if overlay.inline.get(ino) is data:
                del overlay.inline[ino]
        self._tell_waiters()

    def _lose(self, reason: str) -> list[Sealed]:
        state = self._state
        with state.lock:
            state.seal()
            lost, last = list(state.sealed), state.part.number - 1
            state.sealed.clear()
            state.shipped = last
            directories = set(state.overlay.groups)
            for part in lost:
                directories |= part.places
            state.forget(list(state.overlay.groups))
            state.overlay.inline.clear()
            given_back, state.exclusive = state.exclusive, set()
            error = FsError(Code.IO, f"what was done before is lost: {reason}")
            if lost:
                state.losses.append((lost[0].number, error))
            self._tell_waiters(error)
        for part in lost:
            for ino, (directory, name) in part.files.items():
                state.lost_files += 1
                log.error("lost: file %r (%x) in directory %x: %s", name, ino, directory, reason)
            for place, ino in part.changed:
                if ino not in part.files:
                    log.error("lost: changes of inode %x in %x: %s", ino, place, reason)
        inos = {ino for part in lost for ino in part.files}
        inos.update(ino for part in lost for _, ino in part.changed)
        self._holder.lost(inos, error)
        message = meta_pb2.Invalidate()
        for directory in sorted(directories):
            message.recalls.add(lease=directory, whole=True)
        self._holder.recalled(message, _nothing)
        self._connection.meta_stream(ROOT).give_back(sorted(given_back | directories))
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
                state.exclusive.update(directories)

    def recalled(self, message: meta_pb2.Invalidate, acknowledge: Callable[[], None]) -> None:
        state = self._state
        rest = meta_pb2.Invalidate(number=message.number, commit=message.commit)
        with state.lock:
            ours = [r.lease for r in message.recalls if r.exclusive or r.lease in state.exclusive]
            rest.recalls.extend(r for r in message.recalls if not r.exclusive)
            state.exclusive.difference_update(ours)
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
        with self._state.lock:
            self._welcomes += 1
            self._state.suspended = True

    def welcomed(
        self, session: int, welcome: meta_pb2.Welcome, settled: Callable[[], None]
    ) -> None:
        """Whatever was done before is shipped first; then everything begins anew."""
        state = self._state
        state.heard_time(welcome.now_ns)
        with state.lock:
            same = self._session in (0, session)
            self._session = session
            state.suspended = True
            state.overlay.use_range(welcome.number_range)
            if not same:
                state.overlay.generations.clear()
            self._welcomes += 1
            number = self._welcomes
        self._connection.background.spawn(self._settle(number, same, settled))

    async def _settle(self, number: int, same: bool, settled: Callable[[], None]) -> None:
        state = self._state
        if not same and not state.is_synced:
            self._lose("the session has expired")
        while True:
            try:
                await self.ship()
                break
            except FsError as error:
                log.warning("after a new connection: %s", error)
                if self._connection.is_closed:
                    return
        with state.lock:
            if self._welcomes != number:
                return  # there is a newer connection
            state.forget(list(state.overlay.groups))
            state.exclusive.clear()
            state.wanted.clear()
            state.suspended = False
        settled()


def _nothing() -> None:
    return None
