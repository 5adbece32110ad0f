"""create, mkdir, lookup, unlink, rmdir, link, rename: what each refuses, and what it changes."""

from __future__ import annotations

import stat
from typing import Any

import pytest

from superfs.core.attrs import Flag
from superfs.core.errors import Code
from superfs.core.ids import DIRECTORY_BIT, directory_id, slot_of
from superfs.core.limits import LINKS_MAX
from superfs.core.namespace import mkdir
from superfs.core.namespace.release_orphan import release_orphan
from superfs.core.namespace.txn import Caller, Ref
from unit.rules import ALICE, BOB, TOP, Namespace, ref_of, refuses

BAD_NAMES = [
    (b"", Code.INVALID),
    (b".", Code.INVALID),
    (b"..", Code.INVALID),
    (b"a/b", Code.INVALID),
    (b"a\0", Code.INVALID),
    (b"x" * 256, Code.NAME_TOO_LONG),
]


@pytest.fixture
def fs() -> Namespace:
    return Namespace()


@pytest.mark.parametrize(("name", "code"), BAD_NAMES)
def test_bad_names(fs: Namespace, name: bytes, code: Code) -> None:
    inode = fs.file(b"f")
    for verb, arguments in [
        ("lookup", (TOP, name)),
        ("create", (TOP, name, stat.S_IFREG)),
        ("mkdir", (TOP, name, 0o755)),
        ("unlink", (TOP, name)),
        ("rmdir", (TOP, name)),
        ("link", (inode, TOP, name)),
        ("rename", (TOP, name, TOP, b"g")),
        ("rename", (TOP, b"f", TOP, name)),
        ("remove_tree", (TOP, name, 10)),
    ]:
        with refuses(code):
            fs.do(verb, *arguments)


def test_longest_name_of_any_bytes(fs: Namespace) -> None:
    name = bytes(b for b in range(1, 256) if b != ord("/")) + b"\xff"
    assert len(name) == 255
    fs.file(name)
    assert fs.attr("lookup", TOP, name).is_regular


def test_stale_references(fs: Namespace) -> None:
    inode, directory = fs.file(b"f"), fs.dir(b"d")
    for wrong in (Ref(inode.ino, inode.generation + 1), Ref(12345, 1), Ref(DIRECTORY_BIT | 99, 1)):
        with refuses(Code.STALE):
            fs.do("getattr", wrong)
    wrong = Ref(inode.ino, inode.generation + 1, inode.place)
    for verb, reference in (("getattr", wrong), ("link", wrong), ("setattr", wrong)):
        with refuses(Code.STALE):
            arguments = {"getattr": (), "link": (TOP, b"x"), "setattr": (1,)}[verb]
            fs.do(verb, reference, *arguments)
    for gone in (Ref(directory.ino, directory.generation + 1), Ref(DIRECTORY_BIT | 99, 1)):
        with refuses(Code.STALE):
            fs.do("lookup", gone, b"x")
    with refuses(Code.NOT_FOUND):
        fs.do("lookup", directory, b"x")
    with refuses(Code.NOT_DIRECTORY):
        fs.do("lookup", inode, b"x")
    assert fs.stat(Ref(inode.ino, 0, inode.place)).ino == inode.ino


def test_directory_number_comes_back_with_a_new_generation(fs: Namespace) -> None:
    old = fs.dir(b"d")
    fs.do("rmdir", TOP, b"d")
    new = fs.dir(b"d")
    assert new.ino == old.ino == directory_id(TOP.ino, b"d")
    assert new.generation != old.generation
    with refuses(Code.STALE):
        fs.do("create", old, b"f", stat.S_IFREG)


def test_the_same_name_made_and_moved_away_many_times(
    fs: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def counted(parent: int, name: bytes, version: int) -> int:
        tried.append(version)
        return directory_id(parent, name, version)

    monkeypatch.setattr(mkdir, "directory_id", counted)
    for number in range(70):
        tried.clear()
        assert fs.dir(b"new").ino == directory_id(TOP.ino, b"new", number)
        assert len(tried) <= 2 + 2 * number.bit_length()
        fs.do("rename", TOP, b"new", TOP, b"%d" % number)
    fs.do("rmdir", TOP, b"7")
    assert fs.dir(b"new").ino == directory_id(TOP.ino, b"new", 7)  # where the search comes by


def test_versions_of_directory_numbers(fs: Namespace) -> None:
    first = fs.dir(b"d")
    fs.do("rename", TOP, b"d", TOP, b"e")
    assert fs.dir(b"d").ino == directory_id(TOP.ino, b"d", 1)
    fs.do("rmdir", TOP, b"d")
    assert fs.dir(b"d", version_min=7).ino == directory_id(TOP.ino, b"d", 7)
    assert fs.attr("lookup", TOP, b"e").ino == first.ino
    with refuses(Code.INVALID):
        fs.do("mkdir", TOP, b"x", 0o755, version_min=1 << 40)


def test_create_refuses(fs: Namespace) -> None:
    fs.file(b"f")
    fs.dir(b"d")
    refusals: list[tuple[Code, bytes, int, dict[str, Any]]] = [
        (Code.EXISTS, b"f", stat.S_IFREG, {}),
        (Code.EXISTS, b"d", stat.S_IFREG, {}),
        (Code.IS_DIRECTORY, b"d", stat.S_IFREG, {"exclusive": False}),
        (Code.INVALID, b"x", stat.S_IFDIR, {}),
        (Code.INVALID, b"x", 0o644, {}),
        (Code.NOT_FOUND, b"x", stat.S_IFLNK, {"target": b""}),
        (Code.NAME_TOO_LONG, b"x", stat.S_IFLNK, {"target": b"t" * 4096}),
        (Code.INVALID, b"x", stat.S_IFLNK, {"target": b"a\0b"}),
        (Code.INLINE_FULL, b"x", stat.S_IFREG, {"inline": bytes(8161)}),
        (Code.INVALID, b"x", stat.S_IFIFO, {"inline": b"x"}),
        (Code.INVALID, b"x", stat.S_IFREG, {"layout": (1,) * 17}),
        (Code.NOT_PERMITTED, b"x", stat.S_IFREG, {"ino": TOP.ino ^ DIRECTORY_BIT}),
        (Code.INVALID, b"x", stat.S_IFREG, {"ino": 1 << 60}),
    ]
    for code, name, mode, options in refusals:
        with refuses(code):
            fs.do("create", TOP, name, mode, **options)
    fs.store.room_bytes = 0
    for verb, mode in (("create", stat.S_IFREG), ("mkdir", 0o755)):
        with refuses(Code.NO_SPACE):
            fs.do(verb, TOP, b"x", mode)
    fs.do("unlink", TOP, b"f")


def test_create_answers_what_exists(fs: Namespace) -> None:
    inode = fs.file(b"f")
    found = fs.do("create", TOP, b"f", stat.S_IFREG, exclusive=False)
    assert found.attr is not None
    assert (found.attr.ino, found.number) == (inode.ino, 0)
    assert fs.do("create", TOP, b"g", stat.S_IFREG, exclusive=False).number == 1


def test_create_under_a_reserved_number(fs: Namespace) -> None:
    first = fs.do("reserve", TOP, 3).number
    assert slot_of(first) == slot_of(TOP.ino)
    assert fs.file(b"f", ino=first + 1).ino == first + 1
    with refuses(Code.NOT_PERMITTED):
        fs.do("create", TOP, b"g", stat.S_IFREG, ino=first + 1)
    with refuses(Code.NOT_PERMITTED):
        fs.do("create", TOP, b"g", stat.S_IFREG, ino=first, caller=Caller(session=9))
    assert fs.file(b"h").ino > first + 2
    for count in (0, -1, 1 << 20):
        with refuses(Code.INVALID):
            fs.do("reserve", TOP, count)


def test_modes_and_owners_of_new_inodes(fs: Namespace) -> None:
    shared = fs.dir(b"s", 0o777)
    fs.do("setattr", shared, 3 | 4, mode=0o2777, uid=0, gid=4000)
    child = fs.stat(fs.dir(b"d", 0o777, shared, caller=BOB))
    assert (child.mode & 0o7777, child.uid, child.gid) == (0o2755, 1001, 4000)
    assert fs.stat(fs.file(b"f", 0o666, shared, caller=BOB)).gid == 4000
    # No setgid program of a group that its maker is not in.
    assert fs.stat(fs.file(b"g", 0o2775, shared, caller=BOB)).mode & 0o7777 == 0o755
    assert fs.stat(fs.file(b"h", 0o6775)).mode & 0o7777 == 0o6755
    assert fs.stat(fs.symlink(b"l")).mode & 0o7777 == 0o777
    assert fs.stat(fs.dir(b"e", 0o7777)).mode & 0o7777 == 0o1755


def test_removal_refuses(fs: Namespace) -> None:
    directory = fs.dir(b"d")
    fs.file(b"f", within=directory)
    for code, verb, where, name in [
        (Code.NOT_FOUND, "unlink", TOP, b"x"),
        (Code.IS_DIRECTORY, "unlink", TOP, b"d"),
        (Code.NOT_FOUND, "rmdir", TOP, b"x"),
        (Code.NOT_EMPTY, "rmdir", TOP, b"d"),
        (Code.NOT_DIRECTORY, "rmdir", directory, b"f"),
        (Code.NOT_FOUND, "remove_tree", directory, b"x"),
    ]:
        arguments = (where, name, 9) if verb == "remove_tree" else (where, name)
        with refuses(code):
            fs.do(verb, *arguments)


def test_link_refuses(fs: Namespace) -> None:
    inode, directory = fs.file(b"f"), fs.dir(b"d")
    with refuses(Code.EXISTS):
        fs.do("link", inode, TOP, b"d")
    with refuses(Code.NOT_PERMITTED):
        fs.do("link", directory, TOP, b"e")
    fs.do("unlink", TOP, b"f", keep=True)
    with refuses(Code.NOT_FOUND):
        fs.do("link", inode, TOP, b"g")
    inode = fs.file(b"f")
    fs.do("link", inode, TOP, b"g")
    fs.store.inodes[inode.ino, inode.ino].nlink = LINKS_MAX
    with refuses(Code.TOO_MANY_LINKS):
        fs.do("link", inode, TOP, b"h")


def test_link_to_a_foreign_file_needs_write_access(fs: Namespace) -> None:
    """As Linux with protected_hardlinks."""
    shared = fs.dir(b"s", 0o777)
    fs.do("setattr", shared, 1, mode=0o777)
    for mode, ok in ((0o644, False), (0o666, True), (0o4666, False)):
        inode = fs.file(b"f%o" % mode)
        fs.do("setattr", inode, 1, mode=mode)
        if ok:
            fs.do("link", inode, shared, b"l%o" % mode, caller=ALICE)
        else:
            with refuses(Code.NOT_PERMITTED):
                fs.do("link", inode, shared, b"l%o" % mode, caller=ALICE)


def test_first_link_moves_the_records(fs: Namespace) -> None:
    directory = fs.dir(b"d")
    old = fs.file(b"f", within=directory, inline=b"bytes")
    fs.do("setxattr", old, b"user.a", b"1")
    fs.do("rename", directory, b"f", TOP, b"f")
    attr = fs.attr("link", old, directory, b"g")
    assert (attr.place, attr.nlink) == (attr.ino, 2)
    assert attr.flags & Flag.MULTI
    assert fs.store.moved == {}
    for where, name in ((TOP, b"f"), (directory, b"g")):
        assert fs.do("lookup", where, name, want_inline=True).data == b"bytes"
    assert fs.do("getxattr", old, b"user.a").data == b"1"
    fs.do("unlink", TOP, b"f")
    assert fs.stat(old).nlink == 1


def test_unlinked_but_open(fs: Namespace) -> None:
    inode = fs.file(b"f", inline=b"bytes")
    fs.store.opened[inode.ino] = {5}
    fs.do("setxattr", inode, b"user.a", b"1")
    left = fs.do("unlink", TOP, b"f", keep=True).other
    assert left is not None
    assert left.nlink == 0
    assert fs.store.orphans[inode.ino].holders == {1, 5}
    fs.do("publish", inode, 0, writes=[(5, b"!")])
    assert fs.do("read_inline", inode).data == b"bytes!"
    assert fs.do("getxattr", inode, b"user.a").data == b"1"
    for session, gone in ((8, 0), (1, 0), (1, 0), (5, 1), (5, 0)):
        assert fs.store.run(release_orphan, inode.ino, session).number == gone
    with refuses(Code.STALE):
        fs.stat(inode)
    assert (fs.store.inline, fs.store.xattrs) == ({}, {})


def test_removed_but_open_directory(fs: Namespace) -> None:
    directory = fs.dir(b"d")
    fs.store.opened[directory.ino] = {5}
    fs.do("rmdir", TOP, b"d")
    assert fs.stat(directory).nlink == 0
    with refuses(Code.NOT_FOUND):
        fs.do("create", directory, b"f", stat.S_IFREG)
    assert fs.dir(b"d").ino != directory.ino
    assert fs.store.run(release_orphan, directory.ino, 5).number == 1


def test_rename_refuses(fs: Namespace) -> None:
    a = fs.dir(b"a")
    b = fs.dir(b"b", within=a)
    fs.file(b"f")
    fs.file(b"g", within=b)
    fs.dir(b"empty")
    for code, arguments, flags in [
        (Code.NOT_FOUND, (TOP, b"x", TOP, b"y"), 0),
        (Code.NOT_FOUND, (TOP, b"f", TOP, b"y"), 2),
        (Code.EXISTS, (TOP, b"f", TOP, b"a"), 1),
        (Code.EXISTS, (TOP, b"f", TOP, b"f"), 1),
        (Code.INVALID, (TOP, b"f", TOP, b"a"), 3),
        (Code.INVALID, (TOP, b"f", TOP, b"a"), 4),
        (Code.INVALID, (TOP, b"a", b, b"x"), 0),
        (Code.INVALID, (TOP, b"a", a, b"x"), 0),
        (Code.INVALID, (TOP, b"a", b, b"g"), 2),
        (Code.INVALID, (b, b"g", TOP, b"a"), 2),
        (Code.NOT_EMPTY, (b, b"g", TOP, b"a"), 0),
        (Code.NOT_EMPTY, (TOP, b"empty", TOP, b"a"), 0),
        (Code.NOT_DIRECTORY, (TOP, b"a", TOP, b"f"), 0),
        (Code.IS_DIRECTORY, (TOP, b"f", TOP, b"empty"), 0),
    ]:
        with refuses(code):
            fs.do("rename", *arguments, flags=flags)
    fs.do("rename", TOP, b"a", TOP, b"empty")
    fs.do("rename", TOP, b"empty", TOP, b"empty")


def test_rename_replaces_and_exchanges(fs: Namespace) -> None:
    directory = fs.dir(b"d")
    one, two = fs.file(b"1", inline=b"one"), fs.file(b"2", within=directory, inline=b"two")
    outcome = fs.do("rename", TOP, b"1", directory, b"2", flags=2)
    assert outcome.attr is not None
    assert outcome.other is not None
    assert (outcome.attr.ino, outcome.other.ino) == (one.ino, two.ino)
    assert fs.do("lookup", TOP, b"1", want_inline=True).data == b"two"
    assert fs.store.moved == {one.ino: directory.ino, two.ino: TOP.ino}
    outcome = fs.do("rename", directory, b"2", TOP, b"1")
    assert outcome.other is not None
    assert (outcome.other.ino, outcome.other.nlink) == (two.ino, 0)
    assert [d.ino for d in outcome.dirs] == [directory.ino, TOP.ino]
    with refuses(Code.STALE):
        fs.stat(two)


def test_rename_between_two_links_does_nothing(fs: Namespace) -> None:
    inode = fs.file(b"f")
    fs.do("link", inode, TOP, b"g")
    before = fs.store.mutations
    for flags in (0, 2):
        fs.do("rename", TOP, b"f", TOP, b"g", flags=flags)
    assert fs.store.mutations == before


def test_times_of_entries(fs: Namespace) -> None:
    directory = fs.dir(b"d")
    inode = fs.file(b"f", within=directory)

    def changed(verb: str, *args: object) -> list[bool]:
        before = [fs.stat(TOP), fs.stat(directory), fs.stat(inode)]
        fs.do(verb, *args)
        after = [fs.stat(TOP), fs.stat(directory), fs.stat(inode)]
        pairs = list(zip(before, after, strict=True))
        assert all((x.change != y.change) == (x.ctime_ns != y.ctime_ns) for x, y in pairs)
        assert pairs[2][0].mtime_ns == pairs[2][1].mtime_ns
        assert all((x.mtime_ns != y.mtime_ns) == (x.ctime_ns != y.ctime_ns) for x, y in pairs[:2])
        return [x.ctime_ns != y.ctime_ns for x, y in pairs]

    assert changed("link", inode, TOP, b"l") == [True, False, True]
    assert changed("unlink", TOP, b"l") == [True, False, True]
    assert changed("rename", directory, b"f", TOP, b"f") == [True, True, True]
    assert changed("rename", TOP, b"f", TOP, b"g") == [True, False, True]
    assert changed("lookup", TOP, b"g") == [False, False, False]
    assert changed("mkdir", directory, b"e", 0o755) == [False, True, False]
    assert changed("rmdir", directory, b"e") == [False, True, False]


def test_parents(fs: Namespace) -> None:
    directory = fs.dir(b"d")
    assert fs.do("getattr", directory).number == TOP.ino
    assert fs.do("read_dir", directory).number == TOP.ino
    other = fs.dir(b"o")
    fs.do("rename", TOP, b"d", other, b"x")
    assert fs.do("getattr", directory).number == other.ino
    assert ref_of(fs.attr("lookup", other, b"x")) == directory


def test_damage_is_an_error_and_changes_nothing(fs: Namespace) -> None:
    """The store in memory asserts the second half."""
    directory = fs.dir(b"d")
    inode = fs.file(b"f")
    del fs.store.inodes[TOP.ino, inode.ino]
    del fs.store.directories[directory.ino]
    for verb, arguments in [
        ("lookup", (TOP, b"f")),
        ("lookup", (TOP, b"d")),
        ("unlink", (TOP, b"f")),
        ("rmdir", (TOP, b"d")),
        ("rename", (TOP, b"f", TOP, b"g")),
        ("rename", (TOP, b"d", TOP, b"f")),
        ("remove_tree", (TOP, b"d", 5)),
        ("read_dir", (TOP,)),
    ]:
        with refuses(Code.DAMAGED):
            fs.do(verb, *arguments)
