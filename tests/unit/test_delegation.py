"""What a client does by itself and ships as a log comes to the same as asking for every operation.

A server in memory takes operations and logs; a model takes every operation at once. After each the
client's answer is the model's, and whenever the log is shipped the server has what the model has.
"""

from __future__ import annotations

import stat
import threading
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
from hypothesis import given, settings

from superfs.core.attrs import Attr, Set
from superfs.core.errors import Code, FsError
from superfs.core.ids import ROOT, is_directory_id
from superfs.core.namespace.txn import Ref
from superfs.meta.memstore import MemStore
from superfs.rpc.pending import run_sync
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from superfs.core.namespace.outcome import Outcome

from unit.delegation_world import ROOT_REF, WHO, Client, Server


def do(coro: Coroutine[Any, Any, Outcome]) -> Outcome | Code:
    try:
        return run_sync(coro, timeout_s=5)
    except FsError as error:
        return error.code


NAMES = [b"a", b"b", b"c", b"d"]
STEPS = st.lists(
    st.tuples(st.integers(0, 17), st.integers(0, 3), st.integers(0, 3), st.integers(0, 5)),
    min_size=40,
    max_size=120,
)


class Race:
    """The client and the model, in step."""

    def __init__(self) -> None:
        self.server = Server()
        self.client = Client(self.server)
        self.model = MemStore()
        self.model.chains = (1,)
        self.refs: dict[int, Ref] = {}
        """Of files, by the model's number: as the client was last told."""
        self.dirs: list[tuple[Ref, Ref]] = [(ROOT_REF, ROOT_REF)]
        self.step_of: dict[int, Callable[[int, int, int], None]] = {
            0: self.create, 1: self.create, 2: self.write, 3: self.write, 4: self.unlink,
            5: self.rename, 6: self.setattr, 7: self.mkdir, 8: self.rmdir, 9: self.spill,
            10: self.sync, 11: self.recall, 12: self.symlink, 13: self.replace,
            14: self.link, 15: self.link, 16: self.recall_file, 17: self.look,
        }  # fmt: skip
        self.mkdir(0, 0, 0)
        self.mkdir(0, 1, 0)

    def both(
        self,
        verb: str,
        ours: Coroutine[Any, Any, Outcome],
        *args: Any,  # noqa: ANN401
        **more: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        mine = do(ours)
        try:
            theirs: Outcome | Code = self.model.do(verb, WHO, *args, **more)
        except FsError as error:
            theirs = error.code
        if isinstance(mine, Code) or isinstance(theirs, Code):
            assert mine == theirs, (verb, args, more)
            return None
        for a, b in ((mine.attr, theirs.attr), (mine.other, theirs.other)):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                assert _seen(a) == _seen(b), (verb, args)
            if a is not None and b is not None and not b.is_dir:
                self.refs[b.ino] = Ref(a.ino, a.generation, a.place)
        for a, b in zip(mine.dirs, theirs.dirs, strict=True):
            assert _seen(a) == _seen(b)
        return mine, theirs

    def at(self, d: int) -> tuple[Ref, Ref]:
        return self.dirs[-1 - d % len(self.dirs)]

    def create(self, d: int, n: int, x: int) -> None:
        ours, theirs = self.at(d)
        mode = stat.S_IFREG | (0o644, 0o600)[x % 2]
        self.both("create", self.client.meta.create(ours, NAMES[n], mode), theirs, NAMES[n], mode)

    def symlink(self, d: int, n: int, x: int) -> None:
        ours, theirs = self.at(d)
        mode, target = stat.S_IFLNK | 0o777, b"t" * (x + 1)
        self.both(
            "create",
            self.client.meta.create(ours, NAMES[n], mode, target=target),
            theirs, NAMES[n], mode, target=target,
        )  # fmt: skip

    def file(self, d: int, n: int) -> tuple[Ref, Ref] | None:
        """Of this name, by what either side has. Nothing is asked."""
        _, theirs = self.at(d)
        entry = self.model.get_dentry(theirs.ino, NAMES[n])
        if entry is None or not stat.S_ISREG(entry.mode):
            return None
        place = theirs.ino
        if self.model.get_inode(place, entry.ino) is None:
            place = entry.ino
        return self.refs[entry.ino], Ref(entry.ino, entry.generation, place)

    def look(self, d: int, n: int, _x: int) -> None:
        """A file by name, here or at the daemon. (Of directories the mount knows better.)"""
        ours, theirs = self.at(d)
        entry = self.model.get_dentry(theirs.ino, NAMES[n])
        if entry is not None and stat.S_ISDIR(entry.mode):
            return
        found = do(self.client.meta.find_name(ours, NAMES[n]))
        assert not isinstance(found, Code)
        if entry is None:
            assert found.attr is None
            return
        attr = self.model.do("lookup", WHO, theirs, NAMES[n]).attr
        assert found.attr is not None
        assert attr is not None
        assert _seen(found.attr) == _seen(attr)

    def write(self, d: int, n: int, x: int) -> None:
        found = self.file(d, n)
        if found is None:
            return
        attr = self.model.get_inode(found[1].place, found[1].ino)
        assert attr is not None
        if not attr.is_inline:
            return
        writes = [(x, bytes([65 + x]) * (3 + x))]
        self.both(
            "publish",
            self.client.meta.publish(found[0], 0, writes=writes),
            found[1], 0, writes=writes,
        )  # fmt: skip

    def spill(self, d: int, n: int, x: int) -> None:
        found = self.file(d, n)
        if found is None:
            return
        pair = self.both("new_data", self.client.meta.new_data(found[0]), found[1])
        if pair is None:
            return
        mine, theirs = pair
        if x == 0:
            return  # prepared and never done
        assert mine.data == theirs.data
        self.both(
            "publish",
            self.client.meta.publish(
                found[0], mine.number, size=10_000 + x, spill=True,
                inline_change=mine.attr.change,
            ),
            found[1], theirs.number, size=10_000 + x, spill=True,
            inline_change=theirs.attr.change,
        )  # fmt: skip

    def setattr(self, d: int, n: int, x: int) -> None:
        found = self.file(d, n)
        if found is None:
            if x % 2:
                return
            found = self.at(d)
        mask: Set
        values: dict[str, Any]
        mask, values = (
            (Set.MODE, {"mode": 0o640}),
            (Set.SIZE, {"size": 0}),
            (Set.SIZE, {"size": 2}),
            (Set.MTIME | Set.ATIME, {"mtime_ns": 5, "atime_ns": 6}),
            (Set.UID | Set.GID, {"uid": 7, "gid": 8}),
            (Set.SIZE, {"size": 9}),
        )[x]
        if mask & Set.SIZE and is_directory_id(found[1].ino):
            return
        self.both(
            "setattr", self.client.meta.setattr(found[0], int(mask), caller=None, **values),
            found[1], int(mask), **values,
        )  # fmt: skip

    def unlink(self, d: int, n: int, _x: int) -> None:
        ours, theirs = self.at(d)
        self.both("unlink", self.client.meta.unlink(ours, NAMES[n]), theirs, NAMES[n])

    def rename(self, d: int, n: int, x: int) -> None:
        ours, theirs = self.at(d)
        new, flags = NAMES[x % 4], x // 4
        self.both(
            "rename",
            self.client.meta.rename(ours, NAMES[n], ours, new, flags=flags),
            theirs, NAMES[n], theirs, new, flags=flags,
        )  # fmt: skip
        self.look_again()

    def replace(self, d: int, n: int, x: int) -> None:
        """Across directories, and with what is replaced kept."""
        ours, theirs = self.at(d)
        into, there = self.at(x)
        self.both(
            "rename",
            self.client.meta.rename(ours, NAMES[n], into, NAMES[x % 4], keep=d == x),
            theirs, NAMES[n], there, NAMES[x % 4], keep=d == x,
        )  # fmt: skip
        self.look_again()

    def link(self, d: int, n: int, x: int) -> None:
        found = self.file(d, n)
        if found is None:
            return
        into, there = self.at(x)
        name = NAMES[(n + x) % 4]
        self.both(
            "link", self.client.meta.link(found[0], into, name), found[1], there, name
        )  # fmt: skip

    def mkdir(self, d: int, n: int, _x: int) -> None:
        ours, theirs = self.at(d)
        pair = self.both(
            "mkdir", self.client.meta.mkdir(ours, NAMES[n], 0o755), theirs, NAMES[n], 0o755
        )
        if pair is not None:
            refs = [Ref(o.attr.ino, o.attr.generation, o.attr.ino) for o in pair]
            self.dirs.append((refs[0], refs[1]))

    def rmdir(self, d: int, n: int, _x: int) -> None:
        ours, theirs = self.at(d)
        self.both("rmdir", self.client.meta.rmdir(ours, NAMES[n]), theirs, NAMES[n])
        self.look_again()

    def look_again(self) -> None:
        self.dirs = [pair for pair in self.dirs if pair[1].ino in self.model.directories]

    def sync(self, _d: int = 0, _n: int = 0, _x: int = 0) -> None:
        run_sync(self.client.meta.sync(), timeout_s=5)
        assert tree(self.server.store, ROOT) == tree(self.model, ROOT)
        assert self.server.store.findings() == []

    def recall(self, d: int, _n: int, x: int) -> None:
        if x > 1:
            return
        ours, _ = self.at(d)
        self._recall(ours.ino)
        assert tree(self.server.store, ours.ino)
        if x % 2:
            self.server.grant(ours.ino)

    def recall_file(self, d: int, n: int, x: int) -> None:
        """One with several names, and nothing else."""
        linked = sorted(self.client.state.overlay.linked)
        if linked and x < 3:
            self._recall(linked[(d + n) % len(linked)])

    def _recall(self, lease: int) -> None:
        confirmed = threading.Event()
        message = meta_pb2.Invalidate(number=1)
        message.recalls.add(lease=lease, exclusive=True)
        self.client.shipping.recalled(message, confirmed.set)
        assert confirmed.is_set()


def _seen(a: Attr) -> tuple[object, ...]:
    return a.mode, a.nlink, a.uid, a.gid, a.size, a.flags, bool(a.data_generation)


def tree(store: MemStore, directory: int) -> dict[bytes, object]:
    found: dict[bytes, object] = {}
    record = store.get_directory(directory)
    assert record is not None
    found[b"."] = _seen(record.attr)
    for name, entry in store.list_dentries(directory, b"", 1000):
        if stat.S_ISDIR(entry.mode):
            found[name] = tree(store, entry.ino)
        else:
            attr = store.get_inode(directory, entry.ino) or store.get_inode(entry.ino, entry.ino)
            assert attr is not None
            times = attr.mtime_ns if attr.mtime_ns < 1000 else 0
            found[name] = _seen(attr), store.get_inline(attr.place, entry.ino), times
    return found


@settings(max_examples=300, deadline=None)
@given(steps=STEPS)
def test_a_log_comes_to_what_its_operations_do(steps: list[tuple[int, int, int, int]]) -> None:
    race = Race()
    for what, d, n, x in steps:
        race.step_of[what](d, n, x)
    race.sync()
