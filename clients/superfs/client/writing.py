"""How written bytes of one file get to its daemons: the second half of `OpenInode` (file.py).

Everything here that awaits is called with `_turn` held.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING

from superfs.client.data import Where
from superfs.client.dirty import LARGE_BYTES, in_memory, merge
from superfs.client.retry import LOST_RACE, TRY_LATER
from superfs.client.started import check
from superfs.client.unpublished import Unpublished
from superfs.core.errors import Code, FsError
from superfs.core.limits import INLINE_BYTES_MAX
from superfs.core.namespace.bits import SET_SIZE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from superfs.client.delegation.meta import DelegatedMeta
    from superfs.client.dirty import Extent
    from superfs.client.wire import Reply
    from superfs.core.attrs import Attr
    from superfs.core.namespace.outcome import Outcome
    from superfs.core.namespace.txn import Caller
    from superfs.rpc.pending import Pending

log = logging.getLogger("superfs.client")


class Writing(Unpublished):
    async def abandon(self, still: Callable[[], bool]) -> None:
        """The last close has failed: its bytes must not come later, over what others write.
        `still` is asked when nothing of them is on its way any more."""
        async with self._turn:
            if still() and self.is_dirty:
                log.error("inode %x: written bytes are lost: its last close failed", self._attr.ino)
                self._drop_writes()

    async def flush_aged(self) -> None:
        """In the background: what is older than `DIRTY_AGE_S`. Keeps its error for a caller."""
        async with self._turn:
            try:
                await self._flush()
            except FsError as error:
                self._fail(error)

    # ---- sending

    async def _flush(self) -> None:
        """Until nothing is dirty or unpublished. Lost races start again with fresh attributes."""
        here = self._meta.here
        if not self.is_dirty or (here is not None and self._publish_here(here)):
            return
        delays = self._connection.delays()
        deadline = time.monotonic() + self._connection.retry_timeout_s
        while True:
            try:
                if self._tenure.is_over:
                    await self._guarded(self._take_over)
                await self._guarded(self._send_and_publish)
                return
            except FsError as error:
                delay = next(delays)
                if not self._is_worth_again(error) or time.monotonic() + delay > deadline:
                    raise
                if error.code in (Code.BUSY, Code.SESSION_EXPIRED):
                    await self._connection.sleep(delay)
            await self._look_again()

    def _is_worth_again(self, error: FsError) -> bool:
        """A host that slept too long begins a new session, which brings a new right to all data;
        the right to one inode, of a user, ends with its open."""
        renewed = error.code is Code.SESSION_EXPIRED and not self._capability
        return error.code in LOST_RACE or renewed

    async def _take_over(self) -> None:
        """Into the session of now, what was written in one that is over."""
        while self._tenure.is_over:
            session = self._connection.session
            await self._look_again()
            with self._state:
                if self._tenure.overtaken:
                    text = "others have changed the file since the session ended that wrote them"
                    raise FsError(Code.IO, text)
                self._tenure.begin(session)

    def _where(self, attr: Attr) -> Where:
        """To write there, by the right of the session in which it was written."""
        return Where.of(attr, self._capability or self._tenure.capability)

    async def _look_again(self) -> None:
        outcome = await self._meta.getattr(self.ref)
        assert outcome.attr is not None
        with self._state:
            self._inline = None
            self._observe(outcome.attr)

    def _resend(self) -> None:
        """What is at data daemons is nowhere, when somebody else has truncated the file to nothing:
        it was written later, and is written again."""
        with self._state:
            if self._attr.is_inline and self._unpublished:
                self._write_again()

    def _write_again(self) -> None:
        """Everything unpublished is dirty again."""
        self._rewrites += 1
        self._dirty.put_under([*self._unpublished, *self._flying])
        self._flying = []
        self._answers = []
        self._unpublished = []
        self._unpublished_bytes = 0

    async def _guarded(self, step: Callable[[], Awaitable[None]]) -> None:
        """A failed step leaves its bytes dirty when trying later can help, or the race was lost;
        else they are dropped."""
        try:
            await step()
        except FsError as error:
            with self._state:
                self._write_again()
            if error.code not in TRY_LATER and not self._is_worth_again(error):
                log.error("inode %x: written bytes are lost: %s", self._attr.ino, error)
                self._drop_writes()
                self._last_loss = error
                self.losses += 1
            raise
        except BaseException:  # cancelled: nothing is known about what was on its way
            with self._state:
                self._write_again()
            raise

    async def _send_and_publish(self) -> None:
        self._resend()
        with self._state:
            inline = self._attr.is_inline
            small = self._dirty.end <= INLINE_BYTES_MAX
        if inline and small:
            await self._publish_inline()
            return
        if inline:
            here = self._meta.here
            if here is not None:
                await here.room()
                if self._keep(here):
                    return
            await self._spill()
            return
        await self._start_writes()
        await self._publish()

    async def _publish_inline(self) -> None:
        with self._state:
            writes = [(offset, bytes(data)) for offset, data in self._dirty.take()]
            self._flying = [*writes]
            mtime_ns, kill_priv = self._mtime_ns, self._kill_priv
        outcome = await self._meta.publish(
            self.ref,
            0,
            writes=writes,
            mtime_ns=mtime_ns,
            kill_priv=kill_priv,
            caller=self._caller,
            session=self._tenure.session,
        )
        with self._state:
            self._published_inline(outcome, writes)

    def _published_inline(self, outcome: Outcome, writes: list[tuple[int, bytes]]) -> None:
        """With `_state` held."""
        merged = None
        if self._inline is not None and outcome.number == self._inline_change:
            merged = merge(self._inline, writes)
        self._published(outcome)
        assert outcome.attr is not None
        self._inline, self._inline_change = merged, outcome.attr.change

    # ---- at once, where this client tells of it later

    def flush_here(self) -> bool:
        """As `flush`, of contents that no data daemon gets now. False: it has to be waited for."""
        here = self._meta.here
        if here is None or self._failure is not None or not self._turn.acquire_nowait():
            return False
        try:
            return self._publish_here(here)
        finally:
            self._turn.release()

    def setattr_here(
        self, mask: int, *, size: int = 0, caller: Caller | None = None, **values: int
    ) -> Attr | None:
        """As `setattr`. None: it has to be waited for."""
        here = self._meta.here
        if here is None or (mask & SET_SIZE and self.is_dirty) or not self._turn.acquire_nowait():
            return None
        try:
            if not self._publish_here(here):
                return None
            outcome = here.setattr_here(self.ref, mask, caller=caller, size=size, **values)
            if outcome is not None:
                self._attributes_set(outcome, mask, size)
        finally:
            self._turn.release()
        return None if outcome is None else self.attr

    def _publish_here(self, here: DelegatedMeta) -> bool:
        """With `_turn` held. What the rules refuse is refused to whoever waits for it."""
        if not self.is_dirty:
            return True
        if not self._attr.is_inline or self._tenure.is_over:
            return False
        self._resend()
        if self._dirty.end > INLINE_BYTES_MAX:
            return self._keep(here)
        with self._state:
            writes = [(offset, bytes(data)) for offset, data in self._dirty.take()]
            self._flying = [*writes]
            mtime_ns, kill_priv = self._mtime_ns, self._kill_priv
        outcome = None
        try:
            with contextlib.suppress(FsError):
                outcome = here.publish_here(
                    self.ref, 0, writes=writes, mtime_ns=mtime_ns, kill_priv=kill_priv,
                    caller=self._caller, session=self._tenure.session,
                )  # fmt: skip
        finally:
            with self._state:
                if outcome is None:
                    self._write_again()
                else:
                    self._published_inline(outcome, writes)
        return outcome is not None

    def _keep(self, here: DelegatedMeta) -> bool:
        """Contents of a file that only this client knows go to the data daemons with those of
        others, and ahead of its name. False: they have to go now."""
        if self._tenure.is_over or not self._data.may_keep(
            self._dirty.bytes + len(self._inline or b""), self._dirty.end
        ):
            return False
        with here.lock:
            if not here.is_born_here(self.ref):
                return False
            with self._state:
                self._flying = extents = self._dirty.take()
            kept = False
            try:
                with contextlib.suppress(FsError):
                    kept = self._publish_kept(here, extents)
            finally:
                if not kept:
                    self._data.drop(self._attr.ino)
                    with self._state:
                        self._write_again()
        return kept

    def _publish_kept(self, here: DelegatedMeta, extents: list[Extent]) -> bool:
        prepared = here.new_data_here(self.ref)
        if prepared is None:
            return False
        assert prepared.attr is not None
        right = self._capability or self._tenure.capability
        where = Where(self._attr.ino, prepared.number, prepared.attr.chains, right)
        contents = [(0, prepared.data), *extents] if prepared.data else extents
        if not self._data.keep(where, contents):
            return False
        last_offset, last = extents[-1]
        outcome = here.publish_here(
            self.ref,
            prepared.number,
            size=last_offset + len(last),
            mtime_ns=self._mtime_ns,
            kill_priv=self._kill_priv,
            spill=True,
            inline_change=prepared.attr.change,
            caller=self._caller,
            session=self._tenure.session,
        )
        if outcome is None:
            return False
        here.kept(self._attr.ino, sum(len(data) for _, data in contents))
        with self._state:
            self._inline = None
            self._readahead.drop()
            self._published(outcome)
        return True

    # ---- to data daemons

    async def _spill(self) -> None:
        """Moves the contents to data daemons, together with what is dirty."""
        prepared = await self._meta.new_data(self.ref, caller=self._caller)
        assert prepared.attr is not None
        right = self._capability or self._tenure.capability
        where = Where(self._attr.ino, prepared.number, prepared.attr.chains, right)
        with self._state:
            size = self._dirty.end
            self._flying = extents = self._dirty.take()
            mtime_ns, kill_priv = self._mtime_ns, self._kill_priv
        answers: list[Pending[Reply]] = []
        if prepared.data:
            answers += await self._data.start_write(where, 0, prepared.data)
        for offset, data in extents:
            answers += await self._data.start_write(where, offset, data)
        for answer in answers:
            check(await answer)
        if prepared.data:
            # They are on metad's disk, which forgets them with the spill.
            await self._data.commit(where.chains, where.ino)
        outcome = await self._meta.publish(
            self.ref,
            prepared.number,
            size=size,
            mtime_ns=mtime_ns,
            kill_priv=kill_priv,
            spill=True,
            inline_change=prepared.attr.change,
            caller=self._caller,
            session=self._tenure.session,
        )
        with self._state:
            self._inline = None
            self._readahead.drop()
            self._published(outcome)

    async def _start_writes(self) -> None:
        """Sends what is dirty to the data daemons; it may be read back from there once sent."""
        with self._state:
            attr = self._attr
            self._flying = extents = self._dirty.take()
        if not extents:
            return
        where = self._where(attr)
        small = [(where, o, data) for o, data in extents if len(data) < LARGE_BYTES]
        if len(small) > 1:
            self._answers += await self._data.start_write_many(small)
        for offset, data in extents:
            if len(data) >= LARGE_BYTES or len(small) == 1:
                self._answers += await self._data.start_write(where, offset, data)
        with self._state:
            self._flying = []
            self._are_sent(extents)

    def _are_sent(self, extents: list[Extent]) -> None:
        for offset, data in extents:
            self._readahead.drop(offset, offset + len(data))
            self._written_end = max(self._written_end, offset + len(data))
            self._unpublished_bytes += in_memory(data)
        self._unpublished += extents

    async def _publish(self) -> None:
        answers, self._answers = self._answers, []
        for answer in answers:
            check(await answer)
        with self._state:
            size = self._written_end
            mtime_ns, kill_priv = self._mtime_ns, self._kill_priv
            generation = self._attr.data_generation
        outcome = await self._meta.publish(
            self.ref,
            generation,
            size=size,
            mtime_ns=mtime_ns,
            kill_priv=kill_priv,
            caller=self._caller,
            session=self._tenure.session,
        )
        with self._state:
            self._published(outcome)

    def _attributes_set(self, outcome: Outcome, mask: int, size: int) -> None:
        assert outcome.attr is not None
        with self._state:
            if mask & SET_SIZE:
                self._inline = b"" if size == 0 else None
                self._inline_change = outcome.attr.change
                self._readahead.drop()
            self._observe(outcome.attr, own=True)

    def _published(self, outcome: Outcome) -> None:
        assert outcome.attr is not None
        if outcome.number > self._attr.change:  # somebody else's change came before ours
            self._readahead.drop()
        self._observe(outcome.attr, own=True)
        self._flying = []
        self._forget_unpublished()
