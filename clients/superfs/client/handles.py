"""Files that this process has open: one `OpenInode` per inode, however many handles it has.

The metadata daemon knows what is open, so that an unlinked file lives on. Closing tells it lazily
and in batches: what is opened again soon needs no call.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from superfs.client.file import OpenInode
from superfs.client.resolve import ref_of
from superfs.core.errors import FsError

if TYPE_CHECKING:
    from superfs.client.connection import Connection
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Caller, Ref

log = logging.getLogger("superfs.client")

RELEASE_S = 1.0


@dataclass(slots=True)
class _Shared:
    inode: OpenInode
    handles: int = 0


class OpenFiles:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._open: dict[tuple[int, int], _Shared] = {}
        self._released: list[Ref] = []
        self._unfinished: list[_Shared] = []  # closed, but something is still to be written
        self._armed = False

    def view(self, attr: Attr) -> Attr:
        """Attributes from the server, with what is written here and not published on top."""
        shared = self._open.get((attr.ino, attr.generation))
        if shared is None:
            return attr
        shared.inode.observe(attr)
        return shared.inode.attr

    def is_open(self, ino: int, generation: int) -> bool:
        return (ino, generation) in self._open

    def find(self, attr: Attr) -> OpenInode | None:
        shared = self._open.get((attr.ino, attr.generation))
        return shared.inode if shared is not None else None

    async def open(
        self, attr: Attr, *, write: bool = False, caller: Caller | None = None
    ) -> OpenInode:
        """Of an inode that exists; what `create(open=True)` made goes to `adopt`."""
        try:
            outcome = await self._connection.meta.open(
                ref_of(attr), write=write, want_inline=True, caller=caller
            )
        except FsError:
            raise
        except BaseException:  # cancelled: the server may hold it open for us by now
            with self._lock:
                self._released.append(ref_of(attr))
            self._arm()
            raise
        assert outcome.attr is not None
        inline = outcome.data if outcome.attr.is_inline else None
        return self.adopt(outcome.attr, inline=inline, capability=outcome.capability, write=write)

    def adopt(
        self,
        attr: Attr,
        *,
        inline: bytes | None = None,
        capability: bytes = b"",
        write: bool = True,
    ) -> OpenInode:
        """`capability` is of a user session; `write`: it is good for writing too."""
        key = (attr.ino, attr.generation)
        with self._lock:
            shared = self._open.get(key)
            if shared is None:
                inode = OpenInode(self._connection, attr, inline=inline, capability=capability)
                shared = self._open[key] = _Shared(inode)
            elif write:
                shared.inode.show(capability)
            shared.handles += 1
        shared.inode.observe(attr)
        return shared.inode

    async def close(self, inode: OpenInode) -> None:
        """Flushes; the handle is gone even where that fails. What could not be written, or not
        yet, is kept under the same `OpenInode`: whoever opens the file meanwhile writes over it
        and not beside it."""
        try:
            await inode.flush()
        finally:
            self._let_go(inode)

    def _let_go(self, inode: OpenInode) -> None:
        with self._lock:
            shared = self._open[_key(inode)]
            shared.handles -= 1
            self._unfinished.append(shared)
            self._finish()
        self._arm()

    def _finish(self) -> None:
        """Forgets what nobody has open and nothing has to be written to. Called with the lock."""
        left = []
        for shared in self._unfinished:
            if not shared.handles and shared.inode.is_dirty:
                left.append(shared)
                continue
            if not shared.handles:
                self._open.pop(_key(shared.inode), None)
            self._released.append(shared.inode.ref)
        self._unfinished = left

    def _arm(self) -> None:
        with self._lock:
            arm, self._armed = not self._armed, True
        if arm:
            with contextlib.suppress(FsError):  # closing: the end of the session releases all
                self._connection.background.call_later(RELEASE_S, self._release_soon)

    def _release_soon(self) -> None:
        with contextlib.suppress(FsError):
            self._connection.background.spawn(self.release())

    async def release(self) -> None:
        with self._lock:
            self._finish()
            refs, self._released = self._released, []
            self._armed = False
            left = bool(self._unfinished)
        if left:
            self._arm()
        if refs:
            try:
                await self._connection.meta.release(refs)
            except FsError as error:
                log.info("open files could not be released: %s", error)

    async def flush_all(self) -> None:
        """Before the end. Raises the first error when all have been tried."""
        failed: FsError | None = None
        for shared in list(self._open.values()):
            try:
                await shared.inode.flush()
            except FsError as error:
                failed = failed or error
        if failed is not None:
            raise failed


def _key(inode: OpenInode) -> tuple[int, int]:
    ref = inode.ref
    return ref.ino, ref.generation
