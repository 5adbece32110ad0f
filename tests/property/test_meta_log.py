"""A log comes to the same as its operations one by one: operations at random run by the rules on
the store in memory, and as logs, of some at a time, on LMDB. What the log says that it comes to is
what the memory has: so every log is verified, and then every record is compared but for its times
and `change`. A log that says one thing else is refused, and has changed nothing."""

from __future__ import annotations

import stat
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from superfs.core.attrs import Attr, Set, pack_attr
from superfs.core.errors import Code, FsError
from superfs.core.ids import (
    DELEGATED_GENERATION,
    GENERATION_HALF,
    ROOT,
    delegated_file_id,
    is_directory_id,
    slot_of,
)
from superfs.core.namespace.make_root import make_root
from superfs.core.namespace.txn import Caller, Ref
from superfs.core.tokens import Authority
from superfs.daemon.statedir import Identity
from superfs.daemon.world import World
from superfs.meta import fsck
from superfs.meta.dispatch import VERBS
from superfs.meta.environment import Environment, make_store
from superfs.meta.founding import Founding
from superfs.meta.memstore import MemStore
from superfs.meta.records import Session
from superfs.meta.store import LmdbTxn
from superfs.v1 import meta_pb2
from unit.meta_exclusive import files, mkdir, unlinks

if TYPE_CHECKING:
    from superfs.meta.table import Records

MAP_BYTES = 8 << 20
IDENTITY = Identity("c", "metad", 1, 1)
CALLER = Caller(session=7, umask=0)
NAMES = [b"a", b"b", b"c", b"d"]
PICK = st.integers(0, 30)
STEP = st.tuples(st.sampled_from(range(11)), PICK, PICK, st.integers(0, 3), st.integers(0, 3))
WRONG = ["size", "nlink", "mode", "uid", "gid", "generation"]


class Twins(Founding):
    """The store in memory, and one that gets logs."""

    def __init__(self, directory: Path) -> None:
        super().__init__(World(Authority(b"k" * 32)))
        self.memory = MemStore()
        self.memory.chains = (1,)
        make_store(directory, IDENTITY, MAP_BYTES, self._populate)
        self.environment = Environment(directory, MAP_BYTES)
        self.numbers: dict[int, int] = {}  # of files: in memory -> in logs
        self.generations: dict[int, int] = {int(ROOT): 1}  # of directories
        self.next_generation = GENERATION_HALF
        self.entries: list[meta_pb2.LogEntry] = []
        self.touched: set[int] = set()

    def _populate(self, rows: Records) -> None:
        txn = LmdbTxn(rows, self, writable=True, room_bytes=1 << 30)
        make_root(txn)
        runs = ((GENERATION_HALF, GENERATION_HALF + 10_000),)
        txn.put_session(7, Session(range=1, runs=runs))
        txn.finish()

    def now_ns(self) -> int:
        return self.memory.now_ns

    # ---- one operation here, and the entry that tells of it

    def step(self, kind: int, pick: int, other: int, first: int, second: int) -> None:
        directories = sorted(self.memory.directories)
        place = directories[pick % len(directories)]
        into = directories[other % len(directories)]
        name, to = NAMES[first], NAMES[second]
        inodes = sorted(self.memory.inodes)
        attr = self.memory.inodes[inodes[pick % len(inodes)]] if inodes else None
        try:
            entry = self._do(kind, place, into, name, to, other, attr)
        except FsError:
            return
        if entry is not None:
            entry.now_ns = self.memory.now_ns
            self.entries.append(entry)

    def _do(
        self, kind: int, place: int, into: int, name: bytes, to: bytes, value: int,
        attr: Attr | None,
    ) -> meta_pb2.LogEntry | None:  # fmt: skip
        here, there = self.ref(place), self.ref(into)
        if kind <= 1:
            link = value % 3 == 0
            made = self._made(
                "create", CALLER, here, name, (stat.S_IFLNK if link else stat.S_IFREG) | 0o640,
                target=b"to" if link else b"", inline=b"" if link else b"x" * (value % 5),
            )  # fmt: skip
            self.numbers[made.ino] = delegated_file_id(slot_of(place), 1, len(self.numbers) + 1)
            self.touched |= {place, made.ino}
            data = self.memory.inline.get((place, made.ino), b"")
            return files(place, [(name, self.theirs(made), data)])
        if kind == 2:
            made = self._made("mkdir", CALLER, here, name, 0o755)
            self.generations[made.ino] = self.next_generation
            self.next_generation += 1
            self.touched |= {place, made.ino}
            return mkdir(place, name, self.generations[made.ino])
        if kind == 3:
            self.memory.do("unlink", CALLER, here, name)
            self.touched.add(place)
            return unlinks(place, name)
        if kind == 4:
            self.memory.do("rmdir", CALLER, here, name)
            self.touched.add(place)
            return meta_pb2.LogEntry(rmdir={"dir": self.wire(place), "name": name})
        if kind == 5:
            flags = value % 3
            outcome = self.memory.do("rename", CALLER, here, name, there, to, flags=flags)
            moved = [a.ino for a in (outcome.attr, outcome.other) if a is not None]
            self.touched |= {place, into, *moved}
            return meta_pb2.LogEntry(
                rename={"old_dir": self.wire(place), "old_name": name, "flags": flags,
                        "new_dir": self.wire(into), "new_name": to}
            )  # fmt: skip
        if kind == 6 and attr is not None:
            file = Ref(attr.ino, attr.generation, attr.place)
            self.memory.do("link", CALLER, file, there, to)
            self.touched |= {into, attr.ino}
            return meta_pb2.LogEntry(
                link={"inode": self.wire(attr.ino, attr.place), "dir": self.wire(into), "name": to}
            )
        return self._change(kind, attr, value)

    def _made(self, verb: str, *arguments: object, **options: object) -> Attr:
        attr = self.memory.do(verb, *arguments, **options).attr  # type: ignore[arg-type]
        assert attr is not None
        return attr

    def _change(self, kind: int, attr: Attr | None, value: int) -> meta_pb2.LogEntry | None:
        if attr is None:
            return None
        ref = Ref(attr.ino, attr.generation, attr.place)
        body: dict[str, Any] = {"inode": self.wire(attr.ino, attr.place)}
        if kind == 7:
            mask = int(Set.MODE | Set.UID) if value % 2 else int(Set.SIZE)
            self.memory.do("setattr", CALLER, ref, mask, mode=0o600, uid=value, size=value)
            self.touched.add(attr.ino)
            return meta_pb2.LogEntry(
                setattr={**body, "mask": mask, "mode": 0o600, "uid": value, "size": value}
            )
        if kind == 8:
            self.memory.do("publish", CALLER, ref, 0, writes=[(value, b"abc")])
            self.touched.add(attr.ino)
            return meta_pb2.LogEntry(
                publish={**body, "writes": [{"offset": value, "data": b"abc"}]}
            )
        name = b"user.%d" % (value % 2)
        if kind == 9:
            self.memory.do("setxattr", CALLER, ref, name, b"v")
            self.touched.add(attr.ino)
            return meta_pb2.LogEntry(setxattr={**body, "name": name, "value": b"v"})
        self.memory.do("removexattr", CALLER, ref, name)
        self.touched.add(attr.ino)
        return meta_pb2.LogEntry(removexattr={**body, "name": name})

    def ref(self, ino: int) -> Ref:
        return Ref(ino, self.memory.directories[ino].attr.generation, ino)

    def wire(self, ino: int, place: int = 0) -> dict[str, int]:
        """`place`: in the memory."""
        number = self.number(ino)
        return {
            "ino": number,
            "generation": self.generation(ino),
            "place": self.number(place or ino),
        }

    def number(self, ino: int) -> int:
        return ino if is_directory_id(ino) else self.numbers[ino]

    def generation(self, ino: int) -> int:
        return self.generations[ino] if is_directory_id(ino) else int(DELEGATED_GENERATION)

    def theirs(self, attr: Attr) -> Attr:
        """An inode of the memory as it is in logs."""
        ino, place = self.number(attr.ino), self.number(attr.place)
        return replace(attr, ino=ino, place=place, generation=self.generation(attr.ino))

    # ---- what was done until now, as a log

    def claimed(self) -> list[Attr]:
        """What has changed, as it is now."""
        claimed: list[Attr] = []
        for ino in sorted(self.touched):
            if is_directory_id(ino):
                directory = self.memory.directories.get(ino)
                claimed += [self.theirs(directory.attr)] if directory is not None else []
            else:
                claimed += [self.theirs(a) for (_, i), a in self.memory.inodes.items() if i == ino]
        return claimed

    def ship(self) -> None:
        attrs = b"".join(map(pack_attr, self.claimed()))
        with self.environment.begin() as writing:
            txn = self._txn(writing.rows)
            log = meta_pb2.Log(entries=self.entries, attrs=attrs)
            outcome = VERBS["log"].rule(txn, CALLER, log)
            assert outcome.number == txn.commit
            txn.finish()
            writing.commit()
        self.entries.clear()
        self.touched.clear()

    def lies(self, wrong: str) -> None:
        """A log that says something else of one inode."""
        claimed = self.claimed()
        if not claimed:
            return
        log = meta_pb2.Log(entries=self.entries)
        lie = replace(claimed[-1], **{wrong: getattr(claimed[-1], wrong) ^ 1})
        log.attrs = b"".join(map(pack_attr, [*claimed[:-1], lie]))
        before = self.tables()
        with self.environment.begin() as writing:
            txn = self._txn(writing.rows)
            with pytest.raises(FsError) as caught:
                VERBS["log"].rule(txn, CALLER, log)
            assert caught.value.code is Code.LOG_REFUSED
            assert not txn.changes
            assert before == self.tables(writing.rows)

    def _txn(self, rows: Records) -> LmdbTxn:
        txn = LmdbTxn(rows, self, writable=True, room_bytes=1 << 30)
        txn.session = CALLER.session
        return txn

    def tables(self, rows: Records | None = None) -> list[Any]:
        if rows is None:
            with self.environment.reading() as reading:
                return self.tables(reading)
        walker = fsck.StoreWalker(rows)
        return [
            sorted(walker.dentries(), key=lambda d: d[:2]),
            sorted((place, ino, _essence(a)) for place, ino, a in walker.inodes()),
            sorted((i, d.parent, d.name, _essence(d.attr)) for i, d in walker.directories()),
            sorted(walker.xattrs()),
            sorted(walker.inlines()),
            sorted(walker.moved()),
            sorted((ino, sorted(o.holders)) for ino, o in walker.orphans()),
        ]

    def expected(self) -> list[Any]:
        m, number = self.memory, self.number
        return [
            sorted(
                (
                    (place, name, replace(d, ino=number(d.ino), generation=self.generation(d.ino)))
                    for place, entries in m.dentries.items()
                    for name, d in entries.items()
                ),
                key=lambda d: d[:2],
            ),
            sorted(
                (number(place), number(ino), _essence(self.theirs(a)))
                for (place, ino), a in m.inodes.items()
            ),
            sorted(
                (ino, d.parent, d.name, _essence(self.theirs(d.attr)))
                for ino, d in m.directories.items()
            ),
            sorted(
                (number(place), number(ino), name)
                for (place, ino), values in m.xattrs.items()
                for name in values
            ),
            sorted(
                (number(place), number(ino), len(data)) for (place, ino), data in m.inline.items()
            ),
            sorted((number(ino), place) for ino, place in m.moved.items()),
            [],
        ]


def _essence(a: Attr) -> tuple[Any, ...]:
    return (
        a.ino, a.generation, a.place, a.mode, a.nlink, a.uid, a.gid, a.size, a.rdev, a.flags,
        a.data_generation, a.chains,
    )  # fmt: skip


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.lists(STEP, min_size=1, max_size=25), min_size=1, max_size=4),
    st.sampled_from(["", *WRONG]),
)
def test_logs_come_to_the_same(parts: list[list[tuple[int, ...]]], wrong: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        twins = Twins(Path(directory))
        try:
            for steps in parts:
                for step in steps:
                    twins.step(*step)
                if twins.entries:
                    twins.ship()
                assert twins.tables() == twins.expected()
                with twins.environment.reading() as rows:
                    assert not list(fsck.check_store(rows))
            for step in parts[0]:
                twins.step(*step)
            if wrong:
                twins.lies(wrong)
        finally:
            twins.environment.close()
