"""Open files: what open, read, write, close and fsync do with the contents of an inode.

All handles of one inode share one `Contents` (superfs.client.file.OpenInode). What is written is
published when a handle is closed, on fsync, and by the client's write back within a second or so.
Bytes that could not be written are an error of every handle that may write, once, at its next
write, close or fsync.
"""

from __future__ import annotations

import logging
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import trio

from superfs.core.errors import Code, FsError
from superfs.core.linux import is_since
from superfs.core.namespace.bits import SET_KILL_PRIV, SET_SIZE
from superfs.mount.handles import FileHandle, Told
from superfs.mount.inodes import has_privileges
from superfs.rpc.bridge import drive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from superfs.client.sought import Sought
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Caller
    from superfs.mount.atimes import Atimes
    from superfs.mount.mounted import Contents, Mounted
    from superfs.mount.nodes import Node
    from superfs.mount.prefetch import Prefetch

FLUSHES_MAX = 8

log = logging.getLogger("superfs.mount.files")


@dataclass(slots=True, eq=False)
class OpenFile:
    node: Node
    contents: Contents | None = None  # made by the first who reads, writes or syncs
    handles: int = 0
    slot: int = -1  # where the guard finds it
    mapped: bool = False  # and written by way of a mapping, since it was published last

    @property
    def attr(self) -> Attr:
        """With what was written here on top."""
        attr = self.node.attr if self.contents is None else self.contents.attr
        assert attr is not None, "opened without attributes"
        return attr


DIRECT_WRITES_SINCE = (6, 6)
"""Before that Linux the pages of a file stay as they are when somebody writes past them. Some later
ones may still take in a page of before while he writes."""


class Opened(NamedTuple):
    keep_cache: bool
    direct_io: bool


class Files:
    def __init__(self, mounted: Mounted, atimes: Atimes, prefetch: Prefetch) -> None:
        self._m = mounted
        self._atimes = atimes
        self._prefetch = prefetch
        self._open: dict[OpenFile, None] = {}
        self._misses = self._late_hits = 0
        self._unwritten = 0
        self._direct_writes = is_since(DIRECT_WRITES_SINCE)

    # ---- open and release

    def open_cached(self, node: Node, flags: int, caller: Caller) -> FileHandle | None:
        """Without asking, where the attributes are still good and nothing is to be cut."""
        attr = self._m.known_attr(node)
        if attr is None or flags & os.O_TRUNC or self._m.opens.is_leaving(node):
            return None
        return self.attach(node, attr, flags, caller)

    async def open(self, node: Node, flags: int, caller: Caller) -> FileHandle:
        attr = await self._m.attr(node)
        while self._m.opens.is_leaving(node):
            await self._m.opens.left(node)
            attr = await self._m.attr(node)
        handle = self.attach(node, attr, flags, caller)
        try:
            if flags & os.O_TRUNC:
                await self._cut(handle)
        except BaseException:
            await self.release(handle)
            raise
        return handle

    async def _cut(self, handle: FileHandle) -> None:
        contents = await self._contents(handle)
        with self._m.changing(handle.node):
            await self._m.call(contents.setattr(SET_SIZE, size=0, caller=handle.caller))
        handle.node.packed = None
        await self._drop_privileges(handle)

    def attach(self, node: Node, attr: Attr, flags: int, caller: Caller) -> FileHandle:
        if not stat.S_ISREG(attr.mode):
            raise FsError(Code.IS_DIRECTORY if attr.is_dir else Code.INVALID, "open")
        file = node.file
        if file is None:
            if node.gone and not self._m.opens.holds(node):
                raise FsError(Code.STALE, "it was removed before it was opened")
            node.file = file = OpenFile(node, slot=self._m.guard.opened(node.number))
            self._open[file] = None
            if file.slot < 0 and self._m.guard.is_on:
                self._m.notify.drop_attr(node.number)  # it may have been told for long
            self._m.opens.opened(node)
        cached = self._atimes.counts(node)
        if cached and flags & os.O_ACCMODE != os.O_RDONLY:
            self._m.opens.writing(node)
        losses = 0 if file.contents is None else file.contents.losses
        handle = FileHandle(
            node,
            file,
            append=bool(flags & os.O_APPEND),
            sync=self._m.options.sync or bool(flags & (os.O_SYNC | os.O_DSYNC)),
            caller=caller,
            touches=not flags & os.O_NOATIME,
            losses=losses,
            synced=Told(losses),
            direct=flags & (os.O_ACCMODE | os.O_APPEND) == os.O_WRONLY and self._direct_writes,
        )
        file.handles += 1
        if cached and handle.touches and flags & os.O_ACCMODE != os.O_WRONLY:
            self._atimes.touch(node)  # its pages may be in the kernel: no read would come here
        return handle

    def opened(self, handle: FileHandle) -> Opened:
        """What the kernel is told when it has opened a file."""
        return Opened(self._may_keep_pages(handle.node), handle.direct)

    def _may_keep_pages(self, node: Node) -> bool:
        """Whether what the kernel has in its page cache is what the server has now."""
        assert node.file is not None
        a = node.file.attr
        pages = (a.data_generation, a.size, a.mtime_ns, a.ctime_ns)
        keep = node.pages_of == pages
        node.pages_of = pages
        return keep

    def release_now(self, handle: FileHandle) -> bool:
        """Without waiting, where nothing is left to be written; False: nothing was done."""
        file = handle.file
        if file.handles == 1 and file.contents is not None and file.contents.is_dirty:
            return False
        file.handles -= 1
        if not file.handles:
            self._detach(file)
        return True

    async def release(self, handle: FileHandle) -> None:
        file = handle.file
        try:
            contents = file.contents
            if file.handles == 1 and contents is not None and contents.is_dirty:
                await drive(contents.flush())  # pages of a mapping come after the close
        except FsError as error:
            log.error("inode %d: the last close failed: %s", file.node.ino, error)
            if file.contents is not None:
                await drive(file.contents.abandon(lambda: file.handles == 1))
        finally:
            file.handles -= 1
            if not file.handles:
                self._detach(file)

    def _detach(self, file: OpenFile) -> None:
        node = file.node
        self._open.pop(file, None)
        self._m.guard.closed(file.slot)
        self._published(file)
        if node.file is file:
            attr = file.attr
            node.file = None
            if attr is not node.attr:
                node.packed = None
            if node.attr is None or attr.change >= node.attr.change:
                node.attr = attr
            self._keep(node, file)
            self._m.opens.closed(node)
            if node.nlookup <= 0:
                self._m.nodes.leave(node)

    def _keep(self, node: Node, file: OpenFile) -> None:
        """What was written is often read next. The kernel keeps whole pages of it only."""
        known = None if file.contents is None or node.gone else file.contents.settled
        if known is not None and known[1]:
            self._m.contents.keep(node, *known, self._m.contents.clock)

    # ---- contents

    def cached_reads(self) -> tuple[int, int]:
        """Of files that are not open with contents of their own: how many reads memory answered,
        and for how many it had to be filled."""
        return self._m.contents.hits - self._late_hits, self._misses

    def read_now(
        self, handle: FileHandle, offset: int, size: int, *, seek: bool = False
    ) -> bytes | Sought | None:
        """From memory; None: it has to be fetched. `seek`: see OpenInode.read_now."""
        if handle.touches:
            self._touch(handle)
        contents = handle.file.contents
        if contents is None:
            return self._m.contents.peek(handle.node, offset, size)
        return contents.read_now(offset, size, seek=seek)

    def read_soon(
        self, handle: FileHandle, offset: int, size: int, done: Callable[[bytes | None], None]
    ) -> bool:
        """See OpenInode.read_soon."""
        contents = handle.file.contents
        return contents is not None and contents.read_soon(offset, size, done)

    async def read(self, handle: FileHandle, offset: int, size: int) -> bytes:
        if handle.touches:
            self._touch(handle)
        if handle.file.contents is None:
            data = self._m.contents.peek(handle.node, offset, size)
            if data is None:
                self._misses += 1
                with self._m.messages.timed():
                    await self._prefetch.miss(handle.node)
                data = self._m.contents.peek(handle.node, offset, size)
                self._late_hits += data is not None
            if data is not None:
                return data
        contents = handle.file.contents or await self._contents(handle)
        with self._m.messages.timed():
            return await drive(contents.read(offset, size))

    def _touch(self, handle: FileHandle) -> None:
        handle.touches = False
        self._atimes.touch(handle.node)

    async def _contents(self, handle: FileHandle) -> Contents:
        """Made of attributes that are still good."""
        file = handle.file
        if file.contents is None:
            attr = await self._m.attr(handle.node)
            if file.contents is None:
                file.contents = self._m.contents_of(attr)
        return file.contents

    def write_now(self, handle: FileHandle, offset: int, data: bytes | memoryview) -> bool:
        """Into memory, where that is all there is to do; False: nothing was done."""
        contents = handle.file.contents
        if contents is None:
            attr = self._m.known_attr(handle.node)
            if attr is None:
                return False
            contents = handle.file.contents = self._m.contents_of(attr)
        if handle.append or handle.sync or contents.losses != handle.losses:
            return False
        if handle.caller.uid != 0 and has_privileges(handle.file.attr):
            return False
        if not contents.write_now(offset, data):
            return False
        handle.wrote = True
        return True

    async def write(self, handle: FileHandle, offset: int, data: bytes | memoryview) -> int:
        contents = handle.file.contents or await self._contents(handle)
        if handle.caller.uid != 0:
            await self._drop_privileges(handle)
        handle.wrote = True
        with contents.telling(handle):
            if handle.append:
                await self._append(handle, contents, offset, data)
            else:
                await drive(contents.write(offset, data))
            if handle.sync:
                await drive(contents.fsync())
        return len(data)

    async def _append(
        self, handle: FileHandle, contents: Contents, offset: int, data: bytes | memoryview
    ) -> None:
        """Where the kernel believes the end to be does not count; when it was wrong, its pages
        are too."""
        with self._m.changing(handle.node):
            position = await drive(contents.append_at(data))
        if position != offset:
            self._m.notify.drop_pages(handle.node.number)

    async def _drop_privileges(self, handle: FileHandle) -> None:
        """As write(2) does. The kernel leaves it to us and does not know that the mode changes."""
        node, caller = handle.node, handle.caller
        if caller.uid != 0 and has_privileges(handle.file.attr):
            with self._m.changing(node):
                await self._m.ask(self._m.meta.setattr(node.ref, SET_KILL_PRIV, caller=caller))
            node.packed = None
            self._m.notify.drop_attr(node.number)

    # ---- publication

    def has_nothing_to_flush(self, handle: FileHandle) -> bool:
        contents = handle.file.contents
        if contents is None:
            return True
        shown = handle.direct and handle.wrote  # what was mapped before: `_published_by`
        return not shown and contents.is_settled and contents.losses == handle.synced.losses

    def flush_here(self, handle: FileHandle) -> bool:
        """As `flush`, of contents that no data daemon gets now, where this mount tells of them
        later. False: it has to be waited for."""
        contents = handle.file.contents
        assert contents is not None
        if contents.losses != handle.synced.losses or not contents.flush_here():
            return False
        self._published_by(handle)
        return True

    async def flush(self, handle: FileHandle) -> None:
        """close(2)."""
        contents = handle.file.contents
        if contents is not None:
            with _telling(contents, handle):
                await drive(contents.flush())
            self._published_by(handle)

    async def fsync(self, handle: FileHandle) -> None:
        """Of what others wrote here before as well."""
        contents = await self._contents(handle)
        with self._m.lost.telling(handle.node), _telling(contents, handle):
            await drive(contents.fsync())
        self._published_by(handle)

    def _published_by(self, handle: FileHandle) -> None:
        file = handle.file
        self._published(file)
        wrote, handle.wrote = handle.wrote, False
        if wrote and handle.direct and file.handles > 1:
            self._m.notify.drop_pages(file.node.number)  # another one may have mapped them

    def _published(self, file: OpenFile) -> None:
        """Of what is being written the kernel believes no times, and it sorts out what it was told
        before; but not where it writes a mapping back."""
        if file.mapped:
            file.mapped = False
            self._m.notify.drop_attr(file.node.number)

    async def flush_everything(self) -> int:
        """Before the mount ends, or when somebody asks. How many files could not be written."""
        self._unwritten = 0
        limit = trio.CapacityLimiter(FLUSHES_MAX)
        async with trio.open_nursery() as nursery:
            for file in list(self._open):
                if file.contents is not None and file.contents.is_dirty:
                    nursery.start_soon(self._flush_one, file.contents, limit)
        return self._unwritten

    async def _flush_one(self, contents: Contents, limit: trio.CapacityLimiter) -> None:
        async with limit:
            try:
                await drive(contents.fsync())
            except FsError as error:
                self._unwritten += 1
                log.error("inode %d: what was written is lost: %s", contents.attr.ino, error)


@contextmanager
def _telling(contents: Contents, handle: FileHandle) -> Iterator[None]:
    """Of fsync and close: what they have told no write needs to tell any more."""
    try:
        with contents.telling(handle.synced):
            yield
    except FsError:
        handle.losses = handle.synced.losses
        raise
