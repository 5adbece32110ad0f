"""What every `Txn` keeps to, whatever it is made of: the store in memory and LMDB run the same."""

from __future__ import annotations

import contextlib
import stat
from typing import TYPE_CHECKING, Any

import pytest

from superfs.core.attrs import Attr
from superfs.core.ids import DIRECTORY_BIT, LOW_MASK, ROOT, SLOT_SHIFT, slot_of
from superfs.core.namespace.txn import Dentry, Directory, Orphan
from superfs.core.tokens import Authority
from superfs.daemon.statedir import Identity
from superfs.daemon.world import World
from superfs.meta.environment import Environment, make_store
from superfs.meta.founding import Founding
from superfs.meta.memstore import MemStore
from superfs.meta.store import LmdbTxn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from superfs.core.namespace.txn import Txn
    from superfs.meta.table import Records

    Begin = Callable[[], AbstractContextManager[Txn]]

FILE = (3 << SLOT_SHIFT) | 9
DIRECTORY = (3 << SLOT_SHIFT) | DIRECTORY_BIT | 77
OTHER = (4 << SLOT_SHIFT) | DIRECTORY_BIT | 5
MAP_BYTES = 4 << 20


class Chained(Founding):
    def __init__(self, world: World, opened: dict[int, set[int]]) -> None:
        super().__init__(world)
        self._opened = opened

    def available_chains(self) -> tuple[int, ...]:
        return (1, 2)

    def chains_per_file(self) -> int:
        return 2

    def open_sessions(self, ino: int, place: int, txn: LmdbTxn) -> set[int]:
        return self._opened.get(ino, set())


def no_records(_rows: Records) -> None:
    pass


@pytest.fixture(params=["memory", "lmdb"])
def begin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Begin]:
    """begin(): a transaction; what it did is there in the next one."""
    opened: dict[int, set[int]] = {FILE: {7, 8}}
    if request.param == "memory":
        store = MemStore(with_root=False)
        store.opened = opened
        yield lambda: contextlib.nullcontext(store)
        return
    make_store(tmp_path, Identity("c", "metad", 1, 1), MAP_BYTES, no_records)
    environment = Environment(tmp_path, MAP_BYTES)
    outside = Chained(World(Authority(b"k" * 32)), opened)

    @contextlib.contextmanager
    def lmdb_txn() -> Iterator[Txn]:
        with environment.begin() as writing:
            txn = LmdbTxn(writing.rows, outside, writable=True, room_bytes=1 << 20)
            yield txn
            txn.finish()
            writing.commit()

    yield lmdb_txn
    environment.close()


def attr(ino: int = FILE, place: int = DIRECTORY, **more: Any) -> Attr:  # noqa: ANN401
    values: dict[str, Any] = {"mode": stat.S_IFREG | 0o644, "nlink": 1, "uid": 1, "gid": 2, **more}
    return Attr(ino, 5, place, **values)


def directory(ino: int = DIRECTORY, **more: Any) -> Directory:  # noqa: ANN401
    made = attr(ino, ino, mode=stat.S_IFDIR | 0o755, nlink=2)
    return Directory(made, ROOT, b"name", **more)


def test_dentries_are_listed_in_byte_order(begin: Begin) -> None:
    names = [b"b", b"a", b"\xff", b"a\0", b"a" * 255, b"aa", b"B"]
    with begin() as txn:
        for number, name in enumerate(names, 1):
            txn.put_dentry(DIRECTORY, name, Dentry(number, 5, stat.S_IFREG))
        txn.put_dentry(DIRECTORY + 1, b"x", Dentry(1, 5, stat.S_IFREG))
        txn.put_dentry(DIRECTORY - 1, b"x", Dentry(1, 5, stat.S_IFREG))
    with begin() as txn:
        wanted = sorted(names)
        assert [n for n, _ in txn.list_dentries(DIRECTORY, b"", 100)] == wanted
        assert [n for n, _ in txn.list_dentries(DIRECTORY, b"", 3)] == wanted[:3]
        for i, name in enumerate(wanted):
            assert [n for n, _ in txn.list_dentries(DIRECTORY, name, 100)] == wanted[i + 1 :]
        assert [n for n, _ in txn.list_dentries(DIRECTORY, b"C", 2)] == [b"a", b"a\0"]
        assert list(txn.list_dentries(OTHER, b"", 10)) == []
        found = txn.get_dentry(DIRECTORY, b"aa")
        assert found is not None
        assert found.ino == names.index(b"aa") + 1
        assert txn.get_dentry(DIRECTORY, b"A") is None


def test_what_a_transaction_wrote_is_visible_in_it(begin: Begin) -> None:
    with begin() as txn:
        txn.put_directory(directory())
        txn.put_inode(attr())
        assert txn.get_directory(DIRECTORY) == directory()
        assert txn.get_inode(DIRECTORY, FILE) == attr()
        txn.delete_directory(DIRECTORY)
        assert txn.get_directory(DIRECTORY) is None
        txn.put_directory(directory(layout=(1, 2)))
        assert txn.get_directory(DIRECTORY) == directory(layout=(1, 2))
        txn.put_dentry(DIRECTORY, b"a", Dentry(1, 5, stat.S_IFREG))
        assert [n for n, _ in txn.list_dentries(DIRECTORY, b"", 9)] == [b"a"]
        txn.delete_dentry(DIRECTORY, b"a")
        assert list(txn.list_dentries(DIRECTORY, b"", 9)) == []
    with begin() as txn:
        assert txn.get_directory(DIRECTORY) == directory(layout=(1, 2))
        txn.delete_directory(DIRECTORY)
    with begin() as txn:
        assert txn.get_directory(DIRECTORY) is None


def test_made_and_removed_in_one_transaction(begin: Begin) -> None:
    with begin() as txn:
        txn.put_directory(directory())
        txn.delete_directory(DIRECTORY)
    with begin() as txn:
        assert txn.get_directory(DIRECTORY) is None


def test_records_are_copies(begin: Begin) -> None:
    with begin() as txn:
        given = directory()
        txn.put_directory(given)
        given.attr.size = 99
        found = txn.get_directory(DIRECTORY)
        assert found is not None
        assert found.attr.size == 0
        found.attr.size = 77
        again = txn.get_directory(DIRECTORY)
        assert again is not None
        assert again.attr.size == 0
        orphan = Orphan(attr(place=FILE, nlink=0), {1})
        txn.put_orphan(orphan)
        orphan.holders.add(2)
        kept = txn.get_orphan(FILE)
        assert kept is not None
        assert kept.holders == {1}


def test_inodes_are_filed_by_place(begin: Begin) -> None:
    with begin() as txn:
        txn.put_inode(attr(size=1))
        txn.put_inode(attr(place=FILE, size=2))
    with begin() as txn:
        here, there = txn.get_inode(DIRECTORY, FILE), txn.get_inode(FILE, FILE)
        assert here is not None
        assert there is not None
        assert (here.size, there.size) == (1, 2)
        txn.delete_inode(DIRECTORY, FILE)
        assert txn.get_inode(DIRECTORY, FILE) is None
        assert txn.get_inode(FILE, FILE) == there


def test_xattrs_and_contents(begin: Begin) -> None:
    with begin() as txn:
        for name in (b"user.b", b"user.a", b"user.a\xff"):
            txn.put_xattr(DIRECTORY, FILE, name, name * 2)
        txn.put_xattr(DIRECTORY, FILE + 1, b"user.c", b"")
        txn.put_inline(DIRECTORY, FILE, b"contents")
        txn.put_inline(DIRECTORY, FILE, b"others")
    with begin() as txn:
        assert list(txn.list_xattrs(DIRECTORY, FILE)) == [b"user.a", b"user.a\xff", b"user.b"]
        assert txn.get_xattr(DIRECTORY, FILE, b"user.a") == b"user.auser.a"
        assert txn.get_xattr(DIRECTORY, FILE + 1, b"user.c") == b""
        assert txn.get_xattr(DIRECTORY, FILE, b"user.c") is None
        txn.delete_xattr(DIRECTORY, FILE, b"user.a")
        assert list(txn.list_xattrs(DIRECTORY, FILE)) == [b"user.a\xff", b"user.b"]
        assert list(txn.list_xattrs(DIRECTORY, FILE - 1)) == []
        assert txn.get_inline(DIRECTORY, FILE) == b"others"
        assert txn.get_inline(FILE, FILE) is None
        txn.delete_inline(DIRECTORY, FILE)
        assert txn.get_inline(DIRECTORY, FILE) is None


def test_moved_and_orphans(begin: Begin) -> None:
    with begin() as txn:
        assert txn.get_moved(FILE) is None
        txn.put_moved(FILE, OTHER)
        txn.put_orphan(Orphan(attr(place=FILE, nlink=0), {3, 1 << 63}))
        assert set(txn.open_sessions(FILE)) == {7, 8}
        assert not set(txn.open_sessions(FILE + 1))
    with begin() as txn:
        assert txn.get_moved(FILE) == OTHER
        txn.delete_moved(FILE)
        assert txn.get_moved(FILE) is None
        orphan = txn.get_orphan(FILE)
        assert orphan is not None
        assert orphan.holders == {3, 1 << 63}
        txn.delete_orphan(FILE)
        assert txn.get_orphan(FILE) is None


def test_numbers_are_never_given_twice(begin: Begin) -> None:
    inos: set[int] = set()
    generations: set[int] = set()
    for slot in (0, 3, 3, 4095):
        with begin() as txn:
            first = txn.new_inode_ids(slot, 10)
            assert slot_of(first) == slot
            assert first & LOW_MASK > 0
            fresh = set(range(first, first + 10)) | {txn.new_inode_ids(slot, 1)}
            assert not inos & fresh
            inos |= fresh
            if slot == 3:
                mine = {txn.new_generation(3), txn.new_generation(3)}
                assert len(mine) == 2
                assert 0 not in mine
                assert not mine & generations
                generations |= mine
                assert txn.new_data_generation(3) != txn.new_data_generation(3)


def test_reserved_numbers(begin: Begin) -> None:
    with begin() as txn:
        first = txn.reserve_inode_ids(3, 5, 42)
        other = txn.reserve_inode_ids(3, 2, 43)
        assert txn.new_inode_ids(3, 1) not in range(first, first + 7)
    with begin() as txn:
        assert [txn.reserved_by(first + i) for i in range(5)] == [42] * 5
        assert txn.reserved_by(other) == txn.reserved_by(other + 1) == 43
        assert txn.reserved_by(first - 1) is None
        assert txn.reserved_by(other + 2) is None
        for used in (first + 2, first, first + 4):  # the middle, the first, the last of a run
            txn.use_reserved(used)
    with begin() as txn:
        left = [i for i in range(5) if txn.reserved_by(first + i) == 42]
        assert left == [1, 3]
        txn.use_reserved(first + 1)
        txn.use_reserved(first + 3)
        assert not any(txn.reserved_by(first + i) for i in range(5))
        assert txn.reserved_by(other) == 43


@pytest.mark.parametrize(
    "delete",
    [
        lambda t: t.delete_dentry(DIRECTORY, b"no"),
        lambda t: t.delete_inode(DIRECTORY, FILE),
        lambda t: t.delete_directory(DIRECTORY),
        lambda t: t.delete_xattr(DIRECTORY, FILE, b"no"),
        lambda t: t.delete_inline(DIRECTORY, FILE),
        lambda t: t.delete_moved(FILE),
        lambda t: t.delete_orphan(FILE),
    ],
)
def test_what_is_missing_is_never_deleted(begin: Begin, delete: Callable[[Txn], None]) -> None:
    with pytest.raises((AssertionError, KeyError)), begin() as txn:
        delete(txn)


def test_time_and_room(begin: Begin) -> None:
    with begin() as txn:
        assert txn.commit >= 0
        assert txn.now_ns > 0
        assert txn.has_room(1000)
        assert not txn.has_room(1 << 50)
        assert txn.choose_chains(FILE, ()) == txn.choose_chains(FILE, ())
        assert sorted(txn.choose_chains(FILE, ())) == [1, 2]
        assert txn.choose_chains(FILE, (2,)) == (2,)
