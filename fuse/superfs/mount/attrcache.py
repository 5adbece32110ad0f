"""What was answered about attributes, names and directories, and how long it may be repeated.

Pure: times come in as `now` (the lease clock, seconds), nothing is awaited, nothing is sent. Every
answer comes with the lease that covers it (leases.py). Own changes show at once:

* attributes are ordered by Attr.change: an older answer never replaces a newer one;
* a name found by a question that was under way while this mount changed names in that directory
  is not remembered (Node.changes tells), nor is what is asked about a name or an inode while
  this mount changes it (Node.names_changing, Node.changing): others may see the change already;
* a directory that was listed, or made here, is known whole (places.py): what is not in it is not
  there. A name that is being changed is unsure until its outcome is known.

A name that the kernel was told stays in mind for as long as it may believe it, for the case that it
must be told otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.mount.leases import NEVER
from superfs.mount.places import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.core.attrs import Attr
    from superfs.mount.leases import Lease
    from superfs.mount.nodes import Held, Node
    from superfs.mount.places import Odd


class AttrCache:
    def __init__(self, held: Held) -> None:
        self.places: dict[int, Place] = {}
        self.names = 0
        """Remembered in all of them."""
        self.turn = 0
        """Goes up with time: what was used in a lower one was used before."""
        self._held = held

    # attributes

    def store(self, node: Node, attr: Attr, lease: Lease) -> None:
        """An answer of the server about this inode."""
        known = node.attr
        if known is not None and known.generation == attr.generation:
            if attr.change < known.change:
                return
            same = attr.change == known.change and attr.size == known.size
            if same and attr.atime_ns <= known.atime_ns:
                if lease.until > node.lease.until:
                    node.lease = lease
                return
        node.lease = lease
        node.attr = attr
        if node.place != attr.place:
            self._held.move(node, attr.place)
        node.packed = None

    def fresh(self, node: Node, now: float) -> Attr | None:
        if node.gone:
            return node.attr
        return node.attr if now < node.lease.until and not node.changing else None

    def bury(self, node: Node, attr: Attr) -> None:
        """The last name is removed: what is left is answered for as long as somebody asks."""
        node.attr = attr
        if node.place != attr.place:
            self._held.move(node, attr.place)
        node.packed = None
        node.gone = True

    def drop_attr(self, node: Node) -> None:
        node.lease = NEVER

    def disown(self, node: Node) -> None:
        """What is known of it may never have been so: any answer is newer."""
        self.drop_attr(node)
        node.gone = False
        if node.attr is not None:
            node.attr = node.attr.copy()
            node.attr.change = 0
            node.packed = None

    # names

    def learn(
        self, parent: Node, name: bytes, node: Node | None, lease: Lease, changes: int
    ) -> None:
        """`node`: None where there is no such name. `changes`: Node.changes of the parent when the
        question was sent."""
        if parent.changes != changes or (parent.names_changing and name in parent.names_changing):
            lease = NEVER
        if node is not None:
            node.named = lease if parent.contention is None else NEVER
        elif not lease.until and self.last_known(parent, name) is not None:
            return  # the kernel may have been told of it since this was asked
        place = self.places.get(parent.ino)
        if place is None:
            place = self.places[parent.ino] = Place(parent)
        place.used = self.turn
        before = len(place)
        place.learn(name, node, lease)
        self.names += len(place) - before

    def resolve(self, parent: Node, name: bytes, now: float) -> Odd | None:
        """(inode or None where there is no such name, under which lease); None: not known."""
        place = self.places.get(parent.ino)
        if place is None:
            return None
        place.used = self.turn
        return place.resolve(name, now)

    def last_known(self, parent: Node, name: bytes) -> Node | None:
        """However long ago: for deciding what to be careful with, never for an answer."""
        place = self.places.get(parent.ino)
        return None if place is None else place.last_known(name)

    def changed(self, parent: Node, name: bytes) -> None:
        """This mount has changed, or may have changed, a name."""
        parent.changes += 1
        self.unsure(parent, name)

    def unsure(self, parent: Node, name: bytes) -> None:
        """It is to be asked for again."""
        place = self.places.get(parent.ino)
        if place is not None:
            before = len(place)
            place.unsure(name)
            self.names += len(place) - before
        if parent.readers:
            for reader in parent.readers:
                reader.changed.add(name)

    def unsure_readers(self, parent: Node) -> None:
        """Who is listing it asks for every name again."""
        for reader in parent.readers or ():
            reader.changed.update(reader.names)

    def names_of(self, parent: Node) -> Iterator[tuple[bytes, Node]]:
        """Whatever the kernel may know of a directory."""
        place = self.places.get(parent.ino)
        return iter(()) if place is None else place.believed()

    def all_names(self) -> Iterator[tuple[int, bytes, Node]]:
        for place in list(self.places.values()):
            for name, node in place.believed():
                yield place.node.number, name, node

    # whole directories

    def keep_listing(
        self,
        parent: Node,
        entries: dict[bytes, Node],
        above: int,
        lease: Lease,
        changes: int,
        order: tuple[list[bytes], list[Node]] | None = None,
    ) -> None:
        """`above`: the directory that this one is in, by the kernel's number."""
        if parent.changes != changes or not lease.until:
            return
        place = self.places.get(parent.ino)
        if place is None:
            place = self.places[parent.ino] = Place(parent)
        place.used = self.turn
        place.parent = above
        before = len(place)
        place.learn_whole(entries, lease, order)
        for name in parent.names_changing or ():
            place.unsure(name)
        self.names += len(place) - before

    def listing(self, parent: Node, now: float) -> Place | None:
        place = self.places.get(parent.ino)
        if place is None or not place.is_whole(now):
            return None
        place.used = self.turn
        return place

    # what is not remembered any more

    def forget(self, node: Node) -> None:
        """The kernel does not know this inode any more, nor, if it is a directory, any name in
        it."""
        place = self.places.get(node.ino)
        if place is not None:
            self.names -= len(place.past)
            place.past = {}

    def drop_names(self, place: Place, names: list[bytes]) -> None:
        before = len(place)
        place.drop(names)
        self.names += len(place) - before
        if not (place.names or place.past):
            self.drop_place(place)

    def drop_place(self, place: Place) -> None:
        """Nothing of it is remembered, nor that it has no more than that."""
        self.names -= len(place)
        self.places.pop(place.node.ino, None)
