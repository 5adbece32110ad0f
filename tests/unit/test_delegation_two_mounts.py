"""Two clients of one daemon, with everything in flight in any order: no log is ever refused, and
what a client knows of a directory that it holds is what the daemon has.

A seed decides what is begun, what is answered and whose answer is taken in next. What is said to
a daemon by one client is in order but for questions, as on a stream; the kernel holds a directory
while one of its names is changed, so that of such operations there is one at a time.
"""

from __future__ import annotations

import random
import stat
from typing import TYPE_CHECKING, Any

import pytest

from superfs.core.attrs import Set
from superfs.core.errors import FsError
from superfs.core.ids import ROOT
from superfs.core.namespace.txn import Ref
from superfs.meta.told import hints
from superfs.v1 import meta_pb2
from unit.delegation_world import ROOT_REF, WHO, Client, Server

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from superfs.client.session import OpItem
    from superfs.rpc.pending import Pending

STEPS, SEEDS = 250, 25
NAMES = [b"a", b"b", b"c", b"d"]
FILE = stat.S_IFREG | 0o644
CHANGES_NAMES = ("create", "mkdir", "unlink", "rmdir", "rename")


class Port:
    """The stream of one client."""

    def __init__(self, daemon: Daemon, number: int) -> None:
        self.daemon = daemon
        self.number = number
        self.queue: list[OpItem] = []

    def submit(self, items: Iterable[OpItem]) -> None:
        self.queue += items

    def give_back(self, leases: Iterable[int]) -> None:
        for lease in leases:
            self.daemon.returned(self.number, lease)

    downgrade = give_back


class Mount(Client):
    retry_timeout_s = 30.0

    def __init__(self, daemon: Daemon, number: int) -> None:
        self.port = Port(daemon, number)
        daemon.ports.append(self.port)
        super().__init__(daemon)
        daemon.mounts.append(self)
        self.hello(session=number)
        self.state.extended(1e9)

    def meta_stream(self, _key: int) -> Port:  # type: ignore[override]
        return self.port


class Daemon(Server):
    """Answers when it is told to; has what is asked for shipped first."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng
        self.ports: list[Port] = []
        self.mounts: list[Mount] = []
        self.holder: dict[int, int] = {}
        self.asked: dict[int, object] = {}
        """Recalls that are not confirmed yet."""
        self.asker = 0
        self.generosity = 0.8

    def grant(self, directory: int) -> None:
        if self.holder.get(directory, self.asker) == self.asker and directory not in self.asked:
            self.holder[directory] = self.asker
            mount = next(m for m in self.mounts if m.port.number == self.asker)
            mount.shipping.granted([directory], self.store.commit)

    def returned(self, number: int, lease: int) -> None:
        if self.holder.get(lease) == number:
            del self.holder[lease]
            self.asked.pop(lease, None)

    def serve(self, port: Port, item: OpItem) -> bool:
        """False: it waits for somebody to ship."""
        verb = item.op.WhichOneof("verb") or ""
        body = getattr(item.op, verb)
        if verb != "log":
            about = self.about(verb, body)
            closed = {d for d in about if self.holder.get(d, port.number) != port.number}
            for directory in closed - self.asked.keys():
                self.recall(directory)
            if any(d in self.holder and self.holder[d] != port.number for d in closed):
                return False
        self.asker = port.number
        port.queue.remove(item)
        self.grants_logged = self.rng.random() < 0.9
        self.answer(item)
        return True

    def answer(self, item: OpItem) -> None:
        verb = item.op.WhichOneof("verb") or ""
        if verb in CHANGES_NAMES and self.rng.random() < self.generosity:
            for directory in self.about(verb, getattr(item.op, verb)):
                if self.store.get_directory(directory) is not None:
                    self.grant(directory)
        super().answer(item)

    def about(self, verb: str, body: Any) -> set[int]:  # noqa: ANN401
        """All that the rule will look at."""
        store, found = self.store, set[int]()
        hints(found, verb, body)
        for ref in [getattr(body, f) for f in ("inode", "dir") if hasattr(body, f)]:
            found |= {d for d in store.directories if store.get_inode(d, ref.ino) is not None}
            found.add(ref.ino)  # a file with several names
            directory = store.get_directory(ref.ino)
            if directory is not None and verb == "setattr":  # its mode lies with its name, too
                found.add(directory.parent)
        names = [(body.dir.ino, getattr(body, "name", None))] if hasattr(body, "dir") else []
        if verb == "rename":
            names = [(body.old_dir.ino, body.old_name), (body.new_dir.ino, body.new_name)]
        for directory_ino, name in names:
            entries = list(store.list_dentries(directory_ino, b"", 100))
            found |= {e.ino for n, e in entries if n == name or verb == "read_dir"}
        return found

    def recall(self, directory: int) -> None:
        holder = next(m for m in self.mounts if m.port.number == self.holder[directory])
        number = self.holder[directory]
        self.asked[directory] = mark = object()

        def confirmed() -> None:
            if self.asked.get(directory) is mark:
                self.returned(number, directory)

        message = meta_pb2.Invalidate(number=1)
        message.recalls.add(lease=directory, exclusive=True)
        holder.shipping.recalled(message, confirmed)


class Run:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.daemon = Daemon(self.rng)
        self.mounts = [Mount(self.daemon, 1), Mount(self.daemon, 2)]
        self.going: list[tuple[Coroutine[Any, Any, Any], Pending[Any], tuple[int, int]]] = []
        self.places: dict[int, list[Ref]] = {1: [], 2: []}
        self.found: dict[int, list[Ref]] = {1: [], 2: []}
        for number, mount in enumerate(self.mounts, 1):
            for name in NAMES[number::2]:  # one from before, one made here
                made = self.daemon.store.do("mkdir", WHO, ROOT_REF, b"d" + name, 0o755).attr
                assert made is not None
                self.places[number].append(Ref(made.ino, made.generation, made.ino))
            self.advance(mount.meta.mkdir(ROOT_REF, b"own%d" % number, 0o755), (number, ROOT))

    def others(self, number: int) -> int:
        """Mostly everybody is at home; sometimes with the other."""
        return number if self.rng.random() < 0.97 else 3 - number

    def step(self, *, begins: bool) -> None:
        chance = self.rng.random()
        if chance < 0.4 and begins:
            self.begin()
        elif chance < 0.75:
            self.serve()
        elif chance < 0.95:
            self.resume()
        else:
            mount = self.rng.choice(self.mounts)
            timers, mount.background.timers = mount.background.timers, []
            for ring in timers:
                ring()

    def begin(self) -> None:
        mount = self.rng.choice(self.mounts)
        number, meta = mount.port.number, mount.meta
        dirs = self.places[self.others(number)]
        into, name = self.rng.choice(dirs), self.rng.choice(NAMES)
        what = self.rng.choice(["create", "create", "unlink", "rename", "move", "mkdir", "rmdir"])
        lock = (number, into.ino)
        if self.rng.random() < 0.5:
            self.begin_on_file(mount)
            return
        if any(locked == lock for *_, locked in self.going):
            return
        other = self.rng.choice(NAMES)
        coro: Coroutine[Any, Any, Any]
        if what == "create":
            coro = meta.create(into, name, FILE)
        elif what == "unlink":
            coro = meta.unlink(into, name)
        elif what == "rename":
            coro = meta.rename(into, name, into, other)
        elif what == "move":
            if any(locked[0] == number and locked[1] for *_, locked in self.going):
                return
            lock = (number, into.ino)
            coro = meta.rename(into, name, self.rng.choice(dirs), other)
        elif what == "mkdir":
            coro = meta.mkdir(into, name, 0o755)
        else:
            coro = meta.rmdir(into, name)
        self.advance(coro, lock)

    def begin_on_file(self, mount: Mount) -> None:
        meta, whose = mount.meta, self.others(mount.port.number)
        if not self.found[whose]:
            return
        file, dirs = self.rng.choice(self.found[whose]), self.places[whose]
        if self.rng.random() < 0.2:  # by where it may have been before
            file = Ref(file.ino, file.generation, self.rng.choice(dirs).ino)
        what = self.rng.randrange(4)
        coro: Coroutine[Any, Any, Any]
        if what == 0:
            mode = self.rng.choice([0o600, 0o640, 0o644])
            coro = meta.setattr(file, int(Set.MODE), mode=mode)
        elif what == 1:
            coro = meta.publish(file, 0, writes=[(self.rng.randrange(9), b"data")])
        elif what == 2:
            coro = meta.getattr(file)
        else:
            coro = meta.read_dir(self.rng.choice(dirs))
        self.advance(coro, (mount.port.number, 0))

    def advance(self, coro: Coroutine[Any, Any, Any], lock: tuple[int, int]) -> None:
        try:
            self.going.append((coro, coro.send(None), lock))
        except StopIteration as stop:
            attr = None if stop.value is None else stop.value.attr
            if attr is not None and attr.nlink:
                found = (self.places if attr.is_dir else self.found)[lock[0]]
                found.append(Ref(attr.ino, attr.generation, attr.place))
                del found[3:-6]
        except FsError:
            pass

    def serve(self) -> None:
        port = self.rng.choice(self.daemon.ports)
        changes = [item for item in port.queue if item.mutates]
        may = [item for item in port.queue if not item.mutates] + changes[:1]
        for item in changes:  # a log goes by what waits for others to ship
            if item.op.WhichOneof("verb") == "log":
                may.append(item)
        if may:
            self.daemon.serve(port, self.rng.choice(may))

    def resume(self) -> None:
        ready = [entry for entry in self.going if entry[1].done]
        if ready:
            entry = self.rng.choice(ready)
            self.going.remove(entry)
            if self.rng.random() < 0.03:
                entry[0].close()  # whoever asked was killed
            else:
                self.advance(entry[0], entry[2])

    def settle(self) -> None:
        for _ in range(5000):
            if not (self.going or any(port.queue for port in self.daemon.ports)):
                if all(mount.state.is_synced for mount in self.mounts):
                    return
                for mount in self.mounts:
                    self.advance(mount.meta.sync(), (mount.port.number, 0))
            self.step(begins=False)
        raise AssertionError("it does not come to an end")

    def check(self) -> None:
        store = self.daemon.store
        assert store.findings() == []
        for mount in self.mounts:
            assert not mount.state.losses
            assert mount.state.is_synced
            assert not mount.state.changing
            assert not mount.state.busy
            for number, group in mount.state.overlay.groups.items():
                if number not in mount.state.exclusive:
                    continue
                record = store.get_directory(number)
                assert record is not None
                assert _seen(record.attr) == _seen(group.directory.attr)
                entries = dict(store.list_dentries(number, b"", 1000))
                assert entries.keys() == group.entries.keys()
                for name, entry in entries.items():
                    ours = group.entries[name]
                    assert (entry.ino, entry.mode) == (ours.ino, ours.mode)
                    attr = store.get_inode(number, entry.ino)
                    mine = group.inodes.get(entry.ino)
                    assert (attr is None) == (mine is None)
                    if attr is not None:
                        assert _seen(attr) == _seen(mine)


def _seen(a: Any) -> tuple[object, ...]:  # noqa: ANN401
    return a.mode, a.nlink, a.uid, a.gid, a.size, a.flags, a.data_generation, a.place


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_log_is_refused_and_nothing_known_is_old(seed: int) -> None:
    run = Run(seed)
    for _ in range(4):
        for _ in range(STEPS):
            run.step(begins=True)
        run.settle()
        run.check()
