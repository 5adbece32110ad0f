"""Names: look-up, and everything that makes, moves or removes one.

The kernel holds the directory while it asks for any of these, so that this mount never runs two of
them on one name at the same time.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.mount.nodes import Walk

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.core.namespace.outcome import Outcome
    from superfs.core.namespace.txn import Caller
    from superfs.mount.mounted import Mounted
    from superfs.mount.nodes import Node

RENAME_EXCHANGE = 2
WALK_STEPS = 4
WALK_WIDTH_MIN, WALK_WIDTH_MAX = 32, 1024


class Names:
    def __init__(self, mounted: Mounted) -> None:
        self._m = mounted

    def cached(self, parent: Node, name: bytes) -> Node | None:
        """Without asking: a name, and attributes, that are still good."""
        m = self._m
        now = m.now()
        node = m.cache.resolve(parent, name, now)
        if node is None:
            return None
        node = m.nodes.table.get(node.number, node)
        return node if now < node.expires else None

    async def lookup(self, parent: Node, name: bytes) -> Node:
        walk = parent.walk
        if walk is not None and walk.steps >= WALK_STEPS and name > walk.last:
            node = await self._lookup_ahead(parent, name, walk)
            if node is not None:
                return node
        changes, asked = parent.changes, self._m.now()
        outcome = await self._m.ask(self._m.meta.lookup(parent.ref, name))
        walk = parent.walk
        if walk is None or name <= walk.last:
            parent.walk = Walk(name)
        else:
            walk.last = name
            walk.steps += 1
        return self._found(parent, name, outcome, asked, changes)

    async def _lookup_ahead(self, parent: Node, name: bytes, walk: Walk) -> Node | None:
        """Somebody goes through a directory name by name, in the order of its listing: the names
        to come are fetched with this one, more each time. None: ask for the name alone."""
        m = self._m
        walk.width = min(max(WALK_WIDTH_MIN, 2 * walk.width), WALK_WIDTH_MAX)
        changes, asked = parent.changes, m.now()
        try:
            outcome = await m.ask(m.meta.read_dir(parent.ref, after=walk.last, limit=walk.width))
        except FsError:
            parent.walk = None  # not ours to list, or gone: the look-up itself will tell
            return None
        found = None
        for entry in outcome.entries:
            assert entry.attr is not None, "a listing with attributes"
            node = self._node_of(parent, entry.attr, asked)
            m.cache.learn(parent, entry.name, node, asked, changes)
            if entry.name == name:
                found = node
        if found is None:
            parent.walk = None
        else:
            walk.last = outcome.entries[-1].name
        return found

    def _found(
        self, parent: Node, name: bytes, outcome: Outcome, asked: float, changes: int
    ) -> Node:
        assert outcome.attr is not None
        node = self._node_of(parent, outcome.attr, asked)
        self._m.cache.learn(parent, name, node, asked, changes)
        return node

    def _node_of(self, parent: Node, attr: Attr, asked: float) -> Node:
        node = self._m.nodes.of(attr)
        self._m.store(node, attr, asked)
        node.parent = parent.number
        return node

    def _made(self, parent: Node, name: bytes, outcome: Outcome, asked: float) -> Node:
        """A name that this mount has just made."""
        self._m.cache.changed(parent, name)
        return self._found(parent, name, outcome, asked, parent.changes)

    async def create(
        self,
        parent: Node,
        name: bytes,
        mode: int,
        caller: Caller,
        *,
        rdev: int = 0,
        target: bytes = b"",
        exclusive: bool = True,
    ) -> tuple[Node, bool]:
        """A file of any type but a directory, and True; not `exclusive`: or the file that is
        there, and False."""
        self._m.cache.changed(parent, name)
        asked = self._m.now()
        outcome = await self._m.ask(
            self._m.meta.create(
                parent.ref, name, mode,
                rdev=rdev, target=target, exclusive=exclusive, caller=caller,
            )
        )  # fmt: skip
        return self._made(parent, name, outcome, asked), bool(outcome.number)

    async def mkdir(self, parent: Node, name: bytes, mode: int, caller: Caller) -> Node:
        self._m.cache.changed(parent, name)
        asked = self._m.now()
        version = self._m.nodes.version_for(parent, name)
        outcome = await self._m.ask(
            self._m.meta.mkdir(parent.ref, name, mode, version_min=version, caller=caller)
        )
        return self._made(parent, name, outcome, asked)

    async def link(self, node: Node, parent: Node, name: bytes, caller: Caller) -> Node:
        self._m.cache.changed(parent, name)
        asked = self._m.now()
        outcome = await self._m.ask(self._m.meta.link(node.ref, parent.ref, name, caller=caller))
        return self._made(parent, name, outcome, asked)

    async def unlink(self, parent: Node, name: bytes, caller: Caller) -> None:
        m = self._m
        target = m.cache.last_known(parent, name)
        if target is not None:
            await m.opens.before_unlink(target)
        m.cache.changed(parent, name)
        with contextlib.ExitStack() as stack:
            # A name that we do not remember may be that of any file that is open here.
            keep = target is None or target.file is not None
            if target is not None and not keep:
                stack.enter_context(m.opens.leaving(target))
            outcome = await m.ask(m.meta.unlink(parent.ref, name, keep=keep, caller=caller))
            m.cache.changed(parent, name)
            self._removed(outcome.other, keep=keep)

    async def rmdir(self, parent: Node, name: bytes, caller: Caller) -> None:
        m = self._m
        m.cache.changed(parent, name)
        await m.ask(m.meta.rmdir(parent.ref, name, caller=caller))
        m.cache.changed(parent, name)

    async def rename(
        self,
        old_parent: Node,
        old_name: bytes,
        new_parent: Node,
        new_name: bytes,
        flags: int,
        caller: Caller,
    ) -> None:
        m = self._m
        if flags & ~3:
            raise FsError(Code.INVALID, f"rename flags {flags:#x}")
        # Who replaces a file does so for readers who must always find one: what they have found
        # stays until the kernel has forgotten it.
        keep = not flags & RENAME_EXCHANGE
        self._renaming(old_parent, old_name, new_parent, new_name)
        outcome = await m.ask(
            m.meta.rename(
                old_parent.ref, old_name, new_parent.ref, new_name,
                flags=flags, keep=keep, caller=caller,
            )
        )  # fmt: skip
        self._renaming(old_parent, old_name, new_parent, new_name)
        if keep:
            self._removed(outcome.other, keep=True)
        self._moved(outcome.attr, new_parent)
        if flags & RENAME_EXCHANGE:
            self._moved(outcome.other, old_parent)

    def _renaming(self, old_parent: Node, old: bytes, new_parent: Node, new: bytes) -> None:
        self._m.cache.changed(old_parent, old)
        self._m.cache.changed(new_parent, new)

    def _moved(self, attr: Attr | None, parent: Node) -> None:
        node = None if attr is None else self._m.nodes.find(attr.ino)
        if node is not None:
            node.parent = parent.number

    def _removed(self, left: Attr | None, *, keep: bool) -> None:
        """`left`: the inode after it lost a name. With `keep` the server holds what had no other
        name for this mount, also when it was not the inode that we thought."""
        if left is None or left.nlink > 0 or left.is_dir:
            return
        node = self._m.nodes.of(left)
        if keep or node.file is not None:
            self._m.opens.kept(node)
