"""Attributes, symbolic links and the figures of the whole file system."""

from __future__ import annotations

import stat
from contextlib import nullcontext
from typing import TYPE_CHECKING

from superfs.core.namespace.bits import HAS_CAPABILITY, SET_ATIME, SET_KILL_PRIV, SET_SIZE
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
        or attr.flags & HAS_CAPABILITY
    )


def is_setgid_alone(attr: Attr) -> bool:
    """Without group execution: who is in the group keeps it, so that all groups have to be known of
    whoever changes the file."""
    return not attr.is_dir and attr.mode & (stat.S_ISGID | stat.S_IXGRP) == stat.S_ISGID


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
        mask: int,
        caller: Caller,
        *,
        mode: int = 0,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        atime_ns: int = 0,
        mtime_ns: int = 0,
    ) -> None:
        """The attributes of the node are good afterwards."""
        m = self._m
        if mask & SET_ATIME:
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
            # A chown to nobody, or the kernel before somebody writes: all that changes is this.
            attr = await m.attr(node)
            if caller.uid == 0 or attr.is_dir:
                return
            if not (has_privileges(attr) or is_setgid_alone(attr)):
                return
            mask = SET_KILL_PRIV
        contents = None if node.file is None else node.file.contents
        with m.changing(node):
            if contents is not None:
                # In order with what is being written: a later publication must not undo it.
                attr = await m.call(contents.setattr(mask, caller=caller, **values))
                m.cache.store(node, attr, node.lease)  # a recall meanwhile has ended it
            elif mask & SET_SIZE:
                with m.contents.changing(node):
                    await m.ask(m.meta.setattr(node.ref, mask, caller=caller, **values))
            else:
                await m.ask(m.meta.setattr(node.ref, mask, caller=caller, **values))
        node.packed = None
        if m.cache.fresh(node, m.now()) is None:
            await m.fetch(node)

    def setattr_here(self, node: Node, mask: int, caller: Caller, **values: int) -> bool:
        """Where this mount may do it by itself. False: it cannot be done here."""
        m, here = self._m, self._m.meta.here
        if here is None or not mask:
            return False
        m.change_here(node)
        contents = None if node.file is None else node.file.contents
        if contents is not None:
            attr = contents.setattr_here(mask, caller=caller, **values)
            if attr is None:
                return False
            m.cache.store(node, attr, node.lease)
        else:
            with m.contents.changing(node) if mask & SET_SIZE else nullcontext():
                outcome = here.setattr_here(node.ref, mask, caller=caller, **values)
            if outcome is None:
                return False
            m.done_here(outcome)
        if mask & SET_ATIME:
            self._atimes.overruled(node)
        node.packed = None
        return True

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
