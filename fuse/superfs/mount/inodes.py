"""Attributes, symbolic links and the figures of the whole file system."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from superfs.core.attrs import Flag, Set
from superfs.core.namespace.outcome import FsStat

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Caller
    from superfs.mount.atimes import Atimes
    from superfs.mount.mounted import Mounted
    from superfs.mount.nodes import Node

FS_STAT_TIMEOUT_S = 1.0


def has_privileges(attr: Attr) -> bool:
    """Bits that a write or a change of owner must clear."""
    mode = attr.mode
    return bool(
        mode & stat.S_ISUID
        or (mode & stat.S_ISGID and mode & stat.S_IXGRP)
        or attr.flags & Flag.HAS_CAPABILITY
    )


class Inodes:
    def __init__(self, mounted: Mounted, atimes: Atimes) -> None:
        self._m = mounted
        self._atimes = atimes
        self._fs_stat = FsStat(0, 0, 0, 0)
        self._fs_stat_expires = 0.0
        self._targets: dict[tuple[int, int], bytes] = {}

    async def setattr(
        self,
        node: Node,
        mask: Set,
        caller: Caller,
        *,
        mode: int = 0,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        atime_ns: int = 0,
        mtime_ns: int = 0,
    ) -> Attr:
        m = self._m
        if mask & Set.ATIME:
            self._atimes.overruled(node)
        values = {
            "mode": stat.S_IMODE(mode),
            "uid": uid,
            "gid": gid,
            "size": size,
            "atime_ns": atime_ns,
            "mtime_ns": mtime_ns,
        }
        if not mask:
            return await m.attr(node)
        contents = None if node.file is None else node.file.contents
        with m.changing(node):
            if contents is not None:
                # In order with what is being written: a later publication must not undo it.
                attr = await m.call(contents.setattr(int(mask), caller=caller, **values))
                m.cache.store(node, attr, node.lease)  # a recall meanwhile has ended it
            elif mask & Set.SIZE:
                with m.contents.changing(node):
                    await m.ask(m.meta.setattr(node.ref, int(mask), caller=caller, **values))
            else:
                await m.ask(m.meta.setattr(node.ref, int(mask), caller=caller, **values))
        node.packed = None
        return await m.attr(node)

    def known_target(self, node: Node) -> bytes | None:
        return self._targets.get((node.ino, node.generation))

    async def readlink(self, node: Node) -> bytes:
        """Targets never change while an inode lives."""
        key = (node.ino, node.generation)
        target = self._targets.get(key)
        if target is None:
            outcome = await self._m.ask(self._m.meta.read_inline(node.ref))
            target = outcome.data
            if len(self._targets) >= 10_000:
                self._targets.clear()
            self._targets[key] = target
        return target

    def forget(self, node: Node) -> None:
        self._targets.pop((node.ino, node.generation), None)

    async def statfs(self) -> FsStat:
        m = self._m
        if m.now() >= self._fs_stat_expires:
            asked = m.now()
            outcome = await m.call(m.meta.statfs())
            assert outcome.fs_stat is not None
            self._fs_stat = outcome.fs_stat
            self._fs_stat_expires = asked + FS_STAT_TIMEOUT_S
        return self._fs_stat
