"""create_many, get_many, read_dir, remove_tree; and that check sees what is broken."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from superfs.core.attrs import Attr, Flag, Set
from superfs.core.errors import Code
from superfs.core.ids import FIRST_DATA_GENERATION
from superfs.core.limits import LISTING_BYTES_MAX
from superfs.core.namespace.outcome import Entry
from superfs.core.namespace.verbs import MUTATIONS, READS, VERBS
from superfs.v1 import meta_pb2
from unit.rules import ALICE, TOP, Namespace, refuses

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.meta.memstore import MemStore


@pytest.fixture
def fs() -> Namespace:
    return Namespace()


def given(mode: int = stat.S_IFREG | 0o640, size: int = 3, **fields: int) -> Attr:
    attr = Attr(0, 0, 0, mode, 1, 5, 6, size)
    for name, value in fields.items():
        setattr(attr, name, value)
    return attr


def test_every_verb_of_the_wire_is_a_rule() -> None:
    verbs = {f.name for f in meta_pb2.Op.DESCRIPTOR.oneofs_by_name["verb"].fields}
    assert VERBS.keys() == verbs - {"release", "statfs", "log"}
    assert not READS.keys() & MUTATIONS.keys()


def test_create_many_fates(fs: Namespace) -> None:
    fs.dir(b"d")
    fs.file(b"old")
    first = fs.do("reserve", TOP, 2).number
    data = given(size=9999, data_generation=FIRST_DATA_GENERATION)
    data.chains = (1,)
    cases = [
        (Code.OK, Entry(b"a", attr=given(mtime_ns=77), inline=b"abc")),
        (Code.OK, Entry(b"b", ino=first, attr=data)),
        (Code.OK, Entry(b"l", attr=given(stat.S_IFLNK | 0o777), inline=b"to")),
        (Code.OK, Entry(b"p", attr=given(stat.S_IFIFO | 0o600))),
        (Code.EXISTS, Entry(b"a", attr=given())),
        (Code.EXISTS, Entry(b"old", attr=given())),
        (Code.EXISTS, Entry(b"d", attr=given())),
        (Code.INVALID, Entry(b"a/b", attr=given())),
        (Code.BAD_REQUEST, Entry(b"c")),
        (Code.INVALID, Entry(b"c", attr=given(size=2), inline=b"abc")),
        (Code.INVALID, Entry(b"c", attr=given(data_generation=1))),
        (Code.NOT_PERMITTED, Entry(b"c", ino=first, attr=given())),
        (Code.INVALID, Entry(b"c", attr=given(mtime_ns=1 << 63))),
        (Code.INVALID, Entry(b"c", attr=given(uid=0xFFFFFFFF))),
        (Code.INVALID, Entry(b"c", attr=given(stat.S_IFDIR | 0o755))),
    ]
    outcome = fs.do("create_many", TOP, [e for _, e in cases])
    assert [e.code for e in outcome.entries] == [code for code, _ in cases]
    assert outcome.dirs[0].size == 6
    attr = fs.attr("lookup", TOP, b"a")
    assert (attr.mode & 0o777, attr.uid, attr.gid, attr.mtime_ns) == (0o640, 5, 6, 77)
    attr = fs.attr("lookup", TOP, b"b")
    assert (attr.ino, attr.size, attr.flags, attr.chains) == (first, 9999, 0, (1,))
    assert fs.do("lookup", TOP, b"l", want_inline=True).data == b"to"


def test_create_many_replaces(fs: Namespace) -> None:
    old = fs.spilled(b"f", 5000)
    fs.dir(b"d")
    entries = [Entry(n, attr=given(), inline=b"new") for n in (b"f", b"d")]
    made = fs.do("create_many", TOP, entries, replace=True).entries
    assert [e.code for e in made] == [Code.OK, Code.IS_DIRECTORY]
    assert fs.do("lookup", TOP, b"f", want_inline=True).data == b"new"
    assert fs.store.reaped[0][0] == old.ino
    with refuses(Code.STALE):
        fs.stat(old)


def test_create_many_for_a_user(fs: Namespace) -> None:
    fs.do("setattr", TOP, Set.MODE, mode=0o777)
    mine = given(stat.S_IFREG | 0o2755, uid=1000, gid=2000)
    entries = [Entry(b"a", attr=mine), Entry(b"b", attr=given(uid=1000, gid=4)), Entry(b"c")]
    entries[2].attr = given(stat.S_IFCHR | 0o600, uid=1000, gid=1000)
    made = fs.do("create_many", TOP, entries, caller=ALICE).entries
    assert [e.code for e in made] == [Code.OK, Code.NOT_PERMITTED, Code.NOT_PERMITTED]
    assert fs.attr("lookup", TOP, b"a").mode & 0o7777 == 0o2755


def test_bulk_limits(fs: Namespace) -> None:
    with refuses(Code.TOO_LARGE):
        fs.do("create_many", TOP, [Entry(b"%d" % i) for i in range(4097)])
    with refuses(Code.TOO_LARGE):
        fs.do("get_many", TOP, [b"x"] * 4097)
    fs.store.room_bytes = 10
    with refuses(Code.NO_SPACE):
        fs.do("create_many", TOP, [Entry(b"a", attr=given())])


def test_get_many(fs: Namespace) -> None:
    fs.file(b"f", inline=b"abc")
    fs.dir(b"d")
    got = fs.do("get_many", TOP, [b"f", b"x", b"d", b"a/"], inline_max=10).entries
    assert [e.code for e in got] == [Code.OK, Code.NOT_FOUND, Code.OK, Code.INVALID]
    assert (got[0].inline, got[2].inline) == (b"abc", None)


def test_listing_stops_at_its_bytes(fs: Namespace) -> None:
    entries = [Entry(b"%03d" % i, attr=given(size=3800), inline=bytes(3800)) for i in range(700)]
    fs.do("create_many", TOP, entries)
    listing = fs.do("read_dir", TOP, inline_max=4096)
    assert listing.more
    assert LISTING_BYTES_MAX // 4096 < len(listing.entries) < 700
    rest = fs.do("read_dir", TOP, after=listing.entries[-1].name, inline_max=4096)
    assert not rest.more
    assert len(listing.entries) + len(rest.entries) == 700
    bare = fs.do("read_dir", TOP, plus=False)
    assert (len(bare.entries), bare.entries[0].attr, bare.entries[0].type) == (700, None, 8)


def test_remove_tree_stops_where_it_may_not(fs: Namespace) -> None:
    top = fs.dir(b"t", 0o777)
    fs.do("setattr", top, Set.UID, uid=1000)
    fs.do("setattr", TOP, Set.UID, uid=1000)
    fs.file(b"a", within=top)
    foreign = fs.dir(b"b", within=top)
    fs.file(b"f", within=foreign)
    outcome = fs.do("remove_tree", TOP, b"t", 9, caller=ALICE)
    assert (outcome.number, outcome.more) == (1, True)
    with refuses(Code.ACCESS):
        fs.do("remove_tree", TOP, b"t", 9, caller=ALICE)
    outcome = fs.do("remove_tree", TOP, b"t", 9)
    assert (outcome.number, outcome.more) == (3, False)
    assert outcome.other is not None
    assert outcome.other.ino == top.ino


def _break(kind: str) -> Callable[[MemStore, int, int], None]:
    """(store, number of a file, number of a directory) -> damage of that kind."""
    damage: dict[str, Callable[[MemStore, int, int], object]] = {
        "dentry-without-inode": lambda s, f, d: s.inodes.pop((TOP.ino, f)),
        "dentry-without-directory": lambda s, f, d: s.dentries.update({5: dict(s.dentries[d])}),
        "wrong-nlink": lambda s, f, d: s.dentries[TOP.ino].pop(b"f"),
        "wrong-count": lambda s, f, d: setattr(s.directories[d].attr, "size", 7),
        "wrong-parent": lambda s, f, d: setattr(s.directories[d], "parent", d),
        "access-differs": lambda s, f, d: setattr(s.dentries[TOP.ino][b"d"], "uid", 9),
        "unreachable": lambda s, f, d: setattr(s.directories[d], "parent", d),
        "xattr-flags": lambda s, f, d: s.xattrs.pop((TOP.ino, f)),
        "xattr-without-inode": lambda s, f, d: s.xattrs.update({(5, 5): {b"user.a": b""}}),
        "inline-without-inode": lambda s, f, d: s.inline.update({(5, 5): b""}),
        "inline-length": lambda s, f, d: s.inline.update({(TOP.ino, f): bytes(99)}),
        "symlink-without-target": lambda s, f, d: s.inline.pop((TOP.ino, f + 1)),
        "wrong-moved": lambda s, f, d: s.moved.update({f: 5}),
        "not-moved": lambda s, f, d: s.moved.clear(),
        "wrong-key": lambda s, f, d: setattr(s.inodes[TOP.ino, f], "ino", 9),
        "wrong-place": lambda s, f, d: setattr(s.inodes[TOP.ino, f], "flags", Flag.MULTI),
        "no-generation": lambda s, f, d: setattr(s.inodes[TOP.ino, f], "generation", 0),
        "data-nowhere": lambda s, f, d: setattr(s.inodes[TOP.ino, f], "flags", 0),
        "wrong-type": lambda s, f, d: setattr(s.directories[d].attr, "mode", stat.S_IFREG),
        "number-twice": lambda s, f, d: s.inodes.update({(f, f): s.inodes[TOP.ino, f]}),
        "dentry-differs": lambda s, f, d: setattr(s.dentries[TOP.ino][b"f"], "mode", stat.S_IFIFO),
        "no-root": lambda s, f, d: s.directories.pop(TOP.ino),
        "wrong-contents": lambda s, f, d: setattr(s.inodes[TOP.ino, f + 1], "flags", 0),
        "bad-orphan": lambda s, f, d: next(iter(s.orphans.values())).holders.clear(),
        "truncating-inline": lambda s, f, d: setattr(
            s.inodes[TOP.ino, f], "flags", Flag.INLINE | Flag.TRUNCATING
        ),
    }
    return damage[kind]  # type: ignore[return-value]


KINDS = """dentry-without-inode dentry-without-directory wrong-nlink wrong-count wrong-parent
access-differs unreachable xattr-flags xattr-without-inode inline-without-inode inline-length
symlink-without-target wrong-moved not-moved wrong-key wrong-place no-generation data-nowhere
wrong-type number-twice dentry-differs no-root wrong-contents bad-orphan truncating-inline"""


@pytest.mark.parametrize("kind", KINDS.split())
def test_check_finds(fs: Namespace, kind: str) -> None:
    inode = fs.file(b"f", inline=b"abc")
    fs.do("setxattr", inode, b"user.a", b"1")
    assert fs.symlink(b"l").ino == inode.ino + 1
    directory = fs.dir(b"d")
    fs.file(b"m")
    fs.do("rename", TOP, b"m", directory, b"m")
    fs.file(b"gone")
    fs.do("unlink", TOP, b"gone", keep=True)
    assert fs.store.findings() == []
    _break(kind)(fs.store, inode.ino, directory.ino)
    assert kind in {f.kind for f in fs.store.findings()}
