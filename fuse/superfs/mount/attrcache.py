"""What was answered about attributes, names and directories, and how long it may be repeated.

Pure: times come in as `now` (the lease clock, seconds), nothing is awaited, nothing is sent. Every
answer comes with the lease that covers it (leases.py). Own changes show at once:

* attributes are ordered by Attr.change: an older answer never replaces a newer one;
* a name found by a question that was under way while this mount changed names in that directory
  is not remembered (Node.changes tells);
* a directory that was listed, or made here, is known whole, up to a size: what is not in it is not
  there. A name that is being changed is unsure until its outcome is known.

A name that the kernel was told stays in mind for as long as it may believe it, for the case that it
must be told otherwise. Where too many made us forget some, `has_forgotten` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from superfs.mount.leases import NEVER, Lease

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.core.attrs import Attr
    from superfs.mount.nodes import Node

NAMES_MAX = 65_536
LISTED_ENTRIES_MAX = 200_000


@dataclass(slots=True, eq=False)
class Listing:
    """A whole directory. `entries`: the inode of each name, None while that is unsure."""

    entries: dict[bytes, Node | None]
    parent: int  # the directory above, by the kernel's number
    lease: Lease = NEVER
    generation: int = 0
    order: tuple[list[bytes], list[Node]] | None = None

    def in_order(self) -> tuple[list[bytes], list[Node]] | None:
        """Names in byte order, and the inode of each; None while one is unsure."""
        if self.order is None:
            names, nodes = sorted(self.entries), []
            for name in names:
                node = self.entries[name]
                if node is None:
                    return None
                nodes.append(node)
            self.order = (names, nodes)
        return self.order


class AttrCache:
    def __init__(self) -> None:
        self._names: dict[tuple[int, bytes], tuple[Node | None, Lease]] = {}
        self._listings: dict[int, Listing] = {}
        self._listed = 0
        self._forgot: set[int] = set()

    # attributes

    def store(self, node: Node, attr: Attr, lease: Lease) -> None:
        """An answer of the server about this inode."""
        known = node.attr
        if known is not None and known.generation == attr.generation:
            if attr.change < known.change:
                return
            if attr.change == known.change and attr.size == known.size:
                if lease.until > node.lease.until:
                    node.lease = lease
                    node.encoded_until = 0.0
                return
        node.lease = lease
        node.attr = attr
        node.place = attr.place
        node.encoded = None

    def fresh(self, node: Node, now: float) -> Attr | None:
        return node.attr if now < node.lease.until or node.gone else None

    def bury(self, node: Node, attr: Attr) -> None:
        """The last name is removed: what is left is answered for as long as somebody asks."""
        node.attr = attr
        node.place = attr.place
        node.encoded = None
        node.gone = True

    def drop_attr(self, node: Node) -> None:
        node.lease = NEVER
        node.encoded_until = 0.0

    # names

    def learn(
        self, parent: Node, name: bytes, node: Node | None, lease: Lease, changes: int
    ) -> None:
        """`node`: None where there is no such name. `changes`: Node.changes of the parent when the
        question was sent."""
        if parent.changes != changes:
            lease = NEVER
        if node is not None:
            node.named = lease
        if len(self._names) >= NAMES_MAX:
            self._prune()
        self._names[parent.number, name] = (node, lease)
        listing = self._listings.get(parent.number)
        if listing is not None and listing.lease is lease:
            self._enter(listing, name, node)

    def _enter(self, listing: Listing, name: bytes, node: Node | None) -> None:
        before = len(listing.entries)
        if node is None:
            listing.entries.pop(name, None)
        elif listing.entries.get(name) is node:
            return
        else:
            listing.entries[name] = node
        listing.order = None
        self._listed += len(listing.entries) - before

    def resolve(self, parent: Node, name: bytes, now: float) -> tuple[Node | None, Lease] | None:
        """(inode or None where there is no such name, under which lease); None: not known."""
        found = self._names.get((parent.number, name))
        if found is not None and now < found[1].until:
            return found
        listing = self._listings.get(parent.number)
        if listing is None or now >= listing.lease.until or listing.generation != parent.generation:
            return None
        try:
            node = listing.entries[name]
        except KeyError:
            return None, listing.lease
        return None if node is None else (node, listing.lease)

    def last_known(self, parent: Node, name: bytes) -> Node | None:
        """However long ago: for deciding what to be careful with, never for an answer."""
        found = self._names.get((parent.number, name))
        if found is not None:
            return found[0]
        listing = self._listings.get(parent.number)
        return None if listing is None else listing.entries.get(name)

    def has_forgotten(self, parent: Node) -> bool:
        """Whether the kernel may believe names of it that `last_known` does not know."""
        return parent.number in self._forgot

    def changed(self, parent: Node, name: bytes) -> None:
        """This mount has changed, or may have changed, a name."""
        parent.changes += 1
        self.unsure(parent, name)

    def unsure(self, parent: Node, name: bytes) -> None:
        """It is to be asked for again."""
        node = self.last_known(parent, name)
        if node is None:
            self._names.pop((parent.number, name), None)
        else:
            self._names[parent.number, name] = (node, NEVER)
        listing = self._listings.get(parent.number)
        if listing is not None:
            self._listed += name not in listing.entries
            listing.entries[name] = None
            listing.order = None
        if parent.readers:
            for reader in parent.readers:
                reader.changed.add(name)

    def unsure_readers(self, parent: Node) -> None:
        """Who is listing it asks for every name again."""
        for reader in parent.readers or ():
            reader.changed.update(reader.names)

    def names_of(self, parent: Node) -> Iterator[tuple[bytes, Node]]:
        """Whatever the kernel may know of a directory. Slow: for what happens seldom."""
        for (number, name), (node, _) in list(self._names.items()):
            if number == parent.number and node is not None:
                yield name, node
        listing = self._listings.get(parent.number)
        if listing is not None:
            for name, node in list(listing.entries.items()):
                if node is not None:
                    yield name, node

    def all_names(self) -> Iterator[tuple[int, bytes, Node]]:
        for (number, name), (node, _) in list(self._names.items()):
            if node is not None:
                yield number, name, node
        for number, listing in list(self._listings.items()):
            for name, node in list(listing.entries.items()):
                if node is not None:
                    yield number, name, node

    def _prune(self) -> None:
        """First what the kernel cannot believe; names of open files stay: unlink must know them."""
        kept = {k: v for k, v in self._names.items() if v[0] is not None and v[0].nlookup > 0}
        if len(kept) >= NAMES_MAX // 2:
            self._forgot.update(number for number, _ in kept)
            kept = {k: v for k, v in kept.items() if v[0] is not None and v[0].file is not None}
        self._names = kept

    # whole directories

    def keep_listing(self, parent: Node, listing: Listing, changes: int) -> None:
        size = len(listing.entries)
        if parent.changes != changes or size > LISTED_ENTRIES_MAX or not listing.lease.until:
            return
        self.drop_listing(parent)
        if self._listed + size > LISTED_ENTRIES_MAX:
            self._forgot.update(self._listings)
            self._listings.clear()
            self._listed = 0
        listing.generation = parent.generation
        self._listings[parent.number] = listing
        self._listed += size

    def listing(self, parent: Node, now: float) -> Listing | None:
        found = self._listings.get(parent.number)
        if found is None:
            return None
        if now >= found.lease.until or found.generation != parent.generation:
            self.drop_listing(parent)
            return None
        return found

    def drop_listing(self, parent: Node) -> None:
        found = self._listings.pop(parent.number, None)
        if found is not None:
            self._listed -= len(found.entries)

    def forget(self, node: Node) -> None:
        """The kernel does not know this inode any more."""
        self.drop_listing(node)
        self._forgot.discard(node.number)
