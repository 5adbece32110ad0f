"""Operations at random on the rules, against a small model of what POSIX says they do.

After every step the trees are compared, and `check` finds nothing in the store.
"""

from __future__ import annotations

import stat
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from property.namespace_model import (
    EXCHANGE,
    NOREPLACE,
    Model,
    Node,
    Refused,
    need,
    overlay,
    ref_of,
)
from superfs.core.attrs import Attr, Flag, Set
from superfs.core.errors import Code, FsError
from superfs.core.ids import ROOT
from superfs.core.limits import INLINE_BYTES_MAX
from superfs.core.namespace.end_truncate import end_truncate
from superfs.core.namespace.outcome import Entry, Outcome
from superfs.core.namespace.release_orphan import release_orphan
from superfs.core.namespace.txn import Caller
from superfs.meta.memstore import MemStore

CALLER = Caller(session=7, umask=0)
PICK = st.integers(0, 20)
FULL = Refused(Code.INLINE_FULL)
NAME = st.sampled_from([b"a", b"b", b"c", b"\xff"])
XATTR = st.sampled_from([b"user.a", b"user.b"])


def has_regular(machine: Namespace) -> bool:
    return any(n.is_regular for n in machine.model.nodes)


class Namespace(RuleBasedStateMachine):
    """Picks nodes by number: hypothesis shrinks numbers well."""

    @initialize()
    def begin(self) -> None:
        self.store = MemStore()
        self.model = Model()
        self.stored: dict[tuple[int, int], bytes] = {}  # (ino, data generation) at data daemons
        for name in (b"a", b"b"):  # something to begin with: most steps then do something
            self.make("mkdir", self.model.root, name, 0o755, b"")
            self.make("create", self.directory(-1), name, stat.S_IFREG | 0o644, b"")

    def directory(self, pick: int) -> Node:
        nodes = [n for n in self.model.nodes if n.is_dir]
        return nodes[pick % len(nodes)]

    def node(self, pick: int) -> Node:
        return self.model.nodes[pick % len(self.model.nodes)]

    def regular(self, pick: int) -> Node:
        nodes = [n for n in self.model.nodes if n.is_regular]
        return nodes[pick % len(nodes)]

    def do(self, verb: str, *args: object, **options: object) -> Outcome:
        return self.store.do(verb, CALLER, *args, **options)

    def refused(self, error: Refused, verb: str, *args: object, **options: object) -> None:
        with pytest.raises(FsError) as got:
            self.do(verb, *args, **options)
        assert got.value.code == error.args[0], (verb, got.value, error)

    def reap(self) -> None:
        for key in self.store.reaped:
            self.stored.pop(key, None)
        self.store.reaped.clear()

    # ---- names

    @rule(
        pick=PICK,
        name=NAME,
        kind=st.sampled_from([stat.S_IFREG, stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO]),
        inline=st.binary(max_size=3),
    )
    def create(self, pick: int, name: bytes, kind: int, inline: bytes) -> None:
        directory = self.directory(pick)
        data = inline if kind == stat.S_IFREG else b"target" if kind == stat.S_IFLNK else b""
        options: dict[str, Any] = {"target": data} if kind == stat.S_IFLNK else {"inline": data}
        self.make("create", directory, name, kind | 0o644, data, **options)

    @rule(pick=PICK, name=NAME)
    def mkdir(self, pick: int, name: bytes) -> None:
        self.make("mkdir", self.directory(pick), name, 0o755, b"")

    def make(
        self, verb: str, directory: Node, name: bytes, mode: int, data: bytes, **options: bytes
    ) -> None:
        try:
            self.model.may_add(directory, name)
        except Refused as error:
            self.refused(error, verb, directory.ref, name, mode, **options)
            return
        attr = self.do(verb, directory.ref, name, mode, **options).attr
        assert attr is not None
        self.model.add(directory, name, attr.mode, ref_of(attr), data)

    @rule(pick=PICK, name=NAME, is_dir=st.booleans())
    def remove(self, pick: int, name: bytes, is_dir: bool) -> None:
        directory = self.directory(pick)
        verb = "rmdir" if is_dir else "unlink"
        try:
            self.model.may_remove(directory, name, is_dir=is_dir)
        except Refused as error:
            self.refused(error, verb, directory.ref, name)
            return
        self.do(verb, directory.ref, name)
        self.model.drop(directory.entries.pop(name), directory)

    @rule(
        pick=PICK,
        name=NAME,
        to_pick=PICK,
        to=NAME,
        flags=st.sampled_from([0, 0, 0, NOREPLACE, EXCHANGE, EXCHANGE, NOREPLACE | EXCHANGE]),
    )
    def rename(self, pick: int, name: bytes, to_pick: int, to: bytes, flags: int) -> None:
        old, new = self.directory(pick), self.directory(to_pick)
        arguments = (old.ref, name, new.ref, to)
        try:
            moves = self.model.may_rename(old, name, new, to, flags)
        except Refused as error:
            self.refused(error, "rename", *arguments, flags=flags)
            return
        self.do("rename", *arguments, flags=flags)
        if moves:
            self.model.rename(old, name, new, to, flags)

    @rule(source=PICK, pick=PICK, name=NAME)
    def link(self, source: int, pick: int, name: bytes) -> None:
        node, directory = self.node(source), self.directory(pick)
        try:
            need(not self.model.removed(node) or node.opened, Code.STALE)
            self.model.may_add(directory, name)
            need(not node.is_dir, Code.NOT_PERMITTED)
            need(node.nlink > 0, Code.NOT_FOUND)
        except Refused as error:
            self.refused(error, "link", node.ref, directory.ref, name)
            return
        self.do("link", node.ref, directory.ref, name)
        node.nlink += 1
        directory.entries[name] = node

    @rule(pick=PICK, name=NAME, limit=st.integers(1, 4))
    def remove_tree(self, pick: int, name: bytes, limit: int) -> None:
        directory = self.directory(pick)
        if name not in directory.entries:
            return
        count, more = 0, True
        while more:
            outcome = self.do("remove_tree", directory.ref, name, limit)
            assert 0 < outcome.number <= limit
            count, more = count + outcome.number, outcome.more
            assert not self.store.findings()

        def drop(parent: Node, name: bytes) -> int:
            node = parent.entries.pop(name)
            below = sum(drop(node, child) for child in list(node.entries))
            self.model.drop(node, parent)
            return below + 1

        assert count == drop(directory, name)

    @rule(pick=PICK, names=st.lists(NAME), replace=st.booleans())
    def create_many(self, pick: int, names: list[bytes], replace: bool) -> None:
        directory = self.directory(pick)
        if self.model.removed(directory):
            return
        given = Attr(0, 0, 0, stat.S_IFREG | 0o600, 1, 5, 6, 3)
        entries = [Entry(n, attr=given, inline=b"xyz") for n in names]
        made = self.do("create_many", directory.ref, entries, replace=replace).entries
        for entry in made:
            there = directory.entries.get(entry.name)
            if there is not None and (there.is_dir or not replace):
                assert entry.code == (Code.IS_DIRECTORY if replace else Code.EXISTS)
                continue
            assert entry.code == Code.OK
            assert entry.attr is not None
            if there is not None:
                self.model.drop(directory.entries.pop(entry.name), directory)
            self.model.add(directory, entry.name, given.mode, ref_of(entry.attr), b"xyz")

    # ---- contents

    @rule(
        pick=PICK,
        offset=st.sampled_from([0, 1, 5, INLINE_BYTES_MAX - 2, INLINE_BYTES_MAX + 9]),
        data=st.binary(min_size=1, max_size=4),
    )
    @precondition(has_regular)
    def write(self, pick: int, offset: int, data: bytes) -> None:
        node = self.regular(pick)
        attr = self.getattr(node)
        if attr.flags & Flag.INLINE:
            if offset + len(data) <= INLINE_BYTES_MAX:
                self.do("publish", node.ref, 0, writes=[(offset, data)])
            else:
                self.refused(FULL, "publish", node.ref, 0, writes=[(offset, data)])
                attr = self.spill_now(node)
        else:
            self.refused(Refused(Code.NOT_INLINE), "publish", node.ref, 9, writes=[(0, b"x")])
        if not attr.flags & Flag.INLINE:
            self.store_data(attr, offset, data)
            self.do("publish", node.ref, attr.data_generation, size=offset + len(data))
        node.data = overlay(node.data, offset, data)

    def store_data(self, attr: Attr, offset: int, data: bytes) -> None:
        key = attr.ino, attr.data_generation
        self.stored[key] = overlay(self.stored.get(key, b""), offset, data)

    def spill_now(self, node: Node) -> Attr:
        prepared = self.do("new_data", node.ref)
        attr = prepared.attr
        assert attr is not None
        self.stored[attr.ino, prepared.number] = prepared.data
        self.do("publish", node.ref, prepared.number, spill=True, inline_change=attr.change)
        return self.getattr(node)

    @rule(pick=PICK, loses=st.booleans())
    @precondition(has_regular)
    def spill(self, pick: int, loses: bool) -> None:
        """Also of a file that changes between reading its contents and publishing the spill."""
        node = self.regular(pick)
        if not self.getattr(node).flags & Flag.INLINE:
            self.refused(Refused(Code.NOT_INLINE), "new_data", node.ref)
        elif not loses:
            self.spill_now(node)
        else:
            with self.store.batch():
                self.do("publish", node.ref, 0, writes=[(0, b"?")])
                prepared = self.do("new_data", node.ref)
                self.do("publish", node.ref, 0, writes=[(0, b"!")])
            assert prepared.attr is not None
            self.stored[prepared.attr.ino, prepared.number] = prepared.data
            node.data = overlay(node.data, 0, b"!")
            lost = {"spill": True, "inline_change": prepared.attr.change}
            self.refused(Refused(Code.STALE_DATA), "publish", node.ref, prepared.number, **lost)

    @rule(pick=PICK, size=st.sampled_from([0, 0, 1, 3, 6, 5000]))
    @precondition(has_regular)
    def truncate(self, pick: int, size: int) -> None:
        node = self.regular(pick)
        before = self.getattr(node)
        attr = self.do("setattr", node.ref, Set.SIZE, size=size).attr
        assert attr is not None
        if attr.flags & Flag.TRUNCATING:
            self.refused(Refused(Code.BUSY), "publish", node.ref, attr.data_generation, size=9)
            self.refused(Refused(Code.BUSY), "setattr", node.ref, Set.SIZE, size=size + 1)
            ino, generation, cut = self.store.shrunk.pop()
            assert (ino, generation, cut) == (attr.ino, attr.data_generation, size)
            self.stored[ino, generation] = self.stored.get((ino, generation), b"")[:size]
            self.store.run(end_truncate, node.ref)
        if before.data_generation and not size:
            generation = before.data_generation
            self.refused(Refused(Code.STALE_DATA), "publish", node.ref, generation, size=9)
        node.data = node.data[:size].ljust(size, b"\0")

    @rule(pick=PICK, data=st.binary(min_size=1, max_size=4))
    @precondition(has_regular)
    def append(self, pick: int, data: bytes) -> None:
        node = self.regular(pick)
        attr = self.getattr(node)
        inline = attr.flags & Flag.INLINE
        if inline and attr.size + len(data) > INLINE_BYTES_MAX:
            self.refused(Refused(Code.INLINE_FULL), "append", node.ref, len(data), data=data)
            return
        sent = data if inline else b""
        offset = self.do("append", node.ref, len(data), data=sent).number
        assert offset == len(node.data)
        if not inline:
            self.store_data(attr, offset, data)
        node.data += data

    # ---- the rest of an inode

    @rule(pick=PICK, mode=st.sampled_from([0o600, 0o755, 0o1777, 0o2750]))
    def chmod(self, pick: int, mode: int) -> None:
        node = self.node(pick)
        if stat.S_ISLNK(node.mode):
            self.refused(Refused(Code.NOT_SUPPORTED), "setattr", node.ref, Set.MODE, mode=mode)
            return
        self.do("setattr", node.ref, Set.MODE, mode=mode)
        node.mode = stat.S_IFMT(node.mode) | mode

    @rule(pick=PICK, name=XATTR, flags=st.integers(0, 2))
    def setxattr(self, pick: int, name: bytes, flags: int) -> None:
        node = self.node(pick)
        if name in node.xattrs and flags == 1:
            self.refused(Refused(Code.EXISTS), "setxattr", node.ref, name, b"v", flags=1)
        elif name not in node.xattrs and flags == 2:
            self.refused(Refused(Code.NO_XATTR), "setxattr", node.ref, name, b"v", flags=2)
        else:
            node.xattrs[name] = bytes([len(node.xattrs)])
            self.do("setxattr", node.ref, name, node.xattrs[name], flags=flags)

    @rule(pick=PICK, name=XATTR)
    def removexattr(self, pick: int, name: bytes) -> None:
        node = self.node(pick)
        if node.xattrs.pop(name, None) is not None:
            self.do("removexattr", node.ref, name)

    @rule(pick=PICK)
    def open_or_close(self, pick: int) -> None:
        node = self.node(pick)
        ino = node.ref.ino
        node.opened = not node.opened
        if node.opened:
            self.store.opened[ino] = {CALLER.session}
            return
        del self.store.opened[ino]
        gone = self.store.run(release_orphan, ino, CALLER.session).number
        assert bool(gone) == (node.nlink == 0)
        if gone:
            self.model.nodes.remove(node)

    # ---- comparing

    def getattr(self, node: Node) -> Attr:
        attr = self.do("getattr", node.ref).attr
        assert attr is not None
        return attr

    def contents(self, attr: Attr) -> bytes:
        if attr.flags & Flag.INLINE:
            data = self.do("read_inline", ref_of(attr)).data
        else:
            data = self.stored.get((attr.ino, attr.data_generation), b"")
        return data[: attr.size].ljust(attr.size, b"\0")

    @invariant()
    def same_tree(self) -> None:
        self.reap()
        assert self.store.findings() == []
        for node in self.model.nodes:
            attr = self.getattr(node)
            assert (attr.mode, attr.nlink) == (node.mode, node.nlink)
            if not node.is_dir:
                assert self.contents(attr) == node.data
            names = self.do("listxattr", node.ref).data
            assert names == b"\0".join(sorted(node.xattrs))
            for name, value in node.xattrs.items():
                assert self.do("getxattr", node.ref, name).data == value
            if node.is_dir and node.nlink:
                self.same_listing(node)
        used = {(a.ino, a.data_generation) for a in map(self.getattr, self.model.nodes)}
        assert self.stored.keys() <= used, "data that nobody will reap"

    def same_listing(self, node: Node) -> None:
        got: list[Entry] = []
        more = True
        while more:
            after = got[-1].name if got else b""
            listing = self.do("read_dir", node.ref, after=after, limit=2)
            got += listing.entries
            more = listing.more
        assert [e.name for e in got] == sorted(node.entries)
        for entry in got:
            child = node.entries[entry.name]
            found = self.do("lookup", node.ref, entry.name).attr
            assert entry.ino == child.ref.ino
            assert found == entry.attr == self.getattr(child)

    def teardown(self) -> None:
        """What is removed to the last name leaves nothing behind."""
        for node in list(self.model.nodes):
            if node.opened:
                self.open_or_close(self.model.nodes.index(node))
        for name in list(self.model.root.entries):
            while self.do("remove_tree", self.model.root.ref, name, 99).more:
                pass
        store = self.store
        assert not any((store.inodes, store.inline, store.moved, store.orphans))
        assert (*store.directories, *store.xattrs) in ((ROOT,), (ROOT, (ROOT, ROOT)))
        self.reap()
        assert not self.stored


TestNamespace = Namespace.TestCase
TestNamespace.settings = settings(
    max_examples=120,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
