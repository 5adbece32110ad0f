"""A small model of what POSIX says of names, links and contents, for tests of the rules.

It keeps nodes and entries and knows nothing of places, dentries, inline contents or data
generations.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from superfs.core.errors import Code
from superfs.core.ids import ROOT, ROOT_GENERATION
from superfs.core.namespace.txn import Ref

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.core.attrs import Attr

NOREPLACE, EXCHANGE = 1, 2


@dataclass(eq=False)
class Node:
    """A file of the model. `ref` is how it was first referred to: its hint gets old."""

    mode: int
    ref: Ref
    nlink: int = 1
    data: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    entries: dict[bytes, Node] = field(default_factory=dict)
    parent: Node | None = None
    opened: bool = False

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self.mode)

    def above(self) -> Iterator[Node]:
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent


class Refused(Exception):
    """What the model says of an operation that must fail."""


def need(condition: bool, code: Code) -> None:
    if not condition:
        raise Refused(code)


class Model:
    def __init__(self) -> None:
        self.root = Node(stat.S_IFDIR | 0o755, Ref(ROOT, ROOT_GENERATION), 2)
        self.nodes = [self.root]

    def removed(self, node: Node) -> bool:
        return node.is_dir and node.nlink == 0

    def enter(self, directory: Node) -> None:
        if self.removed(directory):
            raise Refused(Code.NOT_FOUND if directory.opened else Code.STALE)

    def add(self, directory: Node, name: bytes, mode: int, ref: Ref, data: bytes) -> None:
        node = Node(mode, ref, 1, data)
        if node.is_dir:
            node.nlink, node.parent = 2, directory
            directory.nlink += 1
        directory.entries[name] = node
        self.nodes.append(node)

    def may_add(self, directory: Node, name: bytes) -> None:
        self.enter(directory)
        need(name not in directory.entries, Code.EXISTS)

    def drop(self, node: Node, directory: Node) -> None:
        """A name of `node` in `directory` is gone."""
        if node.is_dir:
            node.nlink, node.parent = 0, None
            directory.nlink -= 1
        else:
            node.nlink -= 1
        if not node.nlink and not node.opened:
            self.nodes.remove(node)

    def may_remove(self, directory: Node, name: bytes, *, is_dir: bool) -> None:
        self.enter(directory)
        need(name in directory.entries, Code.NOT_FOUND)
        node = directory.entries[name]
        if is_dir:
            need(node.is_dir, Code.NOT_DIRECTORY)
            need(not node.entries, Code.NOT_EMPTY)
        else:
            need(not node.is_dir, Code.IS_DIRECTORY)

    def may_rename(self, old: Node, name: bytes, new: Node, to: bytes, flags: int) -> bool:
        """Whether anything is to be done."""
        need(flags != NOREPLACE | EXCHANGE, Code.INVALID)
        self.enter(old)
        self.enter(new)
        need(name in old.entries, Code.NOT_FOUND)
        source, target = old.entries[name], new.entries.get(to)
        need(not (target is None and flags == EXCHANGE), Code.NOT_FOUND)
        need(not (target is not None and flags == NOREPLACE), Code.EXISTS)
        need(old is new or source not in new.above(), Code.INVALID)
        above = Code.INVALID if flags == EXCHANGE else Code.NOT_EMPTY
        need(old is new or target is None or target not in old.above(), above)
        if target is source:
            return False
        if target is not None and flags != EXCHANGE:
            need(target.is_dir or not source.is_dir, Code.NOT_DIRECTORY)
            need(source.is_dir or not target.is_dir, Code.IS_DIRECTORY)
            need(not target.entries, Code.NOT_EMPTY)
        return True

    def rename(self, old: Node, name: bytes, new: Node, to: bytes, flags: int) -> None:
        source, target = old.entries.pop(name), new.entries.pop(to, None)
        new.entries[to] = source
        if target is not None and flags == EXCHANGE:
            old.entries[name] = target
            self.hang(target, new, old)
        elif target is not None:
            self.drop(target, new)
        self.hang(source, old, new)

    def hang(self, node: Node, old: Node, new: Node) -> None:
        if node.is_dir:
            old.nlink -= 1
            new.nlink += 1
            node.parent = new


def overlay(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset].ljust(offset, b"\0") + new + data[offset + len(new) :]


def ref_of(attr: Attr) -> Ref:
    return Ref(attr.ino, attr.generation, attr.place)
