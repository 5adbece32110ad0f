"""What was answered about attributes, names and directories, and how long it may be repeated.

Pure: times come in as `now` (a monotonic clock, seconds), nothing is awaited, nothing is sent.
Without leases an answer is good for the configured timeout, counted from when it was asked for,
and own changes show at once:

* attributes are ordered by Attr.change: an older answer never replaces a newer one;
* a name found by a question that was under way while this mount changed names in that directory
  is not remembered (Node.changes tells);
* a listing is kept whole, for directories up to a size, and dropped by any own change of names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.mount.nodes import Node

NAMES_MAX = 65_536
LISTED_ENTRIES_MAX = 200_000


@dataclass(frozen=True, slots=True)
class Listing:
    """A whole directory: names in byte order, and the inode of each."""

    names: list[bytes]
    nodes: list[Node]
    parent: int  # the directory above, by the kernel's number


class AttrCache:
    def __init__(self, attr_timeout_s: float, entry_timeout_s: float) -> None:
        self.attr_timeout_s = attr_timeout_s
        self.entry_timeout_s = entry_timeout_s
        self._names: dict[tuple[int, bytes], tuple[Node, float]] = {}
        self._listings: dict[int, tuple[Listing, float, int]] = {}
        self._listed = 0

    # attributes

    def store(self, node: Node, attr: Attr, asked: float) -> None:
        """An answer of the server about this inode; `asked` is when it was asked."""
        known = node.attr
        if known is not None and known.generation == attr.generation:
            if attr.change < known.change:
                return
            node.expires = max(node.expires, asked + self.attr_timeout_s)
            if attr.change == known.change and attr.size == known.size:
                return
        else:
            node.expires = asked + self.attr_timeout_s
        node.attr = attr
        node.place = attr.place
        node.encoded = None

    def fresh(self, node: Node, now: float) -> Attr | None:
        return node.attr if now < node.expires or node.gone else None

    def bury(self, node: Node, attr: Attr) -> None:
        """The last name is removed: what is left is answered for as long as somebody asks."""
        node.attr = attr
        node.place = attr.place
        node.encoded = None
        node.gone = True

    def drop_attr(self, node: Node) -> None:
        if not node.gone:
            node.expires = 0.0

    # names

    def learn(self, parent: Node, name: bytes, node: Node, asked: float, changes: int) -> None:
        """`changes`: Node.changes of the parent when the question was sent."""
        if parent.changes != changes:
            return
        if len(self._names) >= NAMES_MAX:
            self._prune(asked)
        self._names[parent.number, name] = (node, asked + self.entry_timeout_s)

    def resolve(self, parent: Node, name: bytes, now: float) -> Node | None:
        found = self._names.get((parent.number, name))
        return found[0] if found is not None and now < found[1] else None

    def last_known(self, parent: Node, name: bytes) -> Node | None:
        """However long ago: for deciding what to be careful with, never for an answer."""
        found = self._names.get((parent.number, name))
        return None if found is None else found[0]

    def changed(self, parent: Node, name: bytes) -> None:
        """This mount has changed, or may have changed, a name."""
        parent.changes += 1
        self._names.pop((parent.number, name), None)
        self.drop_listing(parent)
        if parent.readers:
            for reader in parent.readers:
                reader.changed.add(name)

    def _prune(self, now: float) -> None:
        """Names of open files stay: unlink must know them."""
        self._names = {
            key: (node, expires)
            for key, (node, expires) in self._names.items()
            if now < expires or node.file is not None
        }
        if len(self._names) >= NAMES_MAX:
            self._names = {k: v for k, v in self._names.items() if v[0].file is not None}

    # whole directories

    def keep_listing(self, parent: Node, listing: Listing, asked: float, changes: int) -> None:
        if parent.changes != changes or len(listing.names) > LISTED_ENTRIES_MAX:
            return
        self.drop_listing(parent)
        if self._listed + len(listing.names) > LISTED_ENTRIES_MAX:
            self._listings.clear()
            self._listed = 0
        expires = asked + min(self.attr_timeout_s, self.entry_timeout_s)
        self._listings[parent.number] = (listing, expires, parent.generation)
        self._listed += len(listing.names)

    def listing(self, parent: Node, now: float) -> Listing | None:
        found = self._listings.get(parent.number)
        if found is None:
            return None
        listing, expires, generation = found
        if now >= expires or generation != parent.generation:
            self.drop_listing(parent)
            return None
        return listing

    def drop_listing(self, parent: Node) -> None:
        found = self._listings.pop(parent.number, None)
        if found is not None:
            self._listed -= len(found[0].names)

    def forget(self, node: Node) -> None:
        """The kernel does not know this inode any more."""
        self.drop_listing(node)
