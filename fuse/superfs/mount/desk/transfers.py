"""Open files at the desk: open, read, write, flush, fsync, release.

Contents do not go through the relay: what memory cannot take or give at once becomes a task here.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio

from superfs.client.data import SHARED_BYTES_MIN
from superfs.client.sharedmem import fill, slot_of
from superfs.client.sought import SOUGHT_BYTES_MAX
from superfs.core.errors import FsError
from superfs.core.namespace.txn import Caller
from superfs.mount.desk import protocol
from superfs.mount.desk.answers import NO_ANSWER
from superfs.mount.desk.arrivals import Arrivals
from superfs.mount.desk.protocol import (
    FOPEN_NOFLUSH,
    HANDLE_IN,
    OPEN_IN,
    READ_IN,
    WRITE_CACHE,
    WRITE_DATA,
    WRITE_IN,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.mount.desk.waits import Waits
    from superfs.mount.handles import FileHandle
    from superfs.mount.services import Services

    Later = Callable[..., None]  # (unique, Awaitable[tuple[bytes, ...]], header)

CALLERS_MAX = 1024
LARGE_BYTES = 32 * 1024
"""More is not copied together with its header."""
WRITE_HEAD = WRITE_DATA - protocol.HEADER_BYTES

log = logging.getLogger("superfs.mount")


class Transfers:
    def __init__(
        self,
        services: Services,
        later: Later,
        give: Callable[..., None],
        renew: Callable[[], None],
        waits: Waits,
        header: Callable[[], bytes],
    ) -> None:
        """`later(unique, answer)` runs what has to wait and sends what comes of it; `give` sends
        the parts of a message, in any thread; after `renew` the memory of the request is the
        caller's; `header`: of the request that is being served."""
        self._renew = renew
        self._waits = waits
        self._header = header
        self._give = give
        self.arrivals = Arrivals(give)
        self._loop: trio.lowlevel.TrioToken | None = None
        self._table = services.mounted.nodes.table
        self._files = services.files
        self._handles = services.handles
        self._later = later
        self._callers: dict[tuple[int, int], Caller] = {}

    def open(self, unique: int, number: int, body: memoryview, uid: int, gid: int) -> bytes | None:
        node = self._table.get(number)
        if node is None or node.doubts:
            return None
        flags = OPEN_IN.unpack_from(body)[0]
        handle = self._files.open_cached(node, flags, self._caller(uid, gid))
        if handle is None:
            return None
        options = protocol.open_options(*self._files.opened(handle))
        if flags & os.O_ACCMODE == os.O_RDONLY:
            options |= FOPEN_NOFLUSH  # it has nothing to publish
        return protocol.opened(unique, self._handles.add(handle), options)

    def _caller(self, uid: int, gid: int) -> Caller:
        caller = self._callers.get((uid, gid))
        if caller is None:
            if len(self._callers) >= CALLERS_MAX:
                self._callers.clear()
            caller = self._callers[uid, gid] = Caller(uid, gid)
        return caller

    def read(self, unique: int, _number: int, body: memoryview, _uid: int, _gid: int) -> bytes:
        fh, offset, length = READ_IN.unpack_from(body)
        handle = self._handles.get(fh)
        if self._loop is None:
            self._loop = trio.lowlevel.current_trio_token()
        seek = length <= SOUGHT_BYTES_MAX and self.arrivals.has_room()
        found = self._files.read_now(handle, offset, length, seek=seek)
        if isinstance(found, bytes):
            if len(found) < LARGE_BYTES:
                return protocol.data(unique, found)
            self._give(protocol.data_header(unique, len(found)), found)
        elif found is not None:
            late = partial(self._read_late, unique, handle, offset, length, self._header())
            self.arrivals.expect(found, unique, late)
        else:
            self._read_soon(unique, handle, offset, length, self._header())
        return NO_ANSWER

    def _read_soon(
        self, unique: int, handle: FileHandle, offset: int, length: int, header: bytes
    ) -> None:
        arrived = partial(self._arrived, unique, handle, offset, length, header)
        self._waits.begin(header)
        if not self._files.read_soon(handle, offset, length, arrived):
            self._later(unique, self._read(unique, handle, offset, length), header)

    def _read_late(
        self, unique: int, handle: FileHandle, offset: int, length: int, header: bytes
    ) -> None:
        try:
            self._read_soon(unique, handle, offset, length, header)
        except FsError:  # whoever is told what is wrong is whoever asked
            self._later(unique, self._read(unique, handle, offset, length), header)

    def _arrived(
        self,
        unique: int,
        handle: FileHandle,
        offset: int,
        length: int,
        header: bytes,
        data: bytes | None,
    ) -> None:
        """In whatever thread has read it, which also makes the kernel's copy: the desk is busy."""
        if data is not None:
            if self._waits.over(unique):
                self._give(protocol.data_header(unique, len(data)), data)
            return

        def again() -> None:
            if unique in self._waits:
                self._later(unique, self._read(unique, handle, offset, length), header)

        with suppress(trio.RunFinishedError):  # nobody is there any more
            assert self._loop is not None
            self._loop.run_sync_soon(again)

    async def _read(
        self, unique: int, handle: FileHandle, offset: int, length: int
    ) -> tuple[bytes, ...]:
        found = await self._files.read(handle, offset, length)
        return protocol.data_header(unique, len(found)), found

    def write(self, unique: int, _number: int, body: memoryview, _uid: int, _gid: int) -> bytes:
        fh, offset, length, flags = WRITE_IN.unpack_from(body)
        handle = self._handles.get(fh)
        if flags & WRITE_CACHE:
            handle.file.mapped = True
        written: bytes | memoryview = body[WRITE_HEAD : WRITE_HEAD + length]
        if length < SHARED_BYTES_MIN:
            written = bytes(written)
        else:
            if isinstance(written, memoryview) and slot_of(written) is not None:
                fill(written)
            else:
                written = bytes(written)
            self._renew()
        if self._files.write_now(handle, offset, written):
            return protocol.size(unique, length)
        self._later(unique, self._write(unique, handle, offset, written))
        return NO_ANSWER

    async def _write(
        self, unique: int, handle: FileHandle, offset: int, written: bytes | memoryview
    ) -> tuple[bytes, ...]:
        length = await self._files.write(handle, offset, written)
        return (protocol.size(unique, length),)

    def flush(self, unique: int, _number: int, body: memoryview, _uid: int, _gid: int) -> bytes:
        handle = self._handles.get(HANDLE_IN.unpack_from(body)[0])
        if self._files.has_nothing_to_flush(handle) or self._files.flush_here(handle):
            return protocol.done(unique)
        self._later(unique, self._flush(unique, handle))
        return NO_ANSWER

    async def _flush(self, unique: int, handle: FileHandle) -> tuple[bytes, ...]:
        await self._files.flush(handle)
        return (protocol.done(unique),)

    def fsync(self, unique: int, _number: int, body: memoryview, _uid: int, _gid: int) -> bytes:
        self._later(unique, self._fsync(unique, self._handles.get(HANDLE_IN.unpack_from(body)[0])))
        return NO_ANSWER

    async def _fsync(self, unique: int, handle: FileHandle) -> tuple[bytes, ...]:
        await self._files.fsync(handle)
        return (protocol.done(unique),)

    def release(self, unique: int, _number: int, body: memoryview, _uid: int, _gid: int) -> bytes:
        handle = self._handles.pop(HANDLE_IN.unpack_from(body)[0])
        if self._files.release_now(handle):
            return protocol.done(unique)
        self._later(unique, self._release(unique, handle))
        return NO_ANSWER

    async def _release(self, unique: int, handle: FileHandle) -> tuple[bytes, ...]:
        await self._files.release(handle)
        return (protocol.done(unique),)
