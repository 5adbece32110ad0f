"""Names: look-up, and everything that makes, moves or removes one.

The kernel holds the directory while it asks for any of these, so that this mount never runs two of
them on one name at the same time.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.namespace.names import check_name
from superfs.mount.leases import NEVER
from superfs.mount.nodes import Census, Walk

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Caller
    from superfs.mount.leases import Grant
    from superfs.mount.mounted import Mounted
    from superfs.mount.nodes import Node

RENAME_EXCHANGE = 2
WALK_STEPS = 4
WALK_WIDTH_MIN, WALK_WIDTH_MAX = 32, 1024
MISSES_MAX = 3
"""After so many names of one directory that had to be asked, the directory is asked for whole, if
it is not too big to be remembered,"""
PAGE_ENTRIES, MISSES_PER_PAGE = 1024, 16
"""a page after every so many further ones: about what they cost;"""
MISSES_FORGIVEN = 61
"""and not again before so many: it may be too busy for a lease."""


class Names:
    def __init__(self, mounted: Mounted) -> None:
        self._m = mounted
        self.asked = 0
        """Look-ups that memory could not answer."""

    def cached(self, parent: Node, name: bytes) -> Node | None:
        """Without asking: a name, and attributes, that are still good. NOT_FOUND where it is good
        to say that there is none."""
        now = self._m.now()
        contention = parent.contention
        if contention is not None and now >= contention.until:
            parent.contention = contention = None
        found = self._m.cache.resolve(parent, name, now)
        if found is None:
            return None
        node, lease = found
        if node is None:
            check_name(name)
            raise FsError(Code.NOT_FOUND)
        node.named = lease if contention is None else NEVER
        return node if now < node.lease.until and not node.changing else None

    async def find(self, parent: Node, name: bytes) -> Node:
        """For the kernel, which believes this name of this node from now on, whatever it believed
        before: so much is in no doubt. (Where the name has changed since it was asked for, it
        believes it for this once.)"""
        node = self.cached(parent, name)
        if node is None:
            node = await self.lookup(parent, name)
        if node.doubts:
            node.doubts.pop((parent.number, name), None)
        return node

    async def lookup(self, parent: Node, name: bytes) -> Node:
        self.asked += 1
        parent.misses += 1
        if parent.misses > MISSES_MAX:
            parent.misses -= MISSES_FORGIVEN
            if await self._learn_page(parent):
                parent.misses += MISSES_FORGIVEN - MISSES_PER_PAGE
            node = self.cached(parent, name)
            if node is not None:
                return node
        walk = parent.walk
        if walk is not None and walk.steps >= WALK_STEPS and name > walk.last:
            node = await self._lookup_ahead(parent, name, walk)
            if node is not None:
                return node
        changes = parent.changes
        outcome, grant = await self._m.consult(self._m.meta.find_name(parent.ref, name), parent)
        if outcome.attr is None:
            if not self._may_be_kept(parent):
                parent.misses -= 1  # to know all names there would spare no such question
            self._m.cache.learn(parent, name, None, grant.names(parent.ino), changes)
            raise FsError(Code.NOT_FOUND)
        walk = parent.walk
        if walk is None or name <= walk.last:
            parent.walk = Walk(name)
        else:
            walk.last = name
            walk.steps += 1
        return self._found(parent, name, outcome.attr, grant, changes)

    def _may_be_kept(self, parent: Node) -> bool:
        """Whole: then it is also known what is not in it."""
        return parent.attr is None or parent.attr.size <= self._m.options.kept_entries_max

    async def _learn_page(self, parent: Node) -> bool:
        """The next page of a directory that is being learned whole. True: it goes on. Of one that
        is too big to be kept so, the names are learned one by one, as by look-ups."""
        m, changes = self._m, parent.changes
        census, parent.census = parent.census, None  # nobody else fetches the same page
        if parent.attr is not None and parent.attr.size > m.options.learned_entries_max:
            return False
        after = b"" if census is None else census.after
        try:
            outcome, grant = await m.consult(
                m.meta.read_dir(parent.ref, after=after, limit=PAGE_ENTRIES), parent
            )
        except FsError:
            return False  # the look-up itself will tell
        lease = grant.names(parent.ino)
        if census is None:
            census = Census(lease, changes)
        for entry in outcome.entries:
            node = self._found(parent, entry.name, entry.attr, grant, changes)
            census.entries[entry.name] = node
            census.after = entry.name
        if not self._may_be_kept(parent):
            census.entries.clear()
            parent.census = census if outcome.more and lease.until else None
            return parent.census is not None
        if lease is not census.lease or parent.changes != census.changes:
            return False  # one page may know what another does not
        if outcome.more:
            parent.census = census
            return True
        above = parent.number
        if parent is not m.nodes.root:
            above = m.nodes.number_of(outcome.number)
        m.cache.keep_listing(parent, census.entries, above, lease, changes)
        return False

    async def _lookup_ahead(self, parent: Node, name: bytes, walk: Walk) -> Node | None:
        """Somebody goes through a directory name by name, in the order of its listing: the names
        to come are fetched with this one, more each time. None: ask for the name alone."""
        m = self._m
        walk.width = min(max(WALK_WIDTH_MIN, 2 * walk.width), WALK_WIDTH_MAX)
        await m.room()
        changes = parent.changes
        try:
            outcome, grant = await m.consult(
                m.meta.read_dir(parent.ref, after=walk.last, limit=walk.width), parent
            )
        except FsError:
            parent.walk = None  # not ours to list, or gone: the look-up itself will tell
            return None
        found = None
        for entry in outcome.entries:
            assert entry.attr is not None, "a listing with attributes"
            node = self._found(parent, entry.name, entry.attr, grant, changes)
            if entry.name == name:
                found = node
        if found is None:
            parent.walk = None
        else:
            walk.last = outcome.entries[-1].name
        return found

    def _found(
        self, parent: Node, name: bytes, attr: Attr | None, grant: Grant, changes: int
    ) -> Node:
        assert attr is not None
        node = self._m.nodes.of(attr)
        self._m.store(node, attr, grant.attr(attr))
        node.found_in(parent)
        self._m.cache.learn(parent, name, node, grant.names(parent.ino), changes)
        return node

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

    async def mkdir(self, parent: Node, name: bytes, mode: int, caller: Caller) -> Node:
        version = self._m.nodes.version_for(parent, name)
        with self._m.changing(names=[(parent, name)]):
            outcome, grant = await self._m.consult(
                self._m.meta.mkdir(parent.ref, name, mode, version_min=version, caller=caller),
                parent,
            )
        node = self._made(parent, name, outcome.attr, grant)
        self._m.cache.keep_listing(node, {}, parent.number, grant.names(node.ino), node.changes)
        return node

    async def link(self, node: Node, parent: Node, name: bytes, caller: Caller) -> Node:
        with self._m.changing(node, names=[(parent, name)]):
            outcome, grant = await self._m.consult(
                self._m.meta.link(node.ref, parent.ref, name, caller=caller), parent
            )
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
            self._left(parent, name, grant)
            self._changed_besides(outcome.other, target)
            self._removed(outcome.other, keep=keep)

    async def rmdir(self, parent: Node, name: bytes, caller: Caller) -> None:
        m = self._m
        with m.changing(m.cache.last_known(parent, name), names=[(parent, name)]):
            _, grant = await m.consult(m.meta.rmdir(parent.ref, name, caller=caller), parent)
        self._left(parent, name, grant)

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
        # Who replaces a file does so for readers who must always find one: what they have found
        # stays until the kernel has forgotten it.
        keep = not flags & RENAME_EXCHANGE
        believed = m.cache.last_known(old_parent, old_name)
        replaced = m.cache.last_known(new_parent, new_name)
        both = [(old_parent, old_name), (new_parent, new_name)]
        sure = not any(m.notify.is_dropping(parent.number, name) for parent, name in both)
        with m.changing(believed, replaced, names=both):
            changes = old_parent.changes, new_parent.changes
            outcome, grant = await m.consult(
                m.meta.rename(
                    old_parent.ref, old_name, new_parent.ref, new_name,
                    flags=flags, keep=keep, caller=caller,
                ),
                old_parent,
                new_parent,
            )  # fmt: skip
            sure = sure and changes == (old_parent.changes, new_parent.changes)
        self._moved_in(*both)
        if not keep:
            self._moved_in(*reversed(both))
        right = _is_of(believed, outcome.attr) and (keep or _is_of(replaced, outcome.other))
        self._changed_besides(outcome.attr, believed, replaced)
        self._changed_besides(outcome.other, believed, replaced)
        if not sure or not right:
            # The kernel moves what it believes to be there, and that may be something else.
            m.drop_names(new_parent, [(new_name, believed)])
            m.drop_names(old_parent, [(old_name, replaced)])
        if keep:
            self._removed(outcome.other, keep=True)
        self._moved(new_parent, new_name, outcome.attr, grant)
        if flags & RENAME_EXCHANGE:
            self._moved(old_parent, old_name, outcome.other, grant)
        elif _is_gone(outcome.attr) and (old_parent, old_name) != (new_parent, new_name):
            self._left(old_parent, old_name, grant)

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
