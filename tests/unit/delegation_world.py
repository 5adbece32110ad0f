"""A daemon in memory and a client that holds directories of it exclusively."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

from superfs.client.codec import unpack_names
from superfs.client.delegation.meta import DelegatedMeta
from superfs.client.delegation.shipping import Shipping
from superfs.client.delegation.state import Delegations
from superfs.client.session import Session
from superfs.core.attrs import PACKED_ATTR_BYTES, Attr, pack_attr, unpack_attr
from superfs.core.errors import Code, FsError
from superfs.core.ids import DELEGATED_GENERATION, GENERATION_HALF, ROOT, is_directory_id, range_of
from superfs.core.namespace.inodes import stamp_entries
from superfs.core.namespace.read_dir import read_dir
from superfs.core.namespace.txn import Caller, Dentry, Ref
from superfs.meta.columns import encode_outcome
from superfs.meta.dispatch import VERBS, ref
from superfs.meta.memstore import MemStore
from superfs.rpc.pending import Pending
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
        self.held_verbs: frozenset[str] | None = None
        """Only these are held."""
        self.grants_logged = True
        """Directories that a log makes are their client's."""
        self.refuses: Code | None = None
        self.buried = 0
        """Entries of logs that a client has given up."""
        self._generations = GENERATION_HALF
        self.exclusive: set[int] = set()
        self.given_back: set[int] = set()
        self.client: Client | None = None

    def submit(self, items: Iterable[OpItem]) -> None:
        for item in items:
            self.messages += 1
            if self.held is not None and self._holds(item):
                self.held.append(item)
            else:
                self.answer(item)

    def _holds(self, item: OpItem) -> bool:
        return self.held_verbs is None or item.op.WhichOneof("verb") in self.held_verbs

    def give_back(self, leases: Iterable[int]) -> None:
        self.given_back.update(leases)
        self.exclusive.difference_update(leases)

    def downgrade(self, leases: Iterable[int]) -> None:
        self.exclusive.difference_update(leases)

    def answer(self, item: OpItem) -> None:
        op = item.op
        name = op.WhichOneof("verb") or ""
        try:
            if name == "log":
                self.logs += 1
                if op.log.lost:
                    self.buried += len(op.log.entries)
                    item.pending.complete((meta_pb2.Result(), frozenset()))
                    return
                if self.refuses is not None:
                    raise FsError(self.refuses, "because")
                result = self.replay(op.log)
                for entry in op.log.entries:
                    verb = entry.WhichOneof("verb")
                    if verb in ("mkdir", "link") and self.grants_logged:
                        self.grant(entry.ino or entry.link.inode.ino)
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
                body = getattr(op, name)
                outcome = self.store.run(VERBS[name].rule, WHO, body)  # type: ignore[arg-type]
                result = encode_outcome(outcome)
                if name == "mkdir":
                    assert outcome.attr is not None
                    self.grant(outcome.attr.ino)
        except FsError as error:
            result = meta_pb2.Result(code=error.code, detail=error.detail)
        item.pending.complete((result, frozenset()))

    def let_go(self) -> None:
        """Answers what was held."""
        held, self.held = self.held or [], None
        for item in held:
            self.answer(item)

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
                assert attr.data_generation in (0, 1)
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
        self.gone: set[int] = set()
        self.late: list[Callable[[], None]] | None = None
        """What is called when it has told all of what is lost; None: it has, at once."""

    def lost(self, inos: Iterable[int], _error: FsError, heard: Callable[[], None]) -> None:
        self.gone.update(inos)
        heard() if self.late is None else self.late.append(heard)

    def recalled(self, message: meta_pb2.Invalidate, acknowledge: Callable[[], None]) -> None:
        self.told.append(message)
        acknowledge()


class NoContents:
    """Nothing is kept for data daemons."""

    async def send(self, _inos: Iterable[int]) -> None:
        pass

    def drop(self, _ino: int) -> bool:
        return False

    def drop_all(self, _inos: Iterable[int]) -> None:
        pass


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

    def __init__(self) -> None:
        self.timers: list[Callable[[], object]] = []

    def call_later(self, _seconds: float, callback: Callable[[], object]) -> None:
        self.timers.append(callback)


class Client:
    """A connection, as far as the verbs need one."""

    retry_timeout_s = 0.0  # what is to be asked again is an answer
    is_closed = False

    def __init__(self, server: Server) -> None:
        self.server = server
        server.client = self
        self.caller = WHO
        self.session = Session(1, b"", 0)
        self.background = Now()
        self.clock = 100.0
        self.state = Delegations(lambda: ((1,), 1), NoContents(), lambda: self.clock)
        self.meta = DelegatedMeta(self, self.state)  # type: ignore[arg-type]
        self.holder = Holder()
        self.shipping = Shipping(self, self.state, self.meta, self.holder)  # type: ignore[arg-type]
        self.meta.shipping = self.shipping
        self.settled = 0
        self.hello()

    def hello(self, session: int = 1) -> None:
        def settled() -> None:
            self.settled += 1

        if session != self.session.id:
            self.session = Session(session, b"", 0)
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
