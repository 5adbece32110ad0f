"""Whatever a client does and whenever it dies: what is left is what there was at some moment, and
never before what was synced.

All sequences of up to three operations over two directories and three files, with a sync or the
timer of the log anywhere among them. A client that dies leaves what the daemon has after one of the
messages; each is compared with what there was after each operation.
"""

from __future__ import annotations

import itertools
import stat
from typing import TYPE_CHECKING, Any

import pytest

from superfs.core.attrs import Set
from superfs.core.errors import FsError
from superfs.core.ids import ROOT
from superfs.core.namespace.txn import Ref
from superfs.rpc.pending import run_sync
from unit.delegation_world import ROOT_REF, Client, Server

if TYPE_CHECKING:
    from superfs.client.session import OpItem

FILE = stat.S_IFREG | 0o644
HERE, THERE = b"here", b"there"
PLACES = {b"a": HERE, b"b": HERE, b"c": THERE}
OPERATIONS: list[tuple[str, bytes, bytes]] = [
    *(("create", name, b"") for name in PLACES),
    ("write", b"a", b""),
    ("write", b"c", b""),
    ("unlink", b"a", b""),
    ("rename", b"a", b"b"),
    ("rename", b"b", b"a"),
    ("rename", b"a", b"c"),  # to the other directory
    ("link", b"a", b"b"),
    ("link", b"a", b"c"),
    ("chmod", b"a", b""),
    ("mkdir", b"b", b""),
    ("elsewhere", b"", b""),
    ("sync", b"", b""),
    ("timer", b"", b""),
]


class Watched(Server):
    """Notes what is left by a client that dies now."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[object] | None = None

    def answer(self, item: OpItem) -> None:
        super().answer(item)
        if self.states is not None:
            self.states.append(self.left())

    def left(self) -> object:
        """As `Life.truth`."""
        found: dict[bytes, Any] = {}
        for name in (HERE, THERE):
            top = self.store.get_dentry(ROOT, name)
            assert top is not None
            found[name] = {}
            for entry, dentry in self.store.list_dentries(top.ino, b"", 100):
                attr = self.store.get_inode(top.ino, dentry.ino)
                attr = attr or self.store.get_inode(dentry.ino, dentry.ino)
                if attr is None:
                    found[name][entry] = "directory"
                else:
                    data = self.store.get_inline(attr.place, attr.ino)
                    found[name][entry] = attr.ino, attr.mode, attr.nlink, attr.size, data
        return found


class Life:
    def __init__(self, *, old: bool) -> None:
        """`old`: one of the files was there before, and is shipped."""
        self.server = Watched()
        self.client = Client(self.server)
        self.meta = self.client.meta
        self.dirs: dict[bytes, Ref] = {}
        for name in (HERE, THERE):
            attr = run_sync(self.meta.mkdir(ROOT_REF, name, 0o755)).attr
            assert attr is not None
            self.dirs[name] = Ref(attr.ino, attr.generation, attr.ino)
        if old:
            self.do("create", b"a", b"")
            run_sync(self.meta.sync())
        self.there_was = [self.truth()]
        self.server.states = []

    @property
    def is_known(self) -> bool:
        return all(d.ino in self.client.state.overlay.groups for d in self.dirs.values())

    def truth(self) -> object:
        """What the programs of this client see: the daemon's records under the client's."""
        found: dict[bytes, Any] = {}
        overlay = self.client.state.overlay
        for name, ref in self.dirs.items():
            group = overlay.groups[ref.ino]
            found[name] = {
                entry: self.file(group.inodes.get(dentry.ino) or overlay.linked[dentry.ino])
                if not stat.S_ISDIR(dentry.mode)
                else "directory"
                for entry, dentry in group.entries.items()
            }
        return found

    def file(self, attr: Any) -> tuple[object, ...]:  # noqa: ANN401
        data = self.client.state.overlay.inline.get(attr.ino)
        for place in (attr.place, *(ref.ino for ref in self.dirs.values())):
            if data is None:
                data = self.server.store.get_inline(place, attr.ino)
        return attr.ino, attr.mode, attr.nlink, attr.size, data

    def ref(self, name: bytes) -> Ref | None:
        group = self.client.state.overlay.groups[self.dirs[PLACES[name]].ino]
        entry = group.entries.get(name)
        if entry is None or stat.S_ISDIR(entry.mode):
            return None
        place = entry.ino if entry.ino not in group.inodes else self.dirs[PLACES[name]].ino
        return Ref(entry.ino, entry.generation, place)

    def do(self, verb: str, name: bytes, other: bytes) -> None:
        meta = self.meta
        into = self.dirs.get(PLACES.get(name, b""), ROOT_REF)
        file = self.ref(name) if name else None
        try:
            if verb == "create":
                run_sync(meta.create(into, name, FILE))
            elif verb == "elsewhere":
                run_sync(meta.create(ROOT_REF, b"%d" % len(self.there_was), FILE))
            elif verb == "unlink":
                run_sync(meta.unlink(into, name))
            elif verb == "rename":
                run_sync(meta.rename(into, name, self.dirs[PLACES[other]], other))
            elif verb == "link" and file is not None:
                run_sync(meta.link(file, self.dirs[PLACES[other]], other))
            elif verb == "chmod" and file is not None:
                run_sync(meta.setattr(file, int(Set.MODE), mode=0o600))
            elif verb == "mkdir":
                run_sync(meta.mkdir(into, name, 0o755))
            elif verb == "write" and file is not None:
                run_sync(meta.publish(file, 0, writes=[(0, b"new" + name)]))
            elif verb == "sync":
                run_sync(meta.sync())
            elif verb == "timer":
                timers, self.client.background.timers = self.client.background.timers, []
                for ring in timers:
                    ring()
        except FsError:
            # There is no such file, or there is.
            is_there = other in self.client.state.overlay.groups[self.dirs[THERE].ino].entries
            assert other != b"c" or file is None or is_there, (verb, name, other)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_what_is_left_is_what_there_was_at_some_moment(length: int, *, old: bool) -> None:
    for sequence in itertools.product(OPERATIONS, repeat=length):
        life = Life(old=old)
        assert life.server.states is not None
        for step in sequence:
            if not life.is_known:
                break  # asked from now on, which is durable at once
            before = len(life.server.states)
            life.do(*step)
            asked = not life.is_known
            if not asked:
                life.there_was.append(life.truth())
            left = life.server.states[before:]
            moments = [life.there_was.index(s) for s in left if s in life.there_was]
            whole = left[:-1] if asked else left
            assert len(moments) >= len(whole), (sequence, "never was so")
            assert moments == sorted(moments), sequence
            if step[0] in ("sync", "elsewhere"):
                assert life.server.left() == life.there_was[-1], sequence
        run_sync(life.meta.sync())
        assert life.client.state.losses.files == 0, sequence
        assert life.server.store.findings() == [], sequence
