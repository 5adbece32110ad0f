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

from superfs.client.codec import unpack_names
from superfs.client.delegation.meta import DelegatedMeta
from superfs.client.delegation.shipping import Shipping
from superfs.client.delegation.state import Delegations
from superfs.core.attrs import PACKED_ATTR_BYTES, Attr, Set, pack_attr, unpack_attr
from superfs.core.errors import Code, FsError
from superfs.core.ids import DELEGATED_GENERATION, GENERATION_HALF, ROOT, is_directory_id, range_of
from superfs.core.namespace.inodes import stamp_entries
from superfs.core.namespace.outcome import Outcome
from superfs.core.namespace.read_dir import read_dir
from superfs.core.namespace.txn import Caller, Dentry, Ref
from superfs.meta.columns import encode_attr, encode_outcome
from superfs.meta.dispatch import VERBS, ref
from superfs.meta.memstore import MemStore
from superfs.rpc.pending import Pending, run_sync
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

    from superfs.client.session import OpItem

ROOT_REF = Ref(ROOT, 1, ROOT)
WHO = Caller(session=1, umask=0)


class Refused(Exception):
    """A log that says something else than it comes to."""


class Server:
    """A daemon, as far as one client can tell. Everything is answered at once, unless `held`."""

    def __init__(self) -> None:
        self.store = MemStore()
        self.store.chains = (1,)
        self.messages = 0
        self.logs = 0
        self.held: list[OpItem] | None = None
        self._generations = GENERATION_HALF
        self.exclusive: set[int] = set()
        self.client: Client | None = None

    def submit(self, items: Iterable[OpItem]) -> None:
        for item in items:
            self.messages += 1
            if self.held is not None:
                self.held.append(item)
            else:
                self.answer(item)

    def give_back(self, leases: Iterable[int]) -> None:
        self.exclusive.difference_update(leases)

    def answer(self, item: OpItem) -> None:
        op = item.op
        name = op.WhichOneof("verb") or ""
        try:
            if name == "log":
                self.logs += 1
                result = self.replay(op.log)
            elif name == "reserve":
                result = meta_pb2.Result(number=self._generations)
                self._generations += op.reserve.generations
            elif name == "read_dir":
                m = op.read_dir
                result = encode_outcome(
                    self.store.run(
                        read_dir, WHO, ref(m.dir), after=m.after, limit=m.limit, plus=True
                    )
                )
            else:
                outcome = self.store.run(VERBS[name].rule, WHO, getattr(op, name))  # type: ignore[arg-type]
                result = encode_outcome(outcome)
                if name == "mkdir":
                    assert outcome.attr is not None
                    self.grant(outcome.attr.ino)
        except FsError as error:
            result = meta_pb2.Result(code=error.code, detail=error.detail)
        item.pending.complete((result, frozenset()))

    def grant(self, directory: int) -> None:
        self.exclusive.add(directory)
        assert self.client is not None
        self.client.shipping.granted([directory], self.store.commit)

    # ---- the reference for logs: one operation after the other

    def replay(self, log: meta_pb2.Log) -> meta_pb2.Result:
        store = self.store
        touched: set[int] = set()
        with store.batch():
            for entry in log.entries:
                verb = entry.WhichOneof("verb") or ""
                body = getattr(entry, verb)
                store._now_ns = max(store._now_ns, entry.now_ns)
                if verb == "files":
                    touched.add(body.dir.ino)
                    self._files(body)
                elif verb == "unlinks":
                    touched.add(body.dir.ino)
                    for name in unpack_names(body.names):
                        unlink = meta_pb2.Unlink(dir=body.dir, name=name)
                        store.run(VERBS["unlink"].rule, WHO, unlink)  # type: ignore[arg-type]
                else:
                    outcome = store.run(VERBS[verb].rule, WHO, body)  # type: ignore[arg-type]
                    if verb == "mkdir":
                        assert outcome.attr is not None
                        assert outcome.attr.ino == entry.ino
                        self._pin(outcome.attr.ino, entry.generation)
                        self.exclusive.add(entry.ino)
            attrs = []
            for start in range(0, len(log.attrs), PACKED_ATTR_BYTES):
                attrs.append(pack_attr(self._verify(unpack_attr(log.attrs, start))))
        return meta_pb2.Result(number=store.commit, listing=meta_pb2.Listing(attrs=b"".join(attrs)))

    def _files(self, m: meta_pb2.LogFiles) -> None:
        store = self.store
        directory = store.get_directory(m.dir.ino)
        assert directory is not None
        at = 0
        before = 0
        for index, name in enumerate(unpack_names(m.names)):
            attr = unpack_attr(m.attrs, index * PACKED_ATTR_BYTES)
            length = int.from_bytes(m.inline_lengths[4 * index : 4 * index + 4], "little")
            assert range_of(attr.ino)[1] > before, "in ascending order"
            before = range_of(attr.ino)[1]
            assert attr.generation == DELEGATED_GENERATION
            assert attr.place == m.dir.ino
            assert store.get_dentry(m.dir.ino, name) is None, name
            assert store.get_inode(attr.place, attr.ino) is None
            assert attr.nlink == 1
            attr.change = max(attr.change, store.commit)
            if attr.is_inline:
                assert attr.data_generation == 0
                assert length == attr.size or stat.S_ISREG(attr.mode)
                data = m.inline[at : at + length]
                at += length
                if data:
                    store.put_inline(attr.place, attr.ino, data)
            else:
                assert length == 0xFFFFFFFF
                assert attr.data_generation == 1
            store.put_inode(attr)
            entry = Dentry(attr.ino, attr.generation, stat.S_IFMT(attr.mode))
            store.put_dentry(m.dir.ino, name, entry)
            stamp_entries(store, directory, 1)
        assert at == len(m.inline)
        store.put_directory(directory)

    def _pin(self, ino: int, generation: int) -> None:
        store = self.store
        directory = store.get_directory(ino)
        assert directory is not None
        directory.attr.generation = generation
        store.put_directory(directory)
        entry = store.get_dentry(directory.parent, directory.name)
        assert entry is not None
        entry.generation = generation
        store.put_dentry(directory.parent, directory.name, entry)

    def _verify(self, theirs: Attr) -> Attr:
        store = self.store
        if is_directory_id(theirs.ino):
            directory = store.get_directory(theirs.ino)
            assert directory is not None, "a directory that is not there"
            ours = directory.attr
        else:
            found = store.get_inode(theirs.place, theirs.ino)
            assert found is not None, "an inode that is not there"
            ours = found
        assert _essence(ours) == _essence(theirs)
        ours.change = max(ours.change, theirs.change)
        if is_directory_id(theirs.ino):
            assert directory is not None
            store.put_directory(directory)
        else:
            store.put_inode(ours)
        return ours


def _essence(a: Attr) -> tuple[object, ...]:
    return a.ino, a.generation, a.mode, a.nlink, a.uid, a.gid, a.size, a.flags, a.data_generation


class Holder:
    """The mount's part."""

    def __init__(self) -> None:
        self.told: list[meta_pb2.Invalidate] = []

    def recalled(self, message: meta_pb2.Invalidate, acknowledge: Callable[[], None]) -> None:
        self.told.append(message)
        acknowledge()


class Now:
    """Runs what is spawned at once, as far as it gets."""

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> Pending[Any]:
        done: Pending[Any] = Pending()
        self._step(coro, done)
        return done

    def _step(self, coro: Coroutine[Any, Any, Any], done: Pending[Any]) -> None:
        try:
            while True:
                pending = coro.send(None)
                if pending.on_done(lambda: self._step(coro, done)):
                    return
        except StopIteration as stop:
            done.complete(stop.value)

    def call_later(self, _seconds: float, _callback: Callable[[], object]) -> None:
        pass


class Client:
    """A connection, as far as the verbs need one."""

    retry_timeout_s = 0.0  # what is to be asked again is an answer
    is_closed = False

    def __init__(self, server: Server) -> None:
        self.server = server
        server.client = self
        self.caller = WHO
        self.background = Now()
        self.clock = 100.0
        self.state = Delegations(lambda: ((1,), 1), lambda: self.clock)
        self.meta = DelegatedMeta(self, self.state)  # type: ignore[arg-type]
        self.holder = Holder()
        self.shipping = Shipping(self, self.state, self.meta, self.holder)  # type: ignore[arg-type]
        self.meta.shipping = self.shipping
        self.settled = 0
        self.hello()

    def hello(self, session: int = 1) -> None:
        def settled() -> None:
            self.settled += 1

        welcome = meta_pb2.Welcome(number_range=session, now_ns=self.server.store.now_ns)
        self.state.extended(self.clock + 20)
        self.shipping.welcomed(session, welcome, settled)

    def meta_stream(self, _key: int) -> Server:
        return self.server

    def sleep(self, _seconds: float) -> Pending[None]:
        done: Pending[None] = Pending()
        done.complete(None)
        return done

    def delays(self) -> Iterator[float]:
        return iter([0.0])

    async def refresh_map(self) -> None:
        pass


def do(coro: Coroutine[Any, Any, Outcome]) -> Outcome | Code:
    try:
        return run_sync(coro, timeout_s=5)
    except FsError as error:
        return error.code


NAMES = [b"a", b"b", b"c", b"d"]
STEPS = st.lists(
    st.tuples(st.integers(0, 13), st.integers(0, 3), st.integers(0, 3), st.integers(0, 5)),
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
        self.dirs: list[tuple[Ref, Ref]] = [(ROOT_REF, ROOT_REF)]
        self.step_of = {
            0: self.create, 1: self.create, 2: self.write, 3: self.write, 4: self.unlink,
            5: self.rename, 6: self.setattr, 7: self.mkdir, 8: self.rmdir, 9: self.spill,
            10: self.sync, 11: self.recall, 12: self.symlink, 13: self.replace,
        }  # fmt: skip
        self.mkdir(0, 0, 0)
        self.mkdir(0, 1, 0)

    def both(self, verb: str, ours: Coroutine[Any, Any, Outcome], *args: Any, **more: Any) -> Any:  # noqa: ANN401
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
        mine = do(self.client.meta.lookup(self.at(d)[0], NAMES[n]))
        assert not isinstance(mine, Code)
        assert mine.attr is not None
        a = mine.attr
        return Ref(a.ino, a.generation, a.place), Ref(entry.ino, entry.generation, theirs.ino)

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
        mask, values = (
            (Set.MODE, {"mode": 0o640}),
            (Set.SIZE, {"size": 0}),
            (Set.SIZE, {"size": 2}),
            (Set.MTIME | Set.ATIME, {"mtime_ns": 5, "atime_ns": 6}),
            (Set.UID | Set.GID, {"uid": 7, "gid": 8}),
            (Set.SIZE, {"size": 9}),
        )[x]
        if mask & Set.SIZE and found[1].ino == found[1].place:
            return
        self.both(
            "setattr", self.client.meta.setattr(found[0], int(mask), **values),
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

    def sync(self, *_: int) -> None:
        run_sync(self.client.meta.sync(), timeout_s=5)
        assert tree(self.server.store, self.server.store, ROOT) == tree(
            self.model, self.model, ROOT
        )
        assert self.server.store.findings() == []

    def recall(self, d: int, _n: int, x: int) -> None:
        if x > 1:
            return
        ours, _ = self.at(d)
        confirmed = threading.Event()
        message = meta_pb2.Invalidate(number=1)
        message.recalls.add(lease=ours.ino, exclusive=True)
        self.client.shipping.recalled(message, confirmed.set)
        assert confirmed.is_set()
        assert tree(self.server.store, self.server.store, ours.ino)
        if x % 2:
            self.server.grant(ours.ino)


def _seen(a: Attr) -> tuple[object, ...]:
    return a.mode, a.nlink, a.uid, a.gid, a.size, a.flags, bool(a.data_generation)


def tree(store: MemStore, _also: MemStore, directory: int) -> dict[bytes, object]:
    found: dict[bytes, object] = {}
    record = store.get_directory(directory)
    assert record is not None
    found[b"."] = _seen(record.attr)
    for name, entry in store.list_dentries(directory, b"", 1000):
        if stat.S_ISDIR(entry.mode):
            found[name] = tree(store, store, entry.ino)
        else:
            attr = store.get_inode(directory, entry.ino)
            assert attr is not None
            times = attr.mtime_ns if attr.mtime_ns < 1000 else 0
            found[name] = _seen(attr), store.get_inline(directory, entry.ino), times
    return found


@settings(max_examples=300, deadline=None)
@given(steps=STEPS)
def test_a_log_comes_to_what_its_operations_do(steps: list[tuple[int, int, int, int]]) -> None:
    race = Race()
    for what, d, n, x in steps:
        race.step_of[what](d, n, x)
    race.sync()
