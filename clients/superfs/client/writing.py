"""How written bytes of one file get to its daemons: the second half of `OpenInode` (file.py).

Everything here that awaits is called with `_turn` held.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Protocol

from superfs.client.age import Age
from superfs.client.data import Where
from superfs.client.dirty import LARGE_BYTES, DirtyExtents, merge
from superfs.client.readahead import Readahead
from superfs.client.retry import LOST_RACE, TRY_LATER
from superfs.client.started import check
from superfs.client.tenure import Tenure
from superfs.core.errors import Code, FsError
from superfs.core.limits import INLINE_BYTES_MAX
from superfs.core.namespace.txn import Ref
from superfs.rpc.pending import Lock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from superfs.client.connection import Connection
    from superfs.client.dirty import Extent
    from superfs.client.wire import Reply
    from superfs.core.attrs import Attr
    from superfs.core.namespace.outcome import Outcome
    from superfs.core.namespace.txn import Caller
    from superfs.rpc.pending import Pending

log = logging.getLogger("superfs.client")

DIRTY_AGE_S = 1.0


class Told(Protocol):
    losses: int  # `Writing.losses` when it was opened, or last told


class Writing:
    def __init__(
        self, connection: Connection, attr: Attr, *, inline: bytes | None, capability: bytes
    ) -> None:
        assert attr.is_regular, attr
        self._connection = connection
        self._meta = connection.meta
        self._data = connection.data
        self._capability = capability
        self._turn = Lock()
        self._state = threading.Lock()
        self._attr = attr
        self._age = Age()
        self._inline = inline if attr.is_inline else None
        self._inline_change = attr.change
        self._dirty = DirtyExtents()
        self._flying: list[Extent] = []
        self._unpublished: list[Extent] = []
        self._unpublished_bytes = 0
        self._answers: list[Pending[Reply]] = []
        self._readahead = Readahead(connection.data)
        self._written_end = 0  # behind the last byte that is unpublished
        self._mtime_ns = 0  # of the last write that is not published; 0: none
        self._tenure = Tenure(connection)
        self._dirty_since_s = 0.0
        self._kill_priv = False
        self._caller: Caller | None = None
        self._failure: FsError | None = None
        self._last_loss = FsError(Code.IO)
        self.losses = 0  # how often written bytes had to be dropped
        self._rewrites = 0

    @property
    def ref(self) -> Ref:
        a = self._attr
        return Ref(a.ino, a.generation, a.place)

    @property
    def is_dirty(self) -> bool:
        """Whether anything written here is not published yet."""
        return self._mtime_ns != 0

    @property
    def is_settled(self) -> bool:
        """Nothing is to be written, and no error of the background is to be told."""
        return self._mtime_ns == 0 and self._failure is None

    def aged(self, now_s: float) -> bool:
        return self.is_dirty and now_s - self._dirty_since_s >= DIRTY_AGE_S

    # ---- state: called with _state held

    def _size(self) -> int:
        if not self.is_dirty:
            return self._attr.size
        flying = self._flying[-1][0] + len(self._flying[-1][1]) if self._flying else 0
        return max(self._attr.size, self._dirty.end, flying, self._written_end)

    def _observe(self, attr: Attr, *, own: bool = False) -> None:
        if attr.change < self._attr.change or attr.generation != self._attr.generation:
            return
        if attr.change > self._attr.change and not own:
            self._readahead.drop()
            self._tenure.changed()
        if attr.data_generation != self._attr.data_generation:
            self._readahead.drop()
        self._attr = attr
        self._age.told()

    def _note_write(self, kill_priv: bool, caller: Caller | None) -> None:
        if not self.is_dirty:
            self._dirty_since_s = time.monotonic()
            self._tenure.begin()
            self._connection.writeback.note(self)
        self._mtime_ns = time.time_ns()
        self._kill_priv |= kill_priv
        self._caller = caller or self._caller

    def _overlapping(self, offset: int, length: int) -> list[Extent]:
        """Oldest first. What is unpublished can be read back from the data daemons."""
        end = offset + length
        flying = [(o, d) for o, d in self._flying if o < end and o + len(d) > offset]
        return flying + self._dirty.overlapping(offset, length)

    # ---- failures

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise FsError(failure.code, failure.detail)

    def lose(self, error: FsError) -> None:
        """What was published is not so, after all: every handle is told, once. Any answer is newer
        than what is known here."""
        self._last_loss = error
        self.losses += 1
        with self._state:
            self._attr = self._attr.copy()
            self._attr.change = 0
            self._inline = None
            self._readahead.drop()
            self._age.recalls += 1

    def _fail(self, error: FsError) -> None:
        """In the background. What is only late is still dirty, and will be tried again."""
        if error.code in TRY_LATER:
            log.warning("inode %x: written bytes have to wait: %s", self._attr.ino, error)
        else:
            self._failure = error

    @contextlib.contextmanager
    def telling(self, handle: Told) -> Iterator[None]:
        """Around what a handle asks for: bytes that were dropped are an error of each, once."""
        try:
            yield
            if self.losses != handle.losses:
                raise FsError(self._last_loss.code, self._last_loss.detail)
        except FsError:
            handle.losses = self.losses
            raise

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

    def _drop_writes(self) -> None:
        with self._state:
            self._dirty.clear()
            self._flying = []
            self._forget_unpublished()
            self._readahead.drop()

    def _forget_unpublished(self) -> None:
        self._unpublished = []
        self._unpublished_bytes = 0
        self._written_end = 0
        if self._dirty or self._flying:
            self._dirty_since_s = time.monotonic()
        else:
            self._mtime_ns = 0
            self._kill_priv = False

    # ---- sending

    async def _flush(self) -> None:
        """Until nothing is dirty or unpublished. Lost races start again with fresh attributes."""
        if not self.is_dirty:
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
        with self._state:
            inline = self._attr.is_inline
            small = self._dirty.end <= INLINE_BYTES_MAX
        if inline and small:
            await self._publish_inline()
            return
        if inline:
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
            merged = None
            if self._inline is not None and outcome.number == self._inline_change:
                merged = merge(self._inline, writes)
            self._published(outcome)
            self._inline, self._inline_change = merged, self._attr.change

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
            self._unpublished_bytes += len(data)
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

    def _published(self, outcome: Outcome) -> None:
        assert outcome.attr is not None
        self._observe(outcome.attr, own=True)
        self._flying = []
        self._forget_unpublished()
