"""Everything that one mount consists of, put together; and what it does in the background."""

from __future__ import annotations

import logging
import os
import stat
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from superfs.client.leases import lease_clock
from superfs.core.errors import Code, FsError
from superfs.core.limits import MIB
from superfs.mount.atimes import Atimes
from superfs.mount.attrcache import AttrCache
from superfs.mount.encode import Validity
from superfs.mount.files import Files
from superfs.mount.guard import Unguarded
from superfs.mount.handles import DirHandle, FileHandle, Handles
from superfs.mount.inodes import Inodes
from superfs.mount.leases import Leases
from superfs.mount.listings import Listings
from superfs.mount.memory import Memory
from superfs.mount.mounted import Mounted
from superfs.mount.names import Names
from superfs.mount.nodes import Nodes
from superfs.mount.notify import Notify
from superfs.mount.opens import Opens
from superfs.mount.prefetch import Prefetch
from superfs.mount.xattrs import Xattrs
from superfs.rpc.bridge import drive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from superfs.client.meta import MetaClient
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Caller, Ref
    from superfs.mount.mounted import Contents
    from superfs.mount.nodes import Node
    from superfs.mount.notify import Kernel
    from superfs.mount.options import MountOptions
    from superfs.mount.prefetch import BulkReader

log = logging.getLogger("superfs.mount")


@dataclass(slots=True)
class Services:
    mounted: Mounted
    names: Names
    inodes: Inodes
    xattrs: Xattrs
    files: Files
    listings: Listings
    atimes: Atimes
    prefetch: Prefetch
    memory: Memory
    validity: Validity
    handles: Handles[FileHandle] = field(default_factory=Handles)
    dirs: Handles[DirHandle] = field(default_factory=Handles)

    @classmethod
    def make(
        cls,
        meta: MetaClient,
        contents_of: Callable[[Attr], Contents],
        options: MountOptions,
        root: Ref,
        *,
        data: BulkReader | None = None,
        kernel: Kernel | None = None,
        guard: Unguarded | None = None,
        now: Callable[[], float] = lease_clock,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> Services:
        nodes = Nodes(root)
        mounted = Mounted(
            meta,
            contents_of,
            options,
            nodes,
            AttrCache(nodes.held),
            Opens(meta, options.release_delay_s, now),
            Notify(kernel),
            Leases(),
            now,
            wall_ns,
            guard or Unguarded(),
        )
        atimes = Atimes(mounted)
        names = Names(mounted)
        prefetch = Prefetch(mounted, data)
        return cls(
            mounted,
            names,
            Inodes(mounted, atimes),
            Xattrs(mounted),
            Files(mounted, atimes, prefetch),
            Listings(mounted, names, atimes),
            atimes,
            prefetch,
            Memory(mounted, options.memory_max * MIB, forgotten=prefetch.unfollow),
            Validity(mounted.guard, mounted.watched),
        )

    async def create_open(
        self, parent: Node, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[Node, FileHandle]:
        """open(O_CREAT): the node is not counted yet."""
        mode = stat.S_IFREG | stat.S_IMODE(mode)
        exclusive = bool(flags & os.O_EXCL)
        node, new = await self.names.create(parent, name, mode, caller, exclusive=exclusive)
        attr = node.attr
        assert attr is not None
        if new:
            # Nothing is asked: if somebody has removed it by now, that came after the open.
            return node, self.files.attach(node, attr, flags, caller)
        if attr.is_symlink:
            raise FsError(Code.STALE, "another client was faster: look again")
        return node, await self.files.open(node, flags, caller)

    def create_open_here(
        self, parent: Node, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[Node, FileHandle] | None:
        """As `create_open`, of a new file that this mount may make by itself; None: it cannot be
        done here."""
        mode, exclusive = stat.S_IFREG | stat.S_IMODE(mode), bool(flags & os.O_EXCL)
        node = self.names.create_here(parent, name, mode, caller, exclusive=exclusive)
        if node is None:
            return None
        assert node.attr is not None
        return node, self.files.attach(node, node.attr, flags, caller)

    def forget(self, forgotten: Iterable[tuple[int, int]]) -> None:
        """The kernel counts so many look-ups less of each inode."""
        for node in self.mounted.nodes.forget(forgotten):
            self.mounted.cache.forget(node)
            self.mounted.opens.forgotten(node)
            self.inodes.forget(node)
            self.prefetch.forget(node)
            self.mounted.watched.forget(node.number)

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.mounted.opens.run)
            nursery.start_soon(self.atimes.run)
            nursery.start_soon(self.prefetch.run)
            nursery.start_soon(self.mounted.notify.run)
            nursery.start_soon(self.memory.run)

    async def sync(self) -> int:
        """Everything that was done through this mount is on disk, but for so many files that could
        not be written."""
        unwritten = await self.files.flush_everything()
        if self.prefetch.data is not None:
            await drive(self.prefetch.data.commit())
        await drive(self.mounted.meta.sync())
        return unwritten

    async def finish(self) -> None:
        """Whatever waits in memory goes to the daemons. What cannot go keeps nothing else."""
        await self.files.flush_everything()
        try:
            await drive(self.mounted.meta.sync())
        except FsError as error:
            log.error("what was done last is not shipped: %s", error)
        await self.atimes.ship()
        await self.mounted.opens.settle(everything=True)
