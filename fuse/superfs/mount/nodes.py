"""The inodes that the kernel knows: FUSE numbers, lookup counts, and what is cached about each.

The kernel calls the root of a mount 1; every other inode goes by its own number. Because file
number 1 exists too, the two numbers are exchanged: kernel's 1 is the root, and the root's own
number stands for inode 1.

A node is in the table as long as the kernel counts look-ups of it; others that a listing has
brought live as long as that is remembered. There is never more than one of an inode. A directory
number that comes back while the kernel still knows it (another client removed the directory and
made it again) keeps its node under the new generation; the kernel tells the two apart by generation
itself, and the look-up count is theirs together, as its forgets are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from superfs.core.ids import directory_id
from superfs.core.namespace.txn import Ref
from superfs.mount.leases import NEVER, Lease

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import trio

    from superfs.core.attrs import Attr
    from superfs.mount.contention import Contention
    from superfs.mount.contents import Whole
    from superfs.mount.files import OpenFile
    from superfs.mount.listings import Snapshot

KERNEL_ROOT = 1


@dataclass(slots=True)
class Walk:
    """Look-ups of one directory that had to be asked, as long as their names ascend."""

    last: bytes
    steps: int = 1
    width: int = 0


@dataclass(slots=True)
class Census:
    """A directory that is being learned whole: its first pages, all under one lease."""

    lease: Lease
    changes: int
    entries: dict[bytes, Node] = field(default_factory=dict)
    after: bytes = b""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Node:
    number: int  # what the kernel calls it
    ino: int
    generation: int
    place: int
    nlookup: int = 0
    counted: bool = False  # in `Nodes.held`, under `place`
    attr: Attr | None = None
    lease: Lease = NEVER  # how long `attr` may be answered
    named: Lease = NEVER  # how long the name it was last found under may be
    doubts: dict[tuple[int, bytes], trio.Event] | None = None  # names that the kernel may still
    # believe and is being told to drop; until when
    busy: int = 0  # requests under way for which the kernel holds this directory's lock
    made: float = 0.0  # when the kernel was last told of it as the outcome of a change
    told: bool = False  # since `attr` was last dropped the kernel was told what it may believe
    changing: int = 0  # changes of it by this mount that are under way
    names_changing: list[bytes] | None = None  # likewise of names in this directory
    contention: Contention | None = None  # of this directory
    packed: bytes | None = None  # `attr` as the kernel reads it, None when it changed
    whole: Whole | None = None  # its contents, where they are small and kept here
    file: OpenFile | None = None  # while somebody has it open here
    changes: int = 0  # of names in this directory by this mount
    series: int = 0  # of the last listing of this directory that was begun (listings.py)
    series_of: int = -1  # `changes` then
    listed: int = -1  # `changes` when the kernel began to keep what it lists of this directory
    gone: bool = False  # its last name is removed; `attr` is the last there will be
    pages_of: tuple[int, int, int, int] | None = None  # which contents the kernel's pages show
    parent: int = 0  # a directory's, as far as we know
    atime_ns: int = 0  # a read here that the server has not been told of
    misses: int = 0  # names of this directory that had to be asked
    walk: Walk | None = None  # of this directory, by somebody who looks up name after name
    census: Census | None = None
    readers: list[Snapshot] | None = None  # of this directory, under way

    @property
    def ref(self) -> Ref:
        return Ref(self.ino, self.generation, self.place)

    def found_in(self, parent: Node) -> None:
        """A name of it. A directory that was moved lists another ".."."""
        if self.parent != parent.number:
            self.changes += 1 if self.parent else 0
            self.parent = parent.number


class Held:
    """How many inodes that the kernel knows each lease covers."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.let_go: set[int] = set()
        """Leases that cover none any more: whoever gives them back takes them out."""

    def __getitem__(self, lease_id: int) -> int:
        return self._counts.get(lease_id, 0)

    def enter(self, node: Node) -> None:
        node.counted = True
        self._counts[node.place] = self._counts.get(node.place, 0) + 1

    def leave(self, node: Node) -> None:
        node.counted = False
        left = self._counts[node.place] - 1
        if left:
            self._counts[node.place] = left
        else:
            del self._counts[node.place]
            self.let_go.add(node.place)

    def move(self, node: Node, place: int) -> None:
        """To another lease."""
        if node.counted:
            self.leave(node)
            node.place = place
            self.enter(node)
        node.place = place


class Nodes:
    def __init__(self, root: Ref) -> None:
        self._root = root.ino
        node = Node(KERNEL_ROOT, root.ino, root.generation, root.place or root.ino, nlookup=1)
        node.parent = KERNEL_ROOT
        self.table: dict[int, Node] = {KERNEL_ROOT: node}
        self.held = Held()
        self.held.enter(node)
        self._alive: WeakValueDictionary[int, Node] = WeakValueDictionary(self.table)

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.table.values())

    @property
    def root(self) -> Node:
        return self.table[KERNEL_ROOT]

    def number_of(self, ino: int) -> int:
        if ino == self._root:
            return KERNEL_ROOT
        return self._root if ino == KERNEL_ROOT else ino

    def find(self, ino: int) -> Node | None:
        """By the inode's own number."""
        return self.table.get(self.number_of(ino))

    def alive(self, ino: int) -> Node | None:
        """Whether or not the kernel knows it."""
        return self._alive.get(self.number_of(ino))

    def is_alive(self, number: int) -> bool:
        return number in self._alive

    @property
    def alive_count(self) -> int:
        return len(self._alive)

    def all_alive(self) -> list[Node]:
        return list(self._alive.values())

    def of(self, attr: Attr) -> Node:
        """The node of an inode, made when there is none. It is in the table only once it is
        counted (`count`)."""
        number = self.number_of(attr.ino)
        node = self._alive.get(number)
        if node is None:
            node = self._alive[number] = Node(number, attr.ino, attr.generation, attr.place)
            return node
        if node.generation != attr.generation:
            self._born_again(node, attr)
        return node

    def _born_again(self, node: Node, attr: Attr) -> None:
        # One that was removed here may have had changes that the server does not count yet.
        if node.attr is not None and not node.gone and node.attr.change > attr.change:
            return  # an old answer about an inode that is gone
        node.generation = attr.generation
        self.held.move(node, attr.place)
        node.attr = None
        node.lease = NEVER
        node.packed = None
        node.gone = False
        node.pages_of = None

    def count(self, node: Node) -> Node:
        """One more look-up was answered with this inode; the node that stands for it."""
        known = self.table.get(node.number)
        if known is None:
            self.enter(node)
            known = node
        known.nlookup += 1
        return known

    def enter(self, node: Node) -> None:
        """Into the table, unless it is there."""
        self.table[node.number] = node
        if not node.counted:
            self.held.enter(node)

    def leave(self, node: Node) -> None:
        """Out of the table, if it is there."""
        if self.table.pop(node.number, None) is not None:
            self.held.leave(node)

    def forget(self, forgotten: Iterable[tuple[int, int]]) -> list[Node]:
        """Nodes that the kernel does not know any more."""
        dropped = []
        for number, count in forgotten:
            node = self.table.get(number)
            if node is None:
                continue
            node.nlookup -= count
            if node.nlookup <= 0 and node.file is None and number != KERNEL_ROOT:
                self.leave(node)
                dropped.append(node)
        return dropped

    def version_for(self, parent: Node, name: bytes) -> int:
        """The first version of a new directory's number that the kernel does not know."""
        version = 0
        while self.find(directory_id(parent.ino, name, version)) is not None:
            version += 1
        return version
