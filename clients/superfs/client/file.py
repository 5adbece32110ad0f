"""OpenInode: the contents of one regular file, shared by every handle of it in this process.

Small contents live in the metadata store (inline), larger ones on data daemons, under a data
generation; a file moves from the first to the second once (a spill), and back when it is
truncated to nothing. Nobody above this module sees the difference.

What is written goes through three stages, and each is laid over the one before it in a read:

    dirty        only here; joined where it touches, sent when it is 1 MiB (sending.py) or 1 s old
    flying       on its way: inline writes to metad, or a spill that is not published yet
    unpublished  at the data daemons, but the size and times there do not say so yet

`flush` brings everything through (what close does), `fsync` makes it durable as well. Bytes are
forgotten here when they are published; until then a lost race (STALE_DATA: the file was truncated
by somebody else; BUSY: a truncation is being finished) writes them again.

Two kinds of exclusion: `_turn` is held by whoever flushes, truncates or appends, and may await;
`_state` is an ordinary mutex for a few lines without waiting, because threads share an OpenInode.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from superfs.client.data import Where
from superfs.client.dirty import covers, overlay
from superfs.client.retry import LOST_RACE
from superfs.client.sending import Sending
from superfs.core.errors import Code, FsError
from superfs.core.limits import FILE_DATA_BYTES_MAX
from superfs.core.namespace.bits import SET_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.client.connection import Connection
    from superfs.client.lent import Placing
    from superfs.client.sought import Sought
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Caller


class OpenInode(Sending):
    def __init__(
        self,
        connection: Connection,
        attr: Attr,
        *,
        inline: bytes | None = None,
        capability: bytes = b"",
    ) -> None:
        """`inline`: contents that came with `attr` (lookup or open with want_inline), if any.
        `capability`: from `open`, of a user session."""
        super().__init__(connection, attr, inline=inline, capability=capability)

    def show(self, capability: bytes) -> None:
        """From now on this right to the data: one for writing, of a later `open`."""
        self._capability = capability

    def __repr__(self) -> str:
        return f"OpenInode({self._attr.ino:x}.{self._attr.generation})"

    # ---- attributes

    def observe(self, attr: Attr) -> None:
        """Attributes from any answer about this inode; older ones are ignored."""
        with self._state:
            self._observe(attr)

    def recalled(self) -> None:
        """Somebody else has changed it: the next read asks. Its answer may be one of a change of
        our own that came later, so what was read ahead goes now."""
        self._age.recalls += 1
        self._readahead.drop()

    async def refresh(self, *, caller: Caller | None = None) -> Attr:
        """Asks the server; what it says with local writes on top."""
        asked = self._age.recalls
        outcome = await self._meta.getattr(self.ref, caller=caller)
        assert outcome.attr is not None
        self.observe(outcome.attr)
        self._age.seen = asked
        return self.attr

    async def setattr(
        self,
        mask: int,
        *,
        mode: int = 0,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        atime_ns: int = 0,
        mtime_ns: int = 0,
        caller: Caller | None = None,
    ) -> Attr:
        """Changes attributes in order with the writes of this process: truncate, utimens and
        everything else that a pending write could undo."""
        async with self._turn:
            if mask & SET_SIZE and not 0 <= size <= FILE_DATA_BYTES_MAX:
                raise FsError(Code.FILE_TOO_BIG if size > 0 else Code.INVALID, f"size {size}")
            if mask & SET_SIZE and size == 0:
                take_back = await self._discard()
            else:
                await self._flush()
                take_back = _nothing
            try:
                outcome = await self._meta.setattr(
                    self.ref,
                    mask,
                    mode=mode,
                    uid=uid,
                    gid=gid,
                    size=size,
                    atime_ns=atime_ns,
                    mtime_ns=mtime_ns,
                    caller=caller,
                )
            except BaseException:
                take_back()  # it was not truncated: what was written before is still to come
                raise
            self._attributes_set(outcome, mask, size)
            return self.attr

    async def truncate(self, size: int, *, caller: Caller | None = None) -> None:
        await self.setattr(SET_SIZE, size=size, caller=caller)

    # ---- reading

    async def _look_if_old(self) -> None:
        if self._age.is_over:
            await self.refresh()

    async def end(self) -> int:
        """The size that a read of now goes by."""
        await self._look_if_old()
        return self.size

    async def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes; fewer only at the end of the file."""
        if offset < 0 or length < 0:
            raise FsError(Code.INVALID, f"read of {length} at {offset}")
        wanted = length
        await self._look_if_old()
        while True:
            with self._state:
                attr, size = self._attr, self._size()
                length = min(wanted, size - offset)
                if length <= 0:
                    return b""
                extents = self._overlapping(offset, length)
                inline = self._inline if self._inline_change == attr.change else None
            if covers(extents, offset, length):
                return overlay(bytes(length), offset, extents)
            if not attr.is_inline:
                try:
                    where = Where.of(attr, self._capability)
                    base = await self._readahead.read(where, size, offset, length)
                except FsError as error:
                    if error.code is not Code.STALE_DATA:
                        raise
                    await self._look_again()  # somebody else has truncated it to nothing
                    if self._attr.data_generation == attr.data_generation:
                        raise
                    continue
                return overlay(base, offset, extents)
            if inline is None:
                inline = await self._read_inline()
                if inline is None:
                    continue
            base = inline[offset : offset + length]
            return overlay(base.ljust(length, b"\0"), offset, extents)

    def read_now(
        self, offset: int, length: int, *, seek: bool = False, wait: bool = False
    ) -> bytes | Sought | None:
        """As `read`, of what is in memory; None: it has to be fetched. `seek`: a little that a disk
        of this host has is sought there, for whoever looks for it from time to time. `wait`: it is
        read there, for whoever has a thread of his own."""
        if self._age.is_over:
            return None
        with self._state:
            attr, size = self._attr, self._size()
            length = min(length, size - offset)
            if length <= 0:
                return b""
            extents = self._overlapping(offset, length)
            inline = self._inline if self._inline_change == attr.change else None
        if covers(extents, offset, length):
            return overlay(bytes(length), offset, extents)
        if not attr.is_inline:
            where = Where.of(attr, self._capability)
            seek = seek and not extents
            if wait:
                here = self._readahead.read_here(where, size, offset, length)
                return None if here is None else overlay(here, offset, extents)
            found = self._readahead.read_now(where, size, offset, length, seek=seek)
            return overlay(found, offset, extents) if isinstance(found, bytes) else found
        if inline is None:
            return None
        base = inline[offset : offset + length]
        return overlay(base.ljust(length, b"\0"), offset, extents)

    def read_soon(self, offset: int, length: int, done: Callable[[bytes | None], None]) -> bool:
        """As `read`, for whoever does not wait: `done` is told what was read, once, in whatever
        thread has it; None: ask with `read`. False: it will not be told, ask with `read`."""
        if self._age.is_over:
            return False
        with self._state:
            attr, size = self._attr, self._size()
            length = min(length, size - offset)
            if length <= 0 or attr.is_inline or self._overlapping(offset, length):
                return False
        where = Where.of(attr, self._capability)
        started = self._readahead.start(where, size, offset, length)
        if started is None:
            return False
        pending, skip = started

        def arrived() -> None:
            data: bytes | None = None
            with contextlib.suppress(FsError):
                reply = pending.result()
                if not reply.code:
                    data = reply.data[skip : skip + length].ljust(length, b"\0")
            done(data)

        if not pending.on_done(arrived):
            arrived()
        return True

    async def _read_inline(self) -> bytes | None:
        """None: the file is on data daemons by now, or has grown or shrunk: look again."""
        try:
            outcome = await self._meta.read_inline(self.ref)
        except FsError as error:
            if error.code is not Code.NOT_INLINE:
                raise
            await self.refresh()
            return None
        assert outcome.attr is not None
        with self._state:
            self._observe(outcome.attr)
            if self._attr.change != outcome.attr.change:
                return None
            self._inline = outcome.data
            self._inline_change = outcome.attr.change
            return None

    # ---- writing

    async def write(
        self,
        offset: int,
        data: bytes | bytearray | memoryview,
        *,
        kill_priv: bool = False,
        caller: Caller | None = None,
        placing: Placing | None = None,
    ) -> int:
        """Into the dirty buffer; waits only when there is too much of it. `kill_priv` and
        `caller` go along when it is published. `placing`: of whoever may wait for a disk of this
        host. An error of an earlier write in the background is raised here, by flush or by fsync,
        once."""
        if offset < 0:
            raise FsError(Code.INVALID, f"write at {offset}")
        if offset + len(data) > FILE_DATA_BYTES_MAX:
            raise FsError(Code.FILE_TOO_BIG, f"{len(data)} bytes at {offset}")
        self._raise_failure()
        for at, part in self._parts(offset, data, placing):
            with self._state:
                self._dirty.write(at, part)
                self._readahead.drop(at, at + len(part))
                self._note_write(kill_priv, caller)
                full = self._is_full()
            if full:
                await self._push()
        return len(data)

    async def append(
        self,
        data: bytes | bytearray | memoryview,
        *,
        kill_priv: bool = False,
        caller: Caller | None = None,
    ) -> int:
        """At the end of the file as the server knows it (O_APPEND); how many bytes."""
        await self.append_at(data, kill_priv=kill_priv, caller=caller)
        return len(data)

    async def append_at(
        self,
        data: bytes | bytearray | memoryview,
        *,
        kill_priv: bool = False,
        caller: Caller | None = None,
    ) -> int:
        """As `append`; the offset where it went."""
        self._raise_failure()
        body = bytes(data)
        async with self._turn:
            await self._flush()
            return await self._append(body, kill_priv, caller) if body else self.size

    async def flush(self) -> None:
        """Everything written so far is at its daemons and visible to others: what close does."""
        self._raise_failure()
        if not self.is_dirty:
            return
        async with self._turn:
            self._raise_failure()  # of whoever had the turn
            await self._flush()

    async def fsync(self) -> None:
        """And survives the loss of power."""
        async with self._turn:
            self._raise_failure()
            await self._flush()
            with self._state:
                chains = () if self._attr.is_inline else self._attr.chains
            if chains:
                await self._data.commit(chains, self._attr.ino)
            await self._meta.sync()

    async def _append(self, data: bytes, kill_priv: bool, caller: Caller | None) -> int:
        """Nothing is dirty. The place is metad's to give; the bytes of a file on data daemons
        follow like any other write."""
        delays = self._connection.delays()
        deadline = time.monotonic() + self._connection.retry_timeout_s
        while True:
            with self._state:
                inline = self._attr.is_inline
            try:
                outcome = await self._meta.append(
                    self.ref, len(data), data=data if inline else b"", caller=caller
                )
                break
            except FsError as error:
                delay = next(delays)
                if error.code not in LOST_RACE or time.monotonic() + delay > deadline:
                    raise
                if error.code is Code.BUSY:
                    await self._connection.sleep(delay)
                if error.code is Code.INLINE_FULL:
                    await self._spill_for_append(caller)
                else:
                    await self._look_again()
        assert outcome.attr is not None
        with self._state:
            self._observe(outcome.attr, own=True)
            self._readahead.drop(outcome.number)
            if inline:
                self._inline = None
            else:
                self._note_write(kill_priv, caller)
                self._dirty.write(outcome.number, data)
            full = self._is_full()
        if full:
            await self._flush()
        return outcome.number

    async def _spill_for_append(self, caller: Caller | None) -> None:
        with self._state:
            self._caller = caller or self._caller
            self._tenure.begin()  # nothing is dirty
        try:
            await self._guarded(self._spill)
        except FsError as error:
            if error.code not in LOST_RACE:
                raise
            await self._look_again()


def _nothing() -> None:
    return None
