"""Looking names up: from memory, one by one, or ahead of somebody who goes through a directory.

The kernel holds the directory while it asks, so that this mount never runs two questions about one
name at the same time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.namespace.names import check_name
from superfs.mount.leases import NEVER
from superfs.mount.nodes import Census, Walk

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.mount.leases import Grant
    from superfs.mount.mounted import Mounted
    from superfs.mount.nodes import Node

WALK_STEPS = 4
WALK_WIDTH_MIN, WALK_WIDTH_MAX = 32, 1024
MISSES_MAX = 3
"""After so many names of one directory that had to be asked, the directory is asked for whole, if
it is not too big to be remembered,"""
PAGE_ENTRIES, MISSES_PER_PAGE = 1024, 16
"""a page after every so many further ones: about what they cost;"""
MISSES_FORGIVEN = 61
"""and not again before so many: it may be too busy for a lease."""


class Lookups:
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
