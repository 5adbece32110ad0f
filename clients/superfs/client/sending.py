"""When written bytes are sent: gathered, at once by whoever must not wait, beside the writer, or
not at all.

The first mebibyte goes as soon as it is there. While more follows, and lies in memory that a data
daemon on this host reads, a chunk's worth goes together: what a message costs is then paid once for
all of it. Publishing is left to the background; until it is done, and while there is no room to
send, what comes is held as dirty bytes. Only when too much is held the writer waits.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from superfs.client.data import Where
from superfs.client.dirty import LARGE_BYTES
from superfs.client.sharedmem import slot_of
from superfs.client.writing import Writing
from superfs.core.errors import FsError
from superfs.core.limits import (
    CHUNK_BYTES,
    FILE_DATA_BYTES_MAX,
    MESSAGE_DATA_BYTES_MAX,
    PLACED_BYTES_MAX,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from superfs.client.dirty import Data
    from superfs.client.lent import Placed, Placing

log = logging.getLogger("superfs.client")

DIRTY_BYTES_MAX = MESSAGE_DATA_BYTES_MAX
GATHERED_BYTES_MAX = CHUNK_BYTES
WRITE_BYTES_MAX = MESSAGE_DATA_BYTES_MAX
"""A larger write is taken in such parts."""
HELD_BYTES_MAX = 16 * MESSAGE_DATA_BYTES_MAX
DIRTY_EXTENTS_MAX = 512
UNPUBLISHED_BYTES_MAX = 32 * MESSAGE_DATA_BYTES_MAX
"""From then on it is published beside the writer, who waits at twice as much."""

assert DIRTY_BYTES_MAX <= GATHERED_BYTES_MAX < HELD_BYTES_MAX


class Sending(Writing):
    def write_now(self, offset: int, data: bytes | memoryview) -> bool:
        """As `write`, where nothing has to be waited for; False: nothing was done."""
        if offset < 0 or offset + len(data) > FILE_DATA_BYTES_MAX or self._failure is not None:
            return False
        with self._state:
            if not self._is_full(len(data)):
                self._take_in(offset, data)
                return True
        if slot_of(data) is None:
            return False
        if not self._turn.acquire_nowait():
            return self._hold(offset, data)
        try:
            return self._send_now(offset, data)
        finally:
            self._turn.release()

    def _parts(
        self, offset: int, data: bytes | bytearray | memoryview, placing: Placing | None
    ) -> Iterator[tuple[int, Data]]:
        """(offset, bytes that nobody changes any more): copied before they are sent, or written
        where they will stay."""
        whole = memoryview(data)
        at = 0
        while at < len(whole):
            inside = whole[at : at + PLACED_BYTES_MAX - (offset + at) % PLACED_BYTES_MAX]
            part: Data | None = self._placed(offset + at, inside, placing) if placing else None
            if part is None:
                few = len(whole) <= WRITE_BYTES_MAX and not at
                part = self._data.own(data if few else whole[at : at + WRITE_BYTES_MAX])
            yield offset + at, part
            at += len(part)

    def _placed(self, offset: int, part: memoryview, how: Placing) -> Placed | None:
        with self._state:
            attr = self._attr
        if self._capability or attr.is_inline:
            return None
        return self._data.placed(Where.of(attr), offset, part, how)

    def _is_full(self, more: int = 0) -> bool:
        """With so many bytes more, in one piece. Called with `_state` held."""
        size = self._dirty.bytes + more
        many = len(self._dirty) + bool(more) >= DIRTY_EXTENTS_MAX
        if size < DIRTY_BYTES_MAX or many or size >= GATHERED_BYTES_MAX:
            return many or size >= GATHERED_BYTES_MAX
        large = self._dirty.bytes >= len(self._dirty) * LARGE_BYTES  # small ones share anyway
        return not (large and self._unpublished_bytes and self._data.gathers)

    def _take_in(self, offset: int, data: bytes | memoryview) -> None:
        self._dirty.write(offset, data)
        self._readahead.drop(offset, offset + len(data))
        self._note_write(False, None)

    def _hold(self, offset: int, data: bytes | memoryview) -> bool:
        """For the next write that can send, or whoever flushes."""
        with self._state:
            if self._dirty.bytes + len(data) > HELD_BYTES_MAX:
                return False
            self._take_in(offset, data)
            return True

    def _send_now(self, offset: int, data: bytes | memoryview) -> bool:
        """With `_turn` held: nobody else sends or publishes."""
        if self._attr.is_inline or not self._hold(offset, data):
            return False
        if self._unpublished_bytes >= UNPUBLISHED_BYTES_MAX or self._tenure.is_over:
            self._connection.writeback.hasten(self)
            return True
        with self._state:
            where = self._where(self._attr)
            self._flying = extents = self._dirty.take()
        answers = self._data.start_writes_now(where, extents)
        with self._state:
            self._flying = []
            if answers is None:
                self._dirty.put_under(extents)
            else:
                self._answers += answers
                self._are_sent(extents)
        return True

    async def _push(self) -> None:
        """The dirty buffer is full: send it, without waiting for the answers unless too much is
        unpublished."""
        if self._turn.held and self._dirty.memory_bytes < HELD_BYTES_MAX:
            return  # it is being published; whoever writes next sends this
        async with self._turn:
            with self._state:
                if not self._is_full():
                    return  # somebody else has
                at_once = self._attr.is_inline or self._tenure.is_over
            if at_once or self._unpublished_bytes >= 2 * UNPUBLISHED_BYTES_MAX:
                await self._flush()
                return
            await self._guarded(self._start_writes)
            if self._unpublished_bytes >= UNPUBLISHED_BYTES_MAX:
                self._connection.writeback.hasten(self)

    async def _discard(self) -> Callable[[], None]:
        """Before a truncation to nothing; returns what undoes it. What is on its way must arrive
        first, or it would come after the file's data was reaped."""
        for answer in self._answers:
            try:
                await answer
            except FsError as error:
                log.info("inode %x: %s, truncated anyway", self._attr.ino, error)
        self._answers = []
        with self._state:
            dropped = [*self._unpublished, *self._flying, *self._dirty.take()]
            kill_priv, caller = self._kill_priv, self._caller
        self._drop_writes()

        def take_back() -> None:
            with self._state:
                if dropped:
                    self._dirty.put_under(dropped)
                    self._note_write(kill_priv, caller)

        return take_back
