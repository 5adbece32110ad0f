"""The adapter between pyfuse3 and the operations of a mount. Nothing is decided here.

Here comes what the desk (superfs.mount.desk) could not answer from memory; reads, writes and
closes never do.

What pyfuse3 3.5 cannot express, and programs therefore do not get:

* flock and fcntl locks across mounts: the kernel keeps locks local to one mount;
* fallocate (EOPNOTSUPP), punching holes, SEEK_HOLE and SEEK_DATA (a file looks dense);
* copy_file_range and reflinks (the kernel copies through the mount);
* O_TMPFILE, ioctl, statx's birth time;
* atomic XATTR_CREATE and XATTR_REPLACE across mounts (pyfuse3 reads first, then sets).

`served` is the only place where errors change language: an FsError becomes its errno, anything
else is a bug of ours: logged with its trace, answered with EIO. Nothing ends the main loop.
"""

from __future__ import annotations

import errno
import functools
import logging
import stat
import time
from typing import TYPE_CHECKING, Any, TypeVar

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, StatvfsData

from superfs.core.errors import Code, FsError
from superfs.core.namespace.bits import (
    SET_ATIME,
    SET_GID,
    SET_MODE,
    SET_MTIME,
    SET_SIZE,
    SET_UID,
)
from superfs.core.namespace.txn import Caller
from superfs.mount.encode import (
    dot,
    encode,
    encode_statfs,
    is_new_in_contention,
    may_be_taken_in_late,
    negative,
)
from superfs.mount.inodes import is_setgid_alone
from superfs.mount.leases import NEVER
from superfs.mount.listings import DOTS, SERIES
from superfs.mount.xattrs import ACL_ACCESS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyfuse3 import ReaddirToken, RequestContext, SetattrFields

    from superfs.mount.handles import DirHandle
    from superfs.mount.meter import Meter
    from superfs.mount.nodes import Node
    from superfs.mount.services import Services

F = TypeVar("F", bound="Callable[..., Awaitable[Any]]")
CALLERS_MAX = 1024
RUN_ENTRIES = 256  # about what fits into one answer to a readdir

log = logging.getLogger("superfs.mount")


def served(handler: F) -> F:
    """Counts and times a handler, and turns what it raises into an errno."""
    name = handler.__name__
    clock = time.perf_counter_ns

    @functools.wraps(handler)
    async def wrapper(self: Operations, *args: Any) -> Any:  # noqa: ANN401
        started = clock()
        gauge = self.gauges[name]
        try:
            return await handler(self, *args)
        except FsError as error:
            gauge.errors += 1
            if error.code is Code.STALE:
                self._m.disbelieve(args[0])
            raise FUSEError(error.errno) from None
        except FUSEError:
            gauge.errors += 1
            raise
        except Exception:
            gauge.errors += 1
            log.exception("a bug in the mount, answered with EIO: %s%r", name, args[:2])
            raise FUSEError(errno.EIO) from None
        finally:
            gauge.note(clock() - started)

    wrapper.served = True  # type: ignore[attr-defined]
    return wrapper  # type: ignore[return-value]


class Operations(pyfuse3.Operations):
    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, services: Services, meter: Meter) -> None:
        s = self._s = services
        self._m = services.mounted
        self._now = services.mounted.now
        self.enable_acl = s.mounted.options.acl
        self._negative_s = s.mounted.options.negative_timeout_s
        self._callers: dict[tuple[int, int, int], Caller] = {}
        handlers = [n for n in dir(self) if getattr(getattr(self, n), "served", False)]
        self.begun = trio.Event()  # the kernel has asked its first question
        self.gauges = {name: meter.of(name) for name in handlers}

    def init(self) -> None:
        self.begun.set()

    def _caller(self, ctx: RequestContext) -> Caller:
        key = (ctx.uid, ctx.gid, ctx.umask)
        caller = self._callers.get(key)
        if caller is None:
            if len(self._callers) >= CALLERS_MAX:
                self._callers.clear()
            caller = self._callers[key] = Caller(ctx.uid, ctx.gid, umask=ctx.umask)
        return caller

    async def _settled(self, inode: int) -> Node:
        node = self._m.node(inode)
        if node.doubts:
            await self._m.settle(node)
        return node

    def _entry(self, node: Node) -> EntryAttributes:
        return encode(node, self._s.validity, self._now())

    def _counted(self, node: Node, parent: Node) -> EntryAttributes:
        """An answer that the kernel will forget one day."""
        known = self._m.nodes.count(node)
        entry = self._entry(known)
        if is_new_in_contention(parent, known.nlookup):
            entry.attr_timeout = 0
        return entry

    def _made(self, node: Node, parent: Node) -> EntryAttributes:
        """As `_counted`, of a change, which the kernel takes in whatever it has been told
        meanwhile."""
        entry = self._counted(node, parent)
        if may_be_taken_in_late(node, parent):
            entry.attr_timeout = 0
        else:
            node.made = self._now()
        return entry

    # ---- names

    @served
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        parent = self._m.node(parent_inode)
        try:
            return self._counted(await self._s.names.find(parent, name), parent)
        except FsError as error:
            if error.code is Code.NOT_FOUND and self._negative_s > 0:
                return negative(self._negative_s)
            raise

    @served
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        parent, caller = self._m.node(parent_inode), self._caller(ctx)
        node, handle = await self._s.create_open(parent, name, mode, flags, caller)
        opened = self._s.files.opened(handle)
        info = FileInfo(self._s.handles.add(handle), **opened._asdict())
        return info, self._made(node, parent)

    @served
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        parent, caller = self._m.node(parent_inode), self._caller(ctx)
        node, _ = await self._s.names.create(parent, name, mode, caller, rdev=rdev)
        return self._made(node, parent)

    @served
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        parent, caller = self._m.node(parent_inode), self._caller(ctx)
        mode = stat.S_IFLNK | 0o777
        node, _ = await self._s.names.create(parent, name, mode, caller, target=target)
        return self._made(node, parent)

    @served
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext
    ) -> EntryAttributes:
        parent, caller = self._m.node(parent_inode), self._caller(ctx)
        return self._made(await self._s.names.mkdir(parent, name, mode, caller), parent)

    @served
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        node, parent = self._m.named(inode), self._m.node(new_parent_inode)
        linked = await self._s.names.link(node, parent, new_name, self._caller(ctx))
        return self._made(linked, parent)

    @served
    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        await self._s.names.unlink(self._m.node(parent_inode), name, self._caller(ctx))

    @served
    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        await self._s.names.rmdir(self._m.node(parent_inode), name, self._caller(ctx))

    @served
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        old, new = self._m.node(parent_inode_old), self._m.node(parent_inode_new)
        await self._s.names.rename(old, name_old, new, name_new, flags, self._caller(ctx))

    # ---- attributes

    @served
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        node = self._m.node(inode)
        if node.doubts:
            await self._m.settle(node)
        if self._m.known_attr(node) is None:
            await self._m.fetch(node)
        return self._entry(node)

    @served
    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        node = self._m.node(inode)
        if node.doubts:
            await self._m.settle(node)
        caller = self._caller(ctx)
        if ctx.uid and node.attr is not None and is_setgid_alone(node.attr):
            caller = _with_groups(ctx)
        await self._s.inodes.setattr(
            node, mask_of(fields), caller, mode=attr.st_mode, uid=attr.st_uid,
            gid=attr.st_gid, size=attr.st_size, atime_ns=attr.st_atime_ns,
            mtime_ns=attr.st_mtime_ns,
        )  # fmt: skip
        entry = self._entry(node)
        entry.attr_timeout = 0  # the kernel would keep it, whatever it has been told meanwhile
        return entry

    @served
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        return await self._s.inodes.readlink(await self._settled(inode))

    @served
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        return encode_statfs(await self._s.inodes.statfs())

    # ---- extended attributes

    @served
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        return await self._s.xattrs.get(await self._settled(inode), name)

    @served
    async def listxattr(self, inode: int, ctx: RequestContext) -> list[bytes]:
        return await self._s.xattrs.names(await self._settled(inode), ctx.uid)

    @served
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        caller = self._caller(ctx)
        if name == ACL_ACCESS:
            caller = _with_groups(ctx)
        await self._s.xattrs.set(await self._settled(inode), name, value, caller)

    @served
    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        await self._s.xattrs.remove(await self._settled(inode), name, self._caller(ctx))

    # ---- files

    @served
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        node, caller = self._m.node(inode), self._caller(ctx)
        if node.doubts:
            await self._m.settle(node, anew=True)
        files = self._s.files
        handle = files.open_cached(node, flags, caller) or await files.open(node, flags, caller)
        return FileInfo(self._s.handles.add(handle), **files.opened(handle)._asdict())

    @served
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._s.files.fsync(self._s.handles.get(fh))

    @served
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        node = self._s.dirs.get(fh).node
        with self._m.lost.telling(node):
            await self._m.call(self._m.meta.sync())

    # ---- directories

    @served
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        handle = self._s.dirs.get(fh)
        snapshot, index = self._s.listings.reach(handle, start_id)
        first = snapshot.series * SERIES
        for name, number in ((b".", handle.node.number), (b"..", snapshot.parent))[index:]:
            if not pyfuse3.readdir_reply(token, name, dot(number), first + index + 1):
                return
            index += 1
        await self._reply_entries(handle, index - DOTS, token)

    async def _reply_entries(self, handle: DirHandle, index: int, token: ReaddirToken) -> None:
        """From entry `index` on, as many as the kernel's buffer takes."""
        reply, listings = pyfuse3.readdir_reply, self._s.listings
        table, enter, now = self._m.nodes.table, self._m.nodes.enter, self._now()
        contended = handle.node.contention is not None
        assert handle.snapshot is not None
        first = handle.snapshot.series * SERIES
        while not (snapshot := await listings.fetch(handle, index)).ends_at(index):
            start, end, changed = index - snapshot.first, index + RUN_ENTRIES, snapshot.changed
            names, nodes = snapshot.names[index:end], snapshot.nodes[start : start + RUN_ENTRIES]
            asked = [
                name
                for name, node in zip(names, nodes, strict=False)
                if name in changed or node.attr is None
            ]
            current = await listings.current(handle.node, asked)
            for name, node in zip(names, nodes, strict=False):
                index += 1
                if name in current:
                    now_there = current[name]
                    if now_there is None:
                        continue
                    node = now_there
                known = table.get(node.number, node)
                if contended or (name in changed and name not in current):
                    known.named = NEVER  # it has changed since, too
                entry = encode(known, self._s.validity, now)
                if is_new_in_contention(handle.node, known.nlookup + 1):
                    entry.attr_timeout = 0
                if not reply(token, name, entry, first + index + DOTS):
                    return
                known.nlookup += 1
                if known.nlookup == 1:
                    enter(known)


def _with_groups(ctx: RequestContext) -> Caller:
    return Caller(ctx.uid, ctx.gid, groups_of(ctx.pid), ctx.umask)


def groups_of(pid: int) -> frozenset[int]:
    """Supplementary groups; none of a process that we cannot see (it ended, or lives elsewhere)."""
    try:
        return frozenset(pyfuse3.get_sup_groups(pid))
    except (OSError, RuntimeError):
        return frozenset()


def mask_of(fields: SetattrFields) -> int:
    mask = 0
    if fields.update_mode:
        mask |= SET_MODE
    if fields.update_uid:
        mask |= SET_UID
    if fields.update_gid:
        mask |= SET_GID
    if fields.update_size:
        mask |= SET_SIZE
    if fields.update_atime:
        mask |= SET_ATIME
    if fields.update_mtime:
        mask |= SET_MTIME
    return mask
