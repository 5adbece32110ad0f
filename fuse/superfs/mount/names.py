"""Names: everything that makes, moves or removes one. Looking them up: lookups.py.

The kernel holds the directory while it asks for any of these, so that this mount never runs two of
them on one name at the same time. What ends in `_here` is done at once, where this mount may do it
by itself and tells of it later (docs/decisions/0019-exclusive-leases.md).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.mount.lookups import Lookups

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.core.namespace.outcome import Outcome
    from superfs.core.namespace.txn import Caller
    from superfs.mount.leases import Grant
    from superfs.mount.nodes import Node

RENAME_EXCHANGE = 2


@dataclass(frozen=True, slots=True)
class Move:
    """A rename, and what we believe to be at both ends of it."""

    old_parent: Node
    old_name: bytes
    new_parent: Node
    new_name: bytes
    flags: int
    believed: Node | None
    replaced: Node | None

    @property
    def names(self) -> list[tuple[Node, bytes]]:
        return [(self.old_parent, self.old_name), (self.new_parent, self.new_name)]

    @property
    def keep(self) -> bool:
        """Who replaces a file does so for readers who must always find one: what they have found
        stays until the kernel has forgotten it."""
        return not self.flags & RENAME_EXCHANGE


class Names(Lookups):
    def _made(self, parent: Node, name: bytes, attr: Attr | None, grant: Grant) -> Node:
        """A name that this mount has just made."""
        return self._found(parent, name, attr, grant, parent.changes)

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
        with self._m.changing(names=[(parent, name)]):
            outcome, grant = await self._m.consult(
                self._m.meta.create(
                    parent.ref, name, mode,
                    rdev=rdev, target=target, exclusive=exclusive, caller=caller,
                ),
                parent,
            )  # fmt: skip
        return self._made(parent, name, outcome.attr, grant), bool(outcome.number)

    def create_here(
        self,
        parent: Node,
        name: bytes,
        mode: int,
        caller: Caller,
        *,
        target: bytes = b"",
        exclusive: bool = True,
    ) -> Node | None:
        """A new file, or symbolic link, where this mount may make it by itself."""
        here = self._m.meta.here
        if here is None:
            return None
        outcome = here.create_here(
            parent.ref, name, mode, target=target, exclusive=exclusive, caller=caller
        )
        if outcome is None or not outcome.number:
            return None
        grant = self._m.done_here(outcome)
        self._m.cache.changed(parent, name)
        return self._made(parent, name, outcome.attr, grant)

    async def mkdir(self, parent: Node, name: bytes, mode: int, caller: Caller) -> Node:
        version = self._m.nodes.version_for(parent, name)
        with self._m.changing(names=[(parent, name)]):
            outcome, grant = await self._m.consult(
                self._m.meta.mkdir(parent.ref, name, mode, version_min=version, caller=caller),
                parent,
            )
        return self._made_directory(parent, name, outcome, grant)

    def mkdir_here(self, parent: Node, name: bytes, mode: int, caller: Caller) -> Node | None:
        here = self._m.meta.here
        if here is None:
            return None
        version = self._m.nodes.version_for(parent, name)
        outcome = here.mkdir_here(parent.ref, name, mode, version_min=version, caller=caller)
        if outcome is None:
            return None
        grant = self._m.done_here(outcome)
        self._m.cache.changed(parent, name)
        return self._made_directory(parent, name, outcome, grant)

    def _made_directory(self, parent: Node, name: bytes, outcome: Outcome, grant: Grant) -> Node:
        node = self._made(parent, name, outcome.attr, grant)
        self._m.cache.keep_listing(node, {}, parent.number, grant.names(node.ino), node.changes)
        return node

    async def link(self, node: Node, parent: Node, name: bytes, caller: Caller) -> Node:
        with self._m.changing(node, names=[(parent, name)]):
            outcome, grant = await self._m.consult(
                self._m.meta.link(node.ref, parent.ref, name, caller=caller), parent
            )
        return self._made(parent, name, outcome.attr, grant)

    def link_here(self, node: Node, parent: Node, name: bytes, caller: Caller) -> Node | None:
        here = self._m.meta.here
        if here is None:
            return None
        self._m.change_here(node)
        outcome = here.link_here(node.ref, parent.ref, name, caller=caller)
        if outcome is None:
            return None
        grant = self._m.done_here(outcome)
        self._m.cache.changed(parent, name)
        return self._made(parent, name, outcome.attr, grant)

    async def unlink(self, parent: Node, name: bytes, caller: Caller) -> None:
        m = self._m
        target = m.cache.last_known(parent, name)
        if target is not None:
            await m.opens.before_unlink(target)
        with contextlib.ExitStack() as stack:
            # A name that we do not remember may be that of any file that is open here.
            keep = target is None or target.file is not None
            if target is not None and not keep:
                stack.enter_context(m.opens.leaving(target))
            with m.changing(target, names=[(parent, name)]):
                outcome, grant = await m.consult(
                    m.meta.unlink(parent.ref, name, keep=keep, caller=caller), parent
                )
            self._unlinked(parent, name, target, outcome, grant, keep=keep)

    def unlink_here(self, parent: Node, name: bytes, caller: Caller) -> bool:
        """Of a file that is not open here, nor kept by the server for this mount. False: it cannot
        be done here."""
        m = self._m
        target, here = m.cache.last_known(parent, name), m.meta.here
        if here is None or target is None or target.file is not None or m.opens.holds(target):
            return False
        if target.attr is None or target.attr.nlink > 1:
            m.change_here(target)  # it is known by another name
        outcome = here.unlink_here(parent.ref, name, caller=caller)
        if outcome is None:
            return False
        grant = m.done_here(outcome)
        m.cache.changed(parent, name)
        self._unlinked(parent, name, target, outcome, grant, keep=False)
        return True

    def _unlinked(
        self,
        parent: Node,
        name: bytes,
        target: Node | None,
        outcome: Outcome,
        grant: Grant,
        *,
        keep: bool,
    ) -> None:
        self._left(parent, name, grant)
        self._changed_besides(outcome.other, target)
        self._removed(outcome.other, keep=keep)

    async def rmdir(self, parent: Node, name: bytes, caller: Caller) -> None:
        m = self._m
        with m.changing(m.cache.last_known(parent, name), names=[(parent, name)]):
            _, grant = await m.consult(m.meta.rmdir(parent.ref, name, caller=caller), parent)
        self._left(parent, name, grant)

    def rmdir_here(self, parent: Node, name: bytes, caller: Caller) -> bool:
        here, target = self._m.meta.here, self._m.cache.last_known(parent, name)
        if here is None:
            return False
        if target is not None:
            self._m.change_here(target)
        outcome = here.rmdir_here(parent.ref, name, caller=caller)
        if outcome is None:
            return False
        grant = self._m.done_here(outcome)
        self._m.cache.changed(parent, name)
        self._left(parent, name, grant)
        return True

    def _left(self, parent: Node, name: bytes, grant: Grant) -> None:
        """A name that this mount has just removed."""
        self._m.cache.learn(parent, name, None, grant.names(parent.ino), parent.changes)

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
        move = self._move(old_parent, old_name, new_parent, new_name, flags)
        sure = self._is_sure(move)
        with m.changing(move.believed, move.replaced, names=move.names):
            changes = old_parent.changes, new_parent.changes
            outcome, grant = await m.consult(
                m.meta.rename(
                    old_parent.ref, old_name, new_parent.ref, new_name,
                    flags=flags, keep=move.keep, caller=caller,
                ),
                old_parent,
                new_parent,
            )  # fmt: skip
            sure = sure and changes == (old_parent.changes, new_parent.changes)
        self._renamed(move, outcome, grant, sure=sure)

    def rename_here(
        self, parent: Node, old_name: bytes, new_name: bytes, flags: int, caller: Caller
    ) -> bool:
        """Within one directory. False: it cannot be done here."""
        m, here = self._m, self._m.meta.here
        if here is None:
            return False
        move = self._move(parent, old_name, parent, new_name, flags)
        for node in (move.believed, move.replaced):
            if node is not None:
                m.change_here(node)
        outcome = here.rename_here(
            parent.ref, old_name, parent.ref, new_name,
            flags=flags, keep=move.keep, caller=caller,
        )  # fmt: skip
        if outcome is None:
            return False
        for place, name in move.names:
            m.cache.changed(place, name)
        self._renamed(move, outcome, m.done_here(outcome), sure=self._is_sure(move))
        return True

    def _move(
        self, old_parent: Node, old_name: bytes, new_parent: Node, new_name: bytes, flags: int
    ) -> Move:
        believed = self._m.cache.last_known(old_parent, old_name)
        replaced = self._m.cache.last_known(new_parent, new_name)
        return Move(old_parent, old_name, new_parent, new_name, flags, believed, replaced)

    def _is_sure(self, move: Move) -> bool:
        return not any(self._m.notify.is_dropping(at.number, name) for at, name in move.names)

    def _renamed(self, move: Move, outcome: Outcome, grant: Grant, *, sure: bool) -> None:
        """`sure`: the kernel believed of both names what we did, all the time."""
        m, believed, replaced = self._m, move.believed, move.replaced
        old, new = move.names
        self._moved_in(old, new)
        if not move.keep:
            self._moved_in(new, old)
        right = _is_of(believed, outcome.attr) and (move.keep or _is_of(replaced, outcome.other))
        self._changed_besides(outcome.attr, believed, replaced)
        self._changed_besides(outcome.other, believed, replaced)
        if not sure or not right:
            # The kernel moves what it believes to be there, and that may be something else.
            m.drop_names(move.new_parent, [(move.new_name, believed)])
            m.drop_names(move.old_parent, [(move.old_name, replaced)])
        if move.keep:
            self._removed(outcome.other, keep=True)
        self._moved(*new, outcome.attr, grant)
        if not move.keep:
            self._moved(*old, outcome.other, grant)
        elif _is_gone(outcome.attr) and old != new:
            self._left(*old, grant)

    def _moved_in(self, old: tuple[Node, bytes], new: tuple[Node, bytes]) -> None:
        """With the name the kernel moves how long it may believe in it."""
        contention, above = new[0].contention, old[0].contention
        if contention is None:
            return
        if above is None or above.may_be_believed(old[1], self._m.now()):
            contention.moved_in(new[1], self._m.believed_until())

    def _moved(self, parent: Node, name: bytes, attr: Attr | None, grant: Grant) -> None:
        if attr is not None:
            self._found(parent, name, attr, grant, parent.changes)

    def _changed_besides(self, attr: Attr | None, *believed: Node | None) -> None:
        """An inode that the change was about, other than we believed: others have changed the name
        just before. The kernel may know it by another name."""
        node = None if attr is None else self._m.nodes.alive(attr.ino)
        if node is not None and node not in believed and node.nlookup > 0:
            self._m.notify.drop_attr(node.number)

    def _removed(self, left: Attr | None, *, keep: bool) -> None:
        """`left`: the inode after it lost a name. With `keep` the server holds what had no other
        name for this mount, also when it was not the inode that we thought."""
        if left is None or left.nlink > 0 or left.is_dir:
            return
        node = self._m.nodes.of(left)
        if keep or node.file is not None:
            self._m.opens.kept(node)


def _is_of(node: Node | None, attr: Attr | None) -> bool:
    if node is None or attr is None:
        return False
    return node.ino == attr.ino and node.generation == attr.generation and not node.doubts


def _is_gone(renamed: Attr | None) -> bool:
    """Whether the old name is surely none any more: nothing is done when both are names of one
    file."""
    return renamed is not None and (renamed.is_dir or renamed.nlink == 1)
