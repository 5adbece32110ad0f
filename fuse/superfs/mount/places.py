"""The names of one directory, as far as this mount remembers them.

Nearly all names of a directory come under one lease, so that an entry is a name and its inode and
nothing else; what comes under another one, or under none, carries it along. Pure.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from superfs.mount.leases import NEVER, Lease

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from superfs.mount.nodes import Node

Odd = tuple["Node | None", Lease]
"""An inode, or None where there is no such name, and how long that may be repeated."""
UNSURE: Odd = (None, NEVER)
THIN_BYTES = 256  # for a name: more than a dictionary takes that only grows


class Place:
    """`whole`: what is not among the names is not there. `past`: what names stood for before their
    lease ended; the kernel may believe it."""

    __slots__ = (
        "generation", "lease", "names", "node", "order", "parent", "past", "used", "whole"
    )  # fmt: skip

    def __init__(self, node: Node) -> None:
        self.node = node  # as long as names are remembered, so is the directory they are told of
        self.names: dict[bytes, Node | Odd] = {}
        self.past: dict[bytes, Node] = {}
        self.lease = NEVER
        self.whole = False
        self.generation = 0
        self.parent = 0  # the directory above, by the kernel's number
        self.order: tuple[list[bytes], list[Node]] | None = None
        self.used = 0

    def __len__(self) -> int:
        return len(self.names) + len(self.past)

    def adopt(self, lease: Lease) -> None:
        """From now on names come under this one. Those of before are the past."""
        if self.names:
            self._bygone(self.names)
        self.names = {}
        self.lease = lease
        self.generation = self.node.generation
        self.whole = False
        self.order = None

    def learn(self, name: bytes, node: Node | None, lease: Lease) -> None:
        if lease is not self.lease and lease.id and lease.until:
            self.adopt(lease)
        elif self.generation != self.node.generation:
            self.adopt(NEVER)
        if self.past:
            self.past.pop(name, None)
        names, ours = self.names, lease is self.lease
        if node is not None and names.get(name) is node and (ours or not lease.until):
            return
        if node is None and not lease.until:
            self._is_unsure(name)
        elif not ours or (node is None and not self.whole):
            names[name] = (node, lease)
        elif node is None:
            names.pop(name, None)
        else:
            names[name] = node
        self.order = None

    def _is_unsure(self, name: bytes) -> None:
        if self.whole:
            self.names[name] = UNSURE
        else:
            self.names.pop(name, None)

    def learn_whole(
        self, entries: dict[bytes, Node], lease: Lease, order: tuple[list[bytes], list[Node]] | None
    ) -> None:
        names, self.names = self.names, dict[bytes, "Node | Odd"](entries)
        if len(names) != len(entries) or names.keys() != entries.keys():
            self._bygone({name: value for name, value in names.items() if name not in entries})
        self.lease = lease
        self.whole = True
        self.generation = self.node.generation
        self.order = order

    def resolve(self, name: bytes, now: float) -> Odd | None:
        """None: not known."""
        value = self.names.get(name)
        if type(value) is tuple:
            return value if now < value[1].until else None
        if now >= self.lease.until or self.generation != self.node.generation:
            return None
        if value is None and not self.whole:
            return None
        return value, self.lease  # type: ignore[return-value]  # it is no tuple any more

    def last_known(self, name: bytes) -> Node | None:
        value = self.names.get(name)
        if value is None:
            return self.past.get(name)
        return _node(value)

    def unsure(self, name: bytes) -> None:
        node = self.last_known(name)
        if node is not None:
            self.names[name] = (node, NEVER)
        else:
            self._is_unsure(name)
        self.order = None

    def forget_whole(self) -> None:
        self.whole = False
        self.order = None

    def is_whole(self, now: float) -> bool:
        if now >= self.lease.until or self.generation != self.node.generation:
            self.whole = False
            self.order = None
        return self.whole

    def in_order(self) -> tuple[list[bytes], list[Node]] | None:
        """Names in byte order, and the inode of each; None while one is unsure."""
        if self.order is None:
            names, nodes = sorted(self.names), []
            for name in names:
                value = self.names[name]
                if isinstance(value, tuple):
                    return None
                nodes.append(value)
            self.order = (names, nodes)
        return self.order

    def believed(self) -> Iterator[tuple[bytes, Node]]:
        """Whatever the kernel may know of it."""
        for name, node in self.everything():
            if node is not None:
                yield name, node

    def known(self, names: Iterable[bytes]) -> list[tuple[bytes, Node]]:
        """Those of them that there is an inode of."""
        found = ((name, self.last_known(name)) for name in names)
        return [(name, node) for name, node in found if node is not None]

    def everything(self) -> Iterator[tuple[bytes, Node | None]]:
        for name, value in list(self.names.items()):
            yield name, _node(value)
        yield from list(self.past.items())

    def drop(self, names: list[bytes]) -> None:
        """Nobody asks for them any more."""
        if names:
            for name in names:
                self.names.pop(name, None)
                self.past.pop(name, None)
            self.whole = False
            self.order = None
            if sys.getsizeof(self.names) > THIN_BYTES * len(self.names):
                self.names = dict(self.names)  # a dictionary never shrinks by itself

    def _bygone(self, names: dict[bytes, Node | Odd]) -> None:
        for name, value in names.items():
            node = _node(value)
            if node is not None and node.nlookup > 0:
                self.past[name] = node


def _node(value: Node | Odd) -> Node | None:
    return value[0] if isinstance(value, tuple) else value
