"""setattr, publish, append, new_data, read_inline: sizes, contents, times, privileges."""

from __future__ import annotations

import stat
from typing import Any

import pytest

from superfs.core.attrs import Flag, Set
from superfs.core.errors import Code
from superfs.core.ids import FIRST_DATA_GENERATION
from superfs.core.limits import FILE_DATA_BYTES_MAX, INLINE_BYTES_MAX
from superfs.core.namespace.end_truncate import end_truncate
from superfs.core.namespace.txn import Caller, Ref
from unit.rules import ALICE, BOB, KERNEL, ROOT_USER, TOP, Namespace, refuses

USER = Caller(1000, 1000, session=1)
"""Not root, on a mount whose kernel has checked."""
NOW = Set.ATIME_NOW | Set.MTIME_NOW


@pytest.fixture
def fs() -> Namespace:
    return Namespace()


def test_setattr_refuses(fs: Namespace) -> None:
    inode, directory, link = fs.file(b"f"), fs.dir(b"d"), fs.symlink(b"l")
    refusals: list[tuple[Code, Ref, int, dict[str, Any]]] = [
        (Code.IS_DIRECTORY, directory, Set.SIZE, {"size": 1}),
        (Code.INVALID, link, Set.SIZE, {"size": 1}),
        (Code.INVALID, inode, Set.SIZE, {"size": -1}),
        (Code.FILE_TOO_BIG, inode, Set.SIZE, {"size": FILE_DATA_BYTES_MAX + 1}),
        (Code.NOT_SUPPORTED, link, Set.MODE, {"mode": 0o600}),
        (Code.INVALID, inode, Set.UID, {"uid": 0xFFFFFFFF}),
        (Code.INVALID, inode, Set.GID, {"gid": -1}),
        (Code.INVALID, inode, Set.ATIME, {"atime_ns": 1 << 63}),
    ]
    for code, which, mask, options in refusals:
        with refuses(code):
            fs.do("setattr", which, mask, **options)


def test_setattr_for_whom(fs: Namespace) -> None:
    cases: list[tuple[Code, Caller, int, dict[str, Any], int]] = [
        (Code.OK, ALICE, Set.MODE, {"mode": 0o600}, 0o644),
        (Code.NOT_PERMITTED, BOB, Set.MODE, {"mode": 0o600}, 0o666),
        (Code.OK, ROOT_USER, Set.MODE, {"mode": 0o600}, 0o644),
        (Code.NOT_PERMITTED, ALICE, Set.UID, {"uid": 1001}, 0o644),
        (Code.OK, ALICE, Set.UID, {"uid": 1000}, 0o644),
        (Code.OK, ROOT_USER, Set.UID, {"uid": 1001}, 0o644),
        (Code.OK, ALICE, Set.GID, {"gid": 2000}, 0o644),
        (Code.NOT_PERMITTED, ALICE, Set.GID, {"gid": 3000}, 0o644),
        (Code.NOT_PERMITTED, BOB, Set.GID, {"gid": 1001}, 0o666),
        (Code.OK, ALICE, Set.SIZE, {"size": 5}, 0o444),
        (Code.ACCESS, BOB, Set.SIZE, {"size": 5}, 0o644),
        (Code.OK, BOB, Set.SIZE, {"size": 5}, 0o666),
        (Code.OK, BOB, NOW, {}, 0o666),
        (Code.ACCESS, BOB, NOW, {}, 0o644),
        (Code.NOT_PERMITTED, BOB, Set.MTIME_NOW, {}, 0o666),
        (Code.NOT_PERMITTED, BOB, Set.MTIME | Set.ATIME, {}, 0o666),
        (Code.OK, ALICE, Set.MTIME | Set.ATIME, {"mtime_ns": -5}, 0o400),
    ]
    for number, (code, caller, mask, options, mode) in enumerate(cases):
        inode = fs.file(b"%d" % number)
        fs.do("setattr", inode, 7, mode=mode, uid=1000, gid=1000)
        if code == Code.OK:
            fs.do("setattr", inode, mask, caller=caller, **options)
        else:
            with refuses(code):
                fs.do("setattr", inode, mask, caller=caller, **options)


@pytest.mark.parametrize(
    ("mode", "after_user", "after_root"),
    [(0o6755, 0o755, 0o6755), (0o2745, 0o745, 0o2745), (0o4644, 0o644, 0o4644)],
)
def test_truncate_clears_privileges(
    fs: Namespace, mode: int, after_user: int, after_root: int
) -> None:
    inode = fs.file(b"f")
    for caller, after in ((USER, after_user), (KERNEL, after_root)):
        fs.do("setattr", inode, Set.MODE, mode=mode)
        fs.do("setattr", inode, Set.SIZE, size=3, caller=caller)
        assert fs.stat(inode).mode & 0o7777 == after


def test_chown_clears_privileges_of_files_only(fs: Namespace) -> None:
    inode, directory = fs.file(b"f"), fs.dir(b"d")
    for which, after in ((inode, 0o755), (directory, 0o6755)):
        fs.do("setattr", which, Set.MODE, mode=0o6755)
        fs.do("setattr", which, Set.UID, uid=1000)
        assert fs.stat(which).mode & 0o7777 == after
    fs.do("setattr", inode, Set.MODE, mode=0o2644)
    fs.do("setattr", inode, Set.GID, gid=7)
    assert fs.stat(inode).mode & 0o7777 == 0o2644, "root keeps a setgid bit without execution"
    fs.do("setattr", inode, Set.MODE, mode=0o6755)
    fs.do("setattr", inode, Set.KILL_PRIV)
    assert fs.stat(inode).mode & 0o7777 == 0o755


def test_chmod_drops_a_foreign_setgid_bit(fs: Namespace) -> None:
    inode = fs.file(b"f")
    fs.do("setattr", inode, Set.UID | Set.GID, uid=1000, gid=3000)
    fs.do("setattr", inode, Set.MODE, mode=0o2755, caller=ALICE)
    assert fs.stat(inode).mode & 0o7777 == 0o755
    fs.do("setattr", inode, Set.GID, gid=2000)
    fs.do("setattr", inode, Set.MODE, mode=0o2755, caller=ALICE)
    assert fs.stat(inode).mode & 0o7777 == 0o2755


def test_write_kills_privileges_and_capabilities(fs: Namespace) -> None:
    inode = fs.file(b"f")
    fs.do("setattr", inode, Set.MODE, mode=0o4755)
    fs.do("setxattr", inode, b"security.capability", b"caps")
    assert fs.stat(inode).flags & Flag.HAS_CAPABILITY
    fs.do("publish", inode, 0, writes=[(0, b"x")])
    assert fs.stat(inode).mode & stat.S_ISUID
    fs.do("publish", inode, 0, writes=[(0, b"x")], kill_priv=True)
    attr = fs.stat(inode)
    assert (attr.mode & 0o7777, attr.flags) == (0o755, Flag.INLINE)
    with refuses(Code.NO_XATTR):
        fs.do("getxattr", inode, b"security.capability")


def test_directory_access_goes_to_its_entry(fs: Namespace) -> None:
    directory = fs.dir(b"d")
    fs.do("setattr", directory, 7, mode=0o700, uid=5, gid=6)
    dentry = fs.store.dentries[TOP.ino][b"d"]
    assert (dentry.mode, dentry.uid, dentry.gid) == (stat.S_IFDIR | 0o700, 5, 6)
    fs.do("setattr", TOP, Set.MODE, mode=0o700)


def test_times(fs: Namespace) -> None:
    inode = fs.file(b"f")
    fs.do("setattr", inode, Set.ATIME | Set.MTIME, atime_ns=-7, mtime_ns=1 << 62)
    attr = fs.stat(inode)
    assert (attr.atime_ns, attr.mtime_ns, attr.ctime_ns) == (-7, 1 << 62, fs.store.now_ns - 1000)
    # A write behind a time set in the future counts, a write that arrives late does not.
    write_ns = fs.store.now_ns
    fs.do("publish", inode, 0, writes=[(0, b"x")], mtime_ns=write_ns)
    assert fs.stat(inode).mtime_ns == write_ns
    fs.do("publish", inode, 0, writes=[(0, b"x")], mtime_ns=5)
    assert fs.stat(inode).mtime_ns == write_ns
    fs.do("publish", inode, 0, writes=[(0, b"x")], mtime_ns=1 << 62)
    assert fs.stat(inode).mtime_ns == fs.stat(inode).ctime_ns


def test_access_time_is_a_maximum_and_changes_nothing_else(fs: Namespace) -> None:
    gone = fs.file(b"gone")
    fs.do("unlink", TOP, b"gone")
    for inode in (fs.file(b"f"), fs.dir(b"d")):
        before = fs.stat(inode)
        later = fs.store.now_ns
        fs.do("touch", [(gone, later), (inode, later), (inode, 5)])
        after = fs.stat(inode)
        assert after.change == before.change, "what is held of it is as good as before"
        assert (after.atime_ns, after.mtime_ns, after.ctime_ns) == (
            later,
            before.mtime_ns,
            before.ctime_ns,
        )


def test_inline_contents_at_the_limit(fs: Namespace) -> None:
    inode = fs.file(b"f")
    fs.do("publish", inode, 0, writes=[(INLINE_BYTES_MAX - 1, b"x")])
    assert fs.do("read_inline", inode).data == bytes(INLINE_BYTES_MAX - 1) + b"x"
    with refuses(Code.INLINE_FULL):
        fs.do("publish", inode, 0, writes=[(INLINE_BYTES_MAX, b"x")])
    with refuses(Code.INLINE_FULL):
        fs.do("append", inode, 1, data=b"x")
    with refuses(Code.INVALID):
        fs.do("publish", inode, 0, writes=[(-1, b"x")])
    fs.do("setattr", inode, Set.SIZE, size=1 << 40)
    attr = fs.stat(inode)
    assert (attr.size, bool(attr.flags & Flag.INLINE)) == (1 << 40, True)
    fs.do("setattr", inode, Set.SIZE, size=0)
    assert fs.store.inline == {}


def test_contents_refuse(fs: Namespace) -> None:
    inode, directory, link = fs.file(b"f"), fs.dir(b"d"), fs.symlink(b"l")
    big = fs.spilled(b"big", 100)
    calls: list[tuple[Code, str, tuple[Any, ...], dict[str, Any]]] = [
        (
            Code.IS_DIRECTORY,
            "publish",
            (
                directory,
                0,
            ),
            {},
        ),
        (
            Code.INVALID,
            "publish",
            (
                link,
                0,
            ),
            {},
        ),
        (Code.IS_DIRECTORY, "read_inline", (directory,), {}),
        (Code.NOT_INLINE, "read_inline", (big,), {}),
        (Code.NOT_INLINE, "new_data", (big,), {}),
        (
            Code.INVALID,
            "append",
            (
                inode,
                -1,
            ),
            {},
        ),
        (
            Code.FILE_TOO_BIG,
            "append",
            (
                big,
                FILE_DATA_BYTES_MAX,
            ),
            {},
        ),
        (
            Code.IS_DIRECTORY,
            "append",
            (
                directory,
                1,
            ),
            {},
        ),
        (Code.IS_DIRECTORY, "open", (directory,), {"write": True}),
        (Code.LOOP, "open", (link,), {"write": True}),
    ]
    for code, verb, arguments, options in calls:
        with refuses(code):
            fs.do(verb, *arguments, **options)


def test_publish_refuses(fs: Namespace) -> None:
    big = fs.spilled(b"big", 100)
    generation = fs.stat(big).data_generation
    publications: list[tuple[Code, int, dict[str, Any]]] = [
        (Code.STALE_DATA, generation + 1, {"size": 5}),
        (Code.STALE_DATA, 0, {"size": 5}),
        (Code.NOT_INLINE, generation, {"writes": [(0, b"x")]}),
        (Code.NOT_INLINE, generation, {"spill": True}),
        (Code.FILE_TOO_BIG, generation, {"size": FILE_DATA_BYTES_MAX + 1}),
        (Code.INVALID, generation, {"size": -1}),
    ]
    for code, number, options in publications:
        with refuses(code):
            fs.do("publish", big, number, **options)
    fs.do("publish", big, 0)  # times alone
    with refuses(Code.NOT_INLINE):
        fs.do("append", big, 1, data=b"x")
    small = fs.file(b"small")
    for number, options in ((0, {"spill": True}), (9, {"spill": True, "writes": [(0, b"x")]})):
        with refuses(Code.INVALID):
            fs.do("publish", small, number, **options)


def test_data_generations_and_reaping(fs: Namespace) -> None:
    inode = fs.spilled(b"f", 5000)
    attr = fs.stat(inode)
    assert attr.data_generation > FIRST_DATA_GENERATION
    assert attr.chains
    fs.do("publish", inode, attr.data_generation, size=9000)
    assert fs.stat(inode).size == 9000
    fs.do("setattr", inode, Set.SIZE, size=0)
    assert fs.store.reaped == [(inode.ino, attr.data_generation)]
    assert fs.stat(inode).flags & Flag.INLINE
    with refuses(Code.STALE_DATA):
        fs.do("publish", inode, attr.data_generation, size=9000)
    assert fs.store.reaped == [(inode.ino, attr.data_generation)] * 2
    first, second = fs.do("new_data", inode).number, fs.do("new_data", inode).number
    assert fs.store.reaped[-1] == (inode.ino, first)
    fs.do("unlink", TOP, b"f")
    assert fs.store.reaped[-1] == (inode.ino, second)


def test_shrinking_data(fs: Namespace) -> None:
    inode = fs.spilled(b"f", 5000)
    generation = fs.stat(inode).data_generation
    fs.do("setattr", inode, Set.SIZE, size=4000)
    assert fs.store.shrunk == [(inode.ino, generation, 4000)]
    with refuses(Code.BUSY):
        fs.do("publish", inode, generation)
    with refuses(Code.BUSY):
        fs.do("append", inode, 5)
    with refuses(Code.BUSY):
        fs.do("setattr", inode, Set.SIZE)
    with refuses(Code.BUSY):
        fs.do("new_data", inode)
    fs.do("setattr", inode, Set.MODE, mode=0o600)
    fs.store.run(end_truncate, inode)
    fs.store.run(end_truncate, inode)
    assert not fs.stat(inode).flags & Flag.TRUNCATING
    assert fs.do("append", inode, 5).number == 4000


def test_no_room(fs: Namespace) -> None:
    inode = fs.file(b"f", inline=b"12345")
    fs.store.room_bytes = -1
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("publish", (inode, 0), {"writes": [(9, b"x")]}),
        ("append", (inode, 1), {"data": b"x"}),
        ("new_data", (inode,), {}),
        ("setxattr", (inode, b"user.a", b"1"), {}),
        ("link", (inode, TOP, b"g"), {}),
    ]
    for verb, arguments, options in calls:
        with refuses(Code.NO_SPACE):
            fs.do(verb, *arguments, **options)
    fs.do("publish", inode, 0, writes=[(0, b"x")])
    fs.do("setattr", inode, Set.SIZE, size=0)
    fs.do("rename", TOP, b"f", TOP, b"g")
    fs.do("unlink", TOP, b"g")


def test_no_data_daemon(fs: Namespace) -> None:
    inode = fs.file(b"f")
    fs.store.chains = ()
    with refuses(Code.UNAVAILABLE):
        fs.do("new_data", inode)


def test_layouts(fs: Namespace) -> None:
    inode = fs.file(b"f", layout=(2,))
    assert fs.attr("new_data", inode).chains == (2,)
