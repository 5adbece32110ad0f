"""The rules on LMDB and on the store in memory: the same operations at random give the same
answers, the same errors and the same tables."""

from __future__ import annotations

import random
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from superfs.client.codec import decode_listing, encode_create_many, encode_ref, pack_names
from superfs.core.attrs import Attr, Set
from superfs.core.errors import FsError
from superfs.core.ids import ROOT
from superfs.core.namespace.check import check
from superfs.core.namespace.end_truncate import end_truncate
from superfs.core.namespace.make_root import make_root
from superfs.core.namespace.outcome import Entry, Outcome
from superfs.core.namespace.release_orphan import release_orphan
from superfs.core.namespace.txn import Caller, Ref
from superfs.core.namespace.verbs import VERBS
from superfs.core.tokens import Authority
from superfs.daemon.statedir import Identity
from superfs.daemon.world import World
from superfs.meta import creation, listings
from superfs.meta.columns import encode_outcome
from superfs.meta.environment import Environment, make_store
from superfs.meta.founding import Founding
from superfs.meta.fsck import StoreWalker
from superfs.meta.memstore import MemStore
from superfs.meta.store import LmdbTxn
from superfs.meta.verify import verify
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from superfs.meta.table import Records

MAP_BYTES = 8 << 20
IDENTITY = Identity("c", "metad", 1, 1)
CALLERS = [
    Caller(session=7, umask=0),
    Caller(1000, 1000, frozenset({5}), 0o22, 8, trusted=False),
    Caller(0, 0, frozenset(), 0o77, 7, trusted=False),
]
NAMES = [b"a", b"b", b"c", b"\xff", b"", b".."]
SMALL = st.integers(0, 30)
STEP = st.tuples(st.integers(0, 26), SMALL, SMALL, st.integers(0, 7), st.integers(0, 7), SMALL)


class Pair(Founding):
    """Both stores. `run` gives the one answer of both."""

    def __init__(self, directory: Path) -> None:
        super().__init__(World(Authority(b"k" * 32)))
        self.directory = directory
        self.memory = MemStore()
        self.memory.chains = (1,)  # with more, the two may deal a layout differently
        make_store(directory, IDENTITY, MAP_BYTES, self._populate)
        self.environment = Environment(directory, MAP_BYTES)
        self.refs = [Ref(ROOT, 1, ROOT)]
        self.done = 0

    def _populate(self, rows: Records) -> None:
        txn = LmdbTxn(rows, self, writable=True, room_bytes=1 << 30)
        make_root(txn)
        txn.finish()

    # what an LmdbTxn asks: the same as the store in memory knows

    def now_ns(self) -> int:
        return self.memory.now_ns

    def available_chains(self) -> tuple[int, ...]:
        return self.memory.chains

    def chains_per_file(self) -> int:
        return 2

    def open_sessions(self, ino: int, place: int, txn: LmdbTxn) -> tuple[int, ...]:
        return tuple(self.memory.open_sessions(ino))

    def batch(self, steps: list[tuple[int, ...]]) -> None:
        """One commit on either side."""
        with self.environment.begin() as writing, self.memory.batch():
            txn = LmdbTxn(writing.rows, self, writable=True, room_bytes=1 << 30)
            for step in steps:
                rule, caller, arguments, options = self.operation(*step)
                first = self.attempt(self.memory.run, rule, caller, arguments, options)
                txn.next_operation()
                before = txn.changes
                if rule is VERBS["create_many"]:  # as a daemon does it: from columns
                    second = self.attempt(self.create_many, rule, caller, arguments,
                                          {**options, "txn": txn})  # fmt: skip
                else:
                    second = self.attempt(lambda f, *a, **k: f(txn, *a, **k), rule, caller,
                                          arguments, options)  # fmt: skip
                assert first == second, (rule.__name__, arguments, options)
                if rule in (VERBS["get_many"], VERBS["read_dir"]):
                    self.compare_columns(txn, rule, caller, arguments, options)
                if isinstance(second, Outcome):
                    self.done += 1
                    self.learn(second)
                else:
                    assert txn.changes == before, f"{rule.__name__} changed and raised"
            txn.finish()
            writing.commit()

    @staticmethod
    def create_many(
        _rule: object,
        caller: Caller,
        into: Ref,
        entries: list[Entry],
        *,
        txn: LmdbTxn,
        **more: bool,
    ) -> Outcome:
        message = encode_create_many(into, entries, **more)
        outcome = creation.create_many(txn, caller, message)
        if outcome.listing is not None:
            outcome.entries, outcome.listing = decode_listing(outcome.listing), None
        for entry in outcome.entries:
            entry.inline = None
        return outcome

    def compare_columns(
        self,
        txn: LmdbTxn,
        rule: Any,  # noqa: ANN401
        caller: Caller,
        arguments: tuple[Any, ...],
        options: dict[str, Any],
    ) -> None:
        """Listings made outright are those of the rules, byte for byte."""
        where = encode_ref(arguments[0])
        if rule is VERBS["get_many"]:
            names = pack_names(arguments[1])
            ask: Any = meta_pb2.GetMany(dir=where, names=names, **options)
            outright: Any = listings.get_many
        else:
            ask = meta_pb2.ReadDir(dir=where, **{"plus": True, **options})
            outright = listings.read_dir
        there = self.attempt(lambda f, *a, **k: encode_outcome(f(txn, *a, **k)), rule, caller,
                             arguments, options)  # fmt: skip
        here = self.attempt(lambda f, *a, **k: encode_outcome(f(txn, *a, **k)), outright, caller,
                            (ask,), {})  # fmt: skip
        assert here == there, (rule.__name__, arguments, options)

    @staticmethod
    def attempt(
        run: Any,  # noqa: ANN401
        rule: Any,  # noqa: ANN401
        caller: Caller | None,
        arguments: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:  # noqa: ANN401
        try:
            if caller is None:
                return run(rule, *arguments, **options)
            return run(rule, caller, *arguments, **options)
        except FsError as error:
            return error.code

    def learn(self, outcome: Outcome) -> None:
        found = [outcome.attr, outcome.other, *(e.attr for e in outcome.entries)]
        for attr in found:
            if attr is not None:
                ref = Ref(attr.ino, attr.generation, attr.place)
                if ref not in self.refs:
                    self.refs.append(ref)

    def operation(self, verb: int, a: int, b: int, c: int, d: int, e: int) -> Any:  # noqa: ANN401
        inode, other = self.refs[a % len(self.refs)], self.refs[b % len(self.refs)]
        name, second = NAMES[c % len(NAMES)], NAMES[d % len(NAMES)]
        caller = CALLERS[0 if e < 26 else 1 + e % 2]
        if e == 25:
            self.memory.opened.setdefault(inode.ino, set()).add(7)
        regular = stat.S_IFREG | 0o640
        table: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
            ("create", (inode, name, regular), {"inline": b"x" * e, "exclusive": bool(d % 2)}),
            ("create", (inode, name, stat.S_IFLNK), {"target": b"t" * e}),
            ("mkdir", (inode, name, 0o755), {}),
            ("unlink", (inode, name), {"keep": d == 1}),
            ("rmdir", (inode, name), {}),
            ("rename", (inode, name, other, second), {"flags": e % 4}),
            ("rename", (inode, name, other, second), {}),
            ("link", (inode, other, name), {}),
            ("setattr", (inode, int(Set.SIZE)), {"size": e * 7}),
            ("setattr", (inode, int(Set.MODE | Set.MTIME)), {"mode": d * 73, "mtime_ns": e - 9}),
            ("publish", (inode, 0), {"writes": [(e, b"y" * d)], "size": e}),
            ("new_data", (inode,), {}),
            ("publish", (inode, c + 2), {"spill": True, "inline_change": b, "size": 100 * e}),
            ("append", (inode, d), {"data": b"z" * d}),
            ("setxattr", (inode, b"user." + name, b"v" * e), {"flags": c % 3}),
            ("removexattr", (inode, b"user." + name), {}),
            ("reserve", (inode, d), {}),
            ("create_many", (inode, self.entries(name, second, e)), {"replace": bool(d % 2)}),
            ("remove_tree", (inode, name, d + 1), {}),
            ("read_dir", (inode,), {"after": name, "limit": d + 1, "inline_max": e}),
            ("read_dir", (inode,), {"limit": d + 1, "plus": False}),
            ("get_many", (inode, [name, second, b"c", b"missing"]), {"inline_max": e}),
            ("lookup", (inode, name), {"want_inline": True}),
            ("getattr", (inode,), {}),
            ("listxattr", (inode,), {}),
        ]
        if verb < len(table):
            word, arguments, options = table[verb]
            return VERBS[word], caller, arguments, options
        if verb == len(table):
            return end_truncate, None, (inode,), {}
        return release_orphan, None, (inode.ino, 7), {}

    @staticmethod
    def entries(name: bytes, second: bytes, size: int) -> list[Entry]:
        attr = Attr(0, 0, 0, stat.S_IFREG | 0o600, 1, 0, 0, size)
        more = [b"%d" % (size + i) for i in range(3)]  # mostly free names
        return [Entry(n, attr=attr, inline=b"m" * size) for n in (name, second, *more)[size % 3 :]]

    def compare(self) -> None:
        with self.environment.reading() as rows:
            walker, memory = StoreWalker(rows), self.memory
            assert {(p, n): d for p, n, d in walker.dentries()} == {
                (p, n): d for p, entries in memory.dentries.items() for n, d in entries.items()
            }
            assert {(p, i): a for p, i, a in walker.inodes()} == memory.inodes
            assert dict(walker.directories()) == memory.directories
            assert dict(walker.moved()) == memory.moved
            assert dict(walker.orphans()) == memory.orphans
            assert {(p, i): n for p, i, n in walker.inlines()} == {
                key: len(data) for key, data in memory.inline.items()
            }
            assert sorted(walker.xattrs()) == sorted(
                (p, i, n) for (p, i), values in memory.xattrs.items() for n in values
            )
            assert not list(check(walker))
        self.environment.close()
        verify(self.directory, IDENTITY)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(STEP, min_size=1, max_size=6), max_size=25))
def test_both_stores_answer_alike(batches: list[list[tuple[int, ...]]]) -> None:
    with tempfile.TemporaryDirectory(prefix="sfs") as directory:
        pair = Pair(Path(directory))
        for steps in batches:
            pair.batch(steps)
        pair.compare()


@pytest.mark.parametrize("seed", range(6))
def test_long_runs(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    limits = (26, 30, 30, 7, 7, 30)
    pair = Pair(tmp_path)
    for _ in range(150):
        pair.batch([tuple(rng.randint(0, most) for most in limits) for _ in range(4)])
    assert pair.done > 100, f"only {pair.done} operations succeeded"
    pair.compare()
