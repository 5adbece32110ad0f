"""Open files: contents, and what close, fsync and the background write back do with them.

All handles of one inode share one `Contents` (superfs.client.file.OpenInode). What is written is
published when the file is closed, on fsync, and at most a second late by `write_back`. An error of
the background is told once to every handle that was open, at its next fsync or close.
"""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from superfs.core.attrs import Set
from superfs.core.errors import Code, FsError
from superfs.mount.handles import FileHandle
from superfs.mount.inodes import has_privileges
from superfs.rpc.bridge import drive

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Caller
    from superfs.mount.atimes import Atimes
    from superfs.mount.mounted import Contents, Mounted
    from superfs.mount.nodes import Node

FLUSHES_MAX = 8

log = logging.getLogger("superfs.mount.files")


@dataclass(slots=True, eq=False)
class OpenFile:
    node: Node
    contents: Contents
    handles: list[FileHandle] = field(default_factory=list)
    dirty_since: float | None = None

    def adopt(self, attr: Attr) -> None:
        self.contents.adopt(attr)

    async def flush(self) -> None:
        since, self.dirty_since = self.dirty_since, None
        try:
            await drive(self.contents.flush())
        except BaseException:
            self.dirty_since = self.dirty_since or since
            raise
        finally:
            self.node.encoded = None

    async def fsync(self) -> None:
        since, self.dirty_since = self.dirty_since, None
        try:
            await drive(self.contents.fsync())
        except BaseException:
            self.dirty_since = self.dirty_since or since
            raise
        finally:
            self.node.encoded = None

    async def truncate(self, size: int) -> None:
        try:
            await drive(self.contents.truncate(size))
        finally:
            self.node.encoded = None


class Files:
    def __init__(self, mounted: Mounted, atimes: Atimes) -> None:
        self._m = mounted
        self._atimes = atimes
        self._open: dict[OpenFile, None] = {}

    # ---- open and release

    def open_cached(self, node: Node, flags: int, caller: Caller) -> FileHandle | None:
        """Without asking, where the attributes are still good and nothing is to be cut."""
        attr = self._m.known_attr(node)
        if attr is None or flags & os.O_TRUNC:
            return None
        return self._attach(node, attr, flags, caller)

    async def open(self, node: Node, flags: int, caller: Caller) -> FileHandle:
        attr = await self._m.attr(node)
        handle = self._attach(node, attr, flags, caller)
        try:
            if flags & os.O_TRUNC:
                await self._cut(handle, caller)
        except BaseException:
            await self.release(handle)
            raise
        return handle

    async def _cut(self, handle: FileHandle, caller: Caller) -> None:
        await handle.file.truncate(0)
        await self._drop_privileges(handle, caller)

    def _attach(self, node: Node, attr: Attr, flags: int, caller: Caller) -> FileHandle:
        if not stat.S_ISREG(attr.mode):
            raise FsError(Code.IS_DIRECTORY if attr.is_dir else Code.INVALID, "open")
        file = node.file
        if file is None:
            node.file = file = OpenFile(node, self._m.contents_of(attr))
            node.encoded = None
            self._open[file] = None
            self._m.opens.opened(node)
        handle = FileHandle(
            node,
            file,
            append=bool(flags & os.O_APPEND),
            sync=self._m.options.sync or bool(flags & (os.O_SYNC | os.O_DSYNC)),
            unprivileged=caller.uid != 0,
            touches=not flags & os.O_NOATIME,
        )
        file.handles.append(handle)
        return handle

    def may_keep_pages(self, node: Node) -> bool:
        """Whether what the kernel has in its page cache is what the server has now."""
        assert node.file is not None
        a = node.file.contents.attr
        pages = (a.data_generation, a.size, a.mtime_ns, a.ctime_ns)
        keep = node.pages_of == pages
        node.pages_of = pages
        return keep

    async def release(self, handle: FileHandle) -> None:
        file = handle.file
        try:
            if len(file.handles) == 1 and file.dirty_since is not None:
                await file.flush()  # pages of a mapping come after the close
        except FsError as error:
            log.error("inode %d: what was written is lost: %s", file.node.ino, error)
        finally:
            file.handles.remove(handle)
            if not file.handles:
                self._detach(file)

    def _detach(self, file: OpenFile) -> None:
        node = file.node
        self._open.pop(file, None)
        if node.file is file:
            attr = file.contents.attr
            node.file = None
            node.encoded = None
            if node.attr is None or attr.change >= node.attr.change:
                node.attr = attr.copy()
            self._m.opens.closed(node)
            if node.nlookup <= 0:
                self._m.nodes.table.pop(node.number, None)

    # ---- contents

    async def read(self, handle: FileHandle, offset: int, size: int) -> bytes:
        if handle.touches:
            handle.touches = False
            self._atimes.touch(handle.node)
        return await drive(handle.file.contents.read(offset, size))

    async def write(self, handle: FileHandle, offset: int, data: bytes, caller: Caller) -> int:
        file = handle.file
        if handle.unprivileged:
            await self._drop_privileges(handle, caller)
        if file.dirty_since is None:
            file.dirty_since = self._m.now()
        if handle.append:
            await self._append(handle, offset, data)
        else:
            await drive(file.contents.write(offset, data))
        file.node.encoded = None
        if handle.sync:
            await file.fsync()
        return len(data)

    async def _append(self, handle: FileHandle, offset: int, data: bytes) -> None:
        """Where the kernel believes the end to be does not count; when it was wrong, its pages
        are too."""
        position = await drive(handle.file.contents.append(data))
        if position != offset:
            self._m.notify.drop_pages(handle.node.number)

    async def _drop_privileges(self, handle: FileHandle, caller: Caller) -> None:
        """As write(2) does. The kernel has left it to us and does not know that the mode changes."""
        node = handle.node
        if handle.unprivileged and has_privileges(handle.file.contents.attr):
            await self._m.ask(self._m.meta.setattr(node.ref, int(Set.KILL_PRIV), caller=caller))
            node.encoded = None
            self._m.notify.drop_attr(node.number)

    # ---- publication

    async def flush(self, handle: FileHandle) -> None:
        """close(2)."""
        if handle.file.dirty_since is not None:
            await handle.file.flush()
        self._tell_error(handle)

    async def fsync(self, handle: FileHandle) -> None:
        await handle.file.fsync()
        self._tell_error(handle)

    def _tell_error(self, handle: FileHandle) -> None:
        error, handle.error = handle.error, None
        if error is not None:
            raise error

    async def write_back(self) -> None:
        """Publishes in the background what has been dirty for too long."""
        limit_s = self._m.options.write_back_s
        while True:
            await trio.sleep(limit_s / 4)
            due = self._m.now() - limit_s
            await self._flush_all(
                [f for f in self._open if f.dirty_since is not None and f.dirty_since <= due]
            )

    async def flush_everything(self) -> None:
        """Before the mount ends."""
        await self._flush_all([f for f in self._open if f.dirty_since is not None])

    async def _flush_all(self, files: list[OpenFile]) -> None:
        limit = trio.CapacityLimiter(FLUSHES_MAX)
        async with trio.open_nursery() as nursery:
            for file in files:
                nursery.start_soon(self._flush_one, file, limit)

    async def _flush_one(self, file: OpenFile, limit: trio.CapacityLimiter) -> None:
        async with limit:
            try:
                await file.flush()
            except FsError as error:
                log.error("inode %d: write back failed: %s", file.node.ino, error)
                for handle in file.handles:
                    handle.error = error
