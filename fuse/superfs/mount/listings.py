"""Reading directories.

A `Snapshot` is what one opendir or rewinddir sees: names in byte order, fetched in pages as the
reader gets on, each page behind the last name of the one before. The cookie of an entry is its
place in the snapshot, so a listing is stable while others change the directory: what was there all
the time comes exactly once. Names that this mount changes meanwhile are looked up again before they
are answered.

The kernel gives to one reader what it keeps of another, by the cookie where the reader stands. So a
cookie says as well which snapshot it is of (`series`), and snapshots that differ never share one.

Of a big directory only the names and one window of inodes are kept. A directory up to
`listing_entries_max` is kept whole, and the next reader starts from memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.mount.leases import NEVER, Lease
from superfs.mount.meter import Hits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from superfs.core.namespace.outcome import Entry
    from superfs.mount.atimes import Atimes
    from superfs.mount.handles import DirHandle
    from superfs.mount.leases import Grant
    from superfs.mount.mounted import Mounted
    from superfs.mount.names import Names
    from superfs.mount.nodes import Node

PAGE_ENTRIES = 1024
DOTS = 2  # "." and ".." come first; they are no entries of the directory
SERIES = 1 << 32
"""Cookies of one snapshot; so many snapshots of one directory have cookies of their own:"""
SERIES_MAX = 1 << 30


@dataclass(slots=True, eq=False)
class Snapshot:
    names: list[bytes]
    nodes: list[Node]  # of names[first:]
    first: int
    complete: bool
    parent: int
    series: int
    lease: Lease = NEVER
    changes: int = 0
    changed: set[bytes] = field(default_factory=set)

    def covers(self, index: int) -> bool:
        return self.first <= index < self.first + len(self.nodes)

    def ends_at(self, index: int) -> bool:
        return self.complete and index >= len(self.names)


class Listings:
    def __init__(self, mounted: Mounted, names: Names, atimes: Atimes) -> None:
        self._m = mounted
        self._names = names
        self._atimes = atimes
        self.kept = Hits()

    # ---- the life of a snapshot

    def reach(self, handle: DirHandle, cookie: int) -> tuple[Snapshot, int]:
        """Where a reader goes on: in its snapshot, from which place."""
        series, place = divmod(cookie, SERIES)
        snapshot = handle.snapshot
        if not place:
            snapshot = self.start(handle)
        elif snapshot is None or snapshot.series != series:
            snapshot = self._join(handle, series) or self.start(handle)
        return snapshot, place

    def _join(self, handle: DirHandle, series: int) -> Snapshot | None:
        """The kernel has shown this reader what it kept of another, and keeps it no more."""
        for snapshot in handle.node.readers or ():
            if snapshot.series == series:
                self.stop(handle)
                return self._reads(handle, snapshot)
        return None

    def start(self, handle: DirHandle) -> Snapshot:
        """From the beginning: from memory where the directory was read a moment ago."""
        self._atimes.touch(handle.node)
        return self.begin(handle)

    def begin(self, handle: DirHandle) -> Snapshot:
        """Nothing of it is read yet."""
        m, node = self._m, handle.node
        self.stop(handle)
        kept = m.cache.listing(node, m.now())
        order = None if kept is None else kept.in_order()
        if kept is not None and order is not None:
            self.kept.hits += 1
            if node.series_of != node.changes:
                _new_series(node)
            snapshot = Snapshot(*order, 0, True, node.parent or kept.parent, node.series)
        else:
            self.kept.misses += 1
            _new_series(node)
            parent = node.parent or node.number
            snapshot = Snapshot([], [], 0, node.gone, parent, node.series, changes=node.changes)
        return self._reads(handle, snapshot)

    def _reads(self, handle: DirHandle, snapshot: Snapshot) -> Snapshot:
        handle.snapshot = snapshot
        if handle.node.readers is None:
            handle.node.readers = []
        handle.node.readers.append(snapshot)
        return snapshot

    def stop(self, handle: DirHandle) -> None:
        snapshot, handle.snapshot = handle.snapshot, None
        readers = handle.node.readers
        if snapshot is not None and readers is not None:
            readers.remove(snapshot)
            if not readers:
                handle.node.readers = None

    # ---- pages

    async def fetch(self, handle: DirHandle, index: int) -> Snapshot:
        """Makes the snapshot cover `index`, or know that the directory ends before it."""
        snapshot = handle.snapshot
        assert snapshot is not None
        while not snapshot.covers(index) and not snapshot.ends_at(index):
            if index < len(snapshot.names):
                await self._fetch_again(handle.node, snapshot, index)
            else:
                await self._fetch_more(handle.node, snapshot)
        return snapshot

    async def _fetch_more(self, node: Node, snapshot: Snapshot) -> None:
        m = self._m
        await m.room()
        changes = node.changes
        after = snapshot.names[-1] if snapshot.names else b""
        outcome, grant = await m.consult(
            m.meta.read_dir(node.ref, after=after, limit=PAGE_ENTRIES), node
        )
        if after != (snapshot.names[-1] if snapshot.names else b""):
            return  # another reader of the same handle was faster
        if outcome.number:
            snapshot.parent = m.nodes.number_of(outcome.number)
        if node.number == m.nodes.root.number:
            snapshot.parent = node.number
        if len(snapshot.names) > m.options.kept_entries_max or (
            snapshot.first + len(snapshot.nodes) < len(snapshot.names)
        ):
            snapshot.first, snapshot.nodes = len(snapshot.names), []
        if not snapshot.names:
            snapshot.lease = grant.names(node.ino)
        elif snapshot.lease is not grant.names(node.ino):
            snapshot.lease = NEVER  # one page may know what another does not
        for entry in outcome.entries:
            snapshot.names.append(entry.name)
            snapshot.nodes.append(self._node_of(node, entry, grant, changes))
        snapshot.complete = not outcome.more
        self._keep(node, snapshot)

    def _keep(self, node: Node, snapshot: Snapshot) -> None:
        whole = snapshot.complete and snapshot.first == 0
        if whole and len(snapshot.names) <= self._m.options.kept_entries_max:
            order = snapshot.names, snapshot.nodes
            self._m.cache.keep_listing(
                node,
                dict(zip(*order, strict=True)),
                snapshot.parent,
                snapshot.lease,
                snapshot.changes,
                order,
            )

    async def _fetch_again(self, node: Node, snapshot: Snapshot, index: int) -> None:
        """A reader went back to where inodes are not kept any more."""
        m = self._m
        changes = node.changes
        names = snapshot.names[index : index + PAGE_ENTRIES]
        outcome, grant = await m.consult(m.meta.get_many(node.ref, names), node)
        found = {entry.name: entry for entry in outcome.entries if entry.code is Code.OK}
        snapshot.first, snapshot.nodes = index, []
        for name in names:
            entry = found.get(name)
            if entry is None:
                snapshot.changed.add(name)
                snapshot.nodes.append(node)  # looked up again before it is answered
            else:
                snapshot.nodes.append(self._node_of(node, entry, grant, changes))

    def _node_of(self, parent: Node, entry: Entry, grant: Grant, changes: int) -> Node:
        m = self._m
        assert entry.attr is not None, "a listing with attributes"
        node = m.nodes.of(entry.attr)
        m.store(node, entry.attr, grant.attr(entry.attr))
        m.cache.learn(parent, entry.name, node, grant.names(parent.ino), changes)
        node.found_in(parent)
        return node

    async def current(self, directory: Node, names: Iterable[bytes]) -> dict[bytes, Node | None]:
        """What names that were changed meanwhile stand for now; None: it is gone."""
        found: dict[bytes, Node | None] = {}
        unknown = []
        for name in names:
            try:
                known = self._names.cached(directory, name)
            except FsError:
                found[name] = None
                continue
            found[name] = known
            if known is None:
                unknown.append(name)
        if unknown:
            found.update(await self._ask(directory, unknown))
        return found

    async def _ask(self, directory: Node, names: list[bytes]) -> dict[bytes, Node]:
        """Those that are there. All with one question: where everything changes, each costs its
        turn."""
        changes = directory.changes
        try:
            outcome, grant = await self._m.consult(
                self._m.meta.get_many(directory.ref, names), directory
            )
        except FsError as error:
            if error.code in (Code.NOT_FOUND, Code.STALE):
                return {}
            raise
        return {
            entry.name: self._node_of(directory, entry, grant, changes)
            for entry in outcome.entries
            if entry.code is Code.OK
        }


def _new_series(node: Node) -> None:
    """What is listed next may be in another order than whatever was listed before."""
    node.series = node.series % SERIES_MAX + 1
    node.series_of = node.changes
