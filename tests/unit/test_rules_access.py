"""What user sessions may do: mode bits, ACLs, the sticky bit; xattrs and ACLs for everybody."""

from __future__ import annotations

import stat
import struct
from typing import Any

import pytest

from superfs.core.attrs import Flag, Set
from superfs.core.errors import Code
from superfs.core.namespace.access import has_access
from superfs.core.namespace.acl import (
    ACCESS_XATTR,
    DEFAULT_XATTR,
    GROUP,
    GROUP_OBJ,
    MASK,
    OTHER,
    USER,
    USER_OBJ,
    AclEntry,
    chmod_acl,
    equivalent_mode,
    inherit_acl,
    pack_acl,
    parse_acl,
)
from superfs.core.namespace.setxattr import setxattr
from superfs.core.namespace.txn import Caller
from unit.rules import ALICE, BOB, KERNEL, ROOT_USER, TOP, Namespace, ref_of, refuses


@pytest.fixture
def fs() -> Namespace:
    return Namespace()


def acl(user: int, group: int, other: int, *named: AclEntry, mask: int | None = None) -> bytes:
    users = [e for e in named if e.tag == USER]
    groups = [e for e in named if e.tag == GROUP]
    masks = [] if mask is None else [AclEntry(MASK, mask)]
    return pack_acl(
        [
            AclEntry(USER_OBJ, user), *users, AclEntry(GROUP_OBJ, group), *groups, *masks,
            AclEntry(OTHER, other),
        ]
    )  # fmt: skip


def test_kernels_form_of_an_acl() -> None:
    """As getfattr shows what `setfacl -m u:1000:rw` made of mode 644."""
    value = bytes.fromhex(
        "02000000" "01000600ffffffff" "02000600e8030000" "04000400ffffffff"
        "10000600ffffffff" "20000400ffffffff"
    )  # fmt: skip
    parsed = parse_acl(value)
    assert parsed[1] == AclEntry(USER, 6, 1000)
    assert pack_acl(parsed) == value
    assert equivalent_mode(parsed) == (0o664, False)
    assert equivalent_mode(parse_acl(acl(7, 5, 4))) == (0o754, True)


@pytest.mark.parametrize(
    "value",
    [
        b"x",
        b"\2\0\0\0\1",
        pack_acl([AclEntry(USER_OBJ, 6)]),
        acl(6, 4, 4, AclEntry(USER, 6, 5)),
        acl(8, 4, 4),
        acl(6, 4, 4, AclEntry(USER, 6), mask=6),
        pack_acl([AclEntry(OTHER, 6), AclEntry(USER_OBJ, 6), AclEntry(GROUP_OBJ, 6)]),
        pack_acl([AclEntry(USER_OBJ, 6), AclEntry(USER_OBJ, 6), AclEntry(GROUP_OBJ, 6)]),
        pack_acl([AclEntry(3, 6)]),
    ],
)
def test_malformed_acls(fs: Namespace, value: bytes) -> None:
    inode = fs.file(b"f")
    with refuses(Code.INVALID):
        fs.do("setxattr", inode, ACCESS_XATTR, value)
    with refuses(Code.NOT_SUPPORTED):
        parse_acl(struct.pack("<I", 1) + value[4:12].ljust(8, b"\0"))


def test_acl_arithmetic() -> None:
    named = parse_acl(acl(7, 5, 1, AclEntry(USER, 7, 5), mask=7))
    assert equivalent_mode(chmod_acl(named, 0o640)) == (0o640, False)
    assert [e.perm for e in chmod_acl(named, 0o640)] == [6, 7, 5, 4, 0]
    plain = parse_acl(acl(7, 5, 1))
    assert equivalent_mode(chmod_acl(plain, 0o640)) == (0o640, True)
    entries, mode, equivalent = inherit_acl(named, stat.S_IFREG | 0o620)
    assert (mode, equivalent) == (stat.S_IFREG | 0o620, False)
    assert [e.perm for e in entries] == [6, 7, 5, 2, 0]
    assert inherit_acl(plain, 0o666)[1:] == (0o640, True)


def test_access_acl_and_mode_follow_each_other(fs: Namespace) -> None:
    inode = fs.file(b"f")
    value = acl(6, 4, 0, AclEntry(USER, 6, 1001), mask=6)
    fs.do("setxattr", inode, ACCESS_XATTR, value)
    attr = fs.stat(inode)
    assert (attr.mode & 0o777, attr.flags & Flag.HAS_ACL) == (0o660, Flag.HAS_ACL)
    assert fs.do("listxattr", inode).data == ACCESS_XATTR
    fs.do("setattr", inode, Set.MODE, mode=0o640)
    assert parse_acl(fs.do("getxattr", inode, ACCESS_XATTR).data)[3] == AclEntry(MASK, 4)
    fs.do("setxattr", inode, ACCESS_XATTR, acl(7, 1, 1))
    attr = fs.stat(inode)
    assert (attr.mode & 0o777, attr.flags) == (0o711, Flag.INLINE)
    fs.do("removexattr", inode, ACCESS_XATTR)
    fs.do("setxattr", inode, ACCESS_XATTR, b"")
    with refuses(Code.NO_XATTR):
        fs.do("getxattr", inode, ACCESS_XATTR)


def test_setting_an_acl_drops_a_foreign_setgid_bit(fs: Namespace) -> None:
    inode = fs.file(b"f")
    fs.do("setattr", inode, 7, mode=0o2755, uid=1000, gid=3000)
    fs.do("setxattr", inode, ACCESS_XATTR, acl(7, 5, 5), caller=ALICE)
    assert fs.stat(inode).mode & 0o7777 == 0o755


def test_default_acl_takes_the_place_of_the_umask(fs: Namespace) -> None:
    directory = fs.dir(b"d")
    default = acl(7, 7, 5, AclEntry(USER, 7, 1001), mask=7)
    fs.do("setxattr", directory, DEFAULT_XATTR, default)
    assert fs.store.dentries[TOP.ino][b"d"].flags == Flag.HAS_DEFAULT_ACL
    inode = fs.file(b"f", 0o666, directory)
    assert fs.stat(inode).mode & 0o777 == 0o664
    entries = parse_acl(fs.do("getxattr", inode, ACCESS_XATTR).data)
    assert [e.perm for e in entries] == [6, 7, 7, 6, 4]
    below = fs.dir(b"e", 0o777, directory)
    assert fs.stat(below).mode & 0o777 == 0o775
    assert fs.do("getxattr", below, DEFAULT_XATTR).data == default
    assert fs.store.dentries[directory.ino][b"e"].flags == Flag.HAS_DEFAULT_ACL | Flag.HAS_ACL
    fs.do("removexattr", directory, DEFAULT_XATTR)
    assert fs.stat(fs.file(b"g", 0o666, directory)).mode & 0o777 == 0o644
    # One without named entries shapes the mode and leaves no list behind.
    fs.do("setxattr", directory, DEFAULT_XATTR, acl(6, 6, 0))
    plain = fs.stat(fs.file(b"h", 0o777, directory))
    assert (plain.mode & 0o777, plain.flags) == (0o660, Flag.INLINE)


def test_acls_are_not_for_everything(fs: Namespace) -> None:
    with refuses(Code.NOT_SUPPORTED):
        fs.do("setxattr", fs.symlink(b"l"), ACCESS_XATTR, acl(6, 4, 4))
    with refuses(Code.ACCESS):
        fs.do("setxattr", fs.file(b"f"), DEFAULT_XATTR, acl(6, 4, 4))
    with refuses(Code.NOT_PERMITTED):
        fs.do("setxattr", fs.file(b"g"), ACCESS_XATTR, acl(6, 4, 4), caller=ALICE)


def test_which_entry_of_an_acl_decides(fs: Namespace) -> None:
    inode = fs.file(b"f")
    named = (AclEntry(USER, 6, 1001), AclEntry(GROUP, 4, 2000), AclEntry(GROUP, 2, 2001))
    fs.do("setattr", inode, 7, mode=0o640, uid=1002, gid=1002)
    fs.do("setxattr", inode, ACCESS_XATTR, acl(4, 0, 7, *named, mask=6))
    attr = fs.stat(inode)
    for uid, gid, groups, rights in [
        (0, 0, (), 7),
        (1002, 5, (2001,), 4),
        (1001, 5, (), 6),
        (1000, 2000, (), 4),
        (1000, 5, (2000, 2001), 6),
        (1000, 1002, (), 0),
        (1000, 5, (), 7),
    ]:
        caller = Caller(uid, gid, frozenset(groups), trusted=False)
        got = sum(want for want in (4, 2, 1) if has_access(fs.store, caller, attr, want))
        assert got == rights, caller
    both = Caller(1000, 5, frozenset((2000, 2001)), trusted=False)
    assert not has_access(fs.store, both, attr, 6), "rights of two groups do not add up"


def test_mode_bits_on_directories(fs: Namespace) -> None:
    closed, readable, searchable = (fs.dir(n, 0o700) for n in (b"c", b"r", b"s"))
    for directory, mode in ((closed, 0o700), (readable, 0o744), (searchable, 0o711)):
        inode = fs.file(b"f", within=directory)
        fs.do("setattr", inode, Set.MODE, mode=0o600)
        fs.do("setattr", directory, Set.MODE, mode=mode)
    allowed: list[tuple[str, tuple[Any, ...], dict[str, Any], set[bytes]]] = [
        ("lookup", (b"f",), {}, {b"s"}),
        ("read_dir", (), {"plus": False}, {b"r"}),
        ("read_dir", (), {}, set()),
        ("get_many", ([b"f"],), {}, {b"s"}),
        ("create", (b"g", stat.S_IFREG), {}, set()),
        ("mkdir", (b"g", 0o755), {}, set()),
        ("unlink", (b"f",), {}, set()),
        ("remove_tree", (b"f", 5), {}, set()),
        ("reserve", (5,), {}, set()),
        ("create_many", ([],), {}, set()),
    ]
    for verb, arguments, options, where in allowed:
        for name, directory in ((b"c", closed), (b"r", readable), (b"s", searchable)):
            if name in where:
                fs.do(verb, directory, *arguments, caller=ALICE, **options)
            else:
                with refuses(Code.ACCESS):
                    fs.do(verb, directory, *arguments, caller=ALICE, **options)
    with refuses(Code.EXISTS):  # before the right to write is asked for
        fs.do("create", searchable, b"f", stat.S_IFREG, caller=ALICE)


def test_contents_need_rights_on_the_file(fs: Namespace) -> None:
    inode = fs.file(b"f", inline=b"secret")
    fs.do("setattr", inode, Set.MODE, mode=0o600)
    assert fs.do("lookup", TOP, b"f", want_inline=True, caller=ALICE).data == b""
    assert fs.do("get_many", TOP, [b"f"], inline_max=99, caller=ALICE).entries[0].inline is None
    assert fs.do("read_dir", TOP, inline_max=99, caller=ALICE).entries[0].inline is None
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("read_inline", (), {}),
        ("open", (), {}),
        ("open", (), {"write": True}),
        ("publish", (0,), {"writes": [(0, b"x")]}),
        ("append", (1,), {"data": b"x"}),
        ("new_data", (), {}),
        ("getxattr", (b"user.a",), {}),
        ("setxattr", (b"user.a", b"1"), {}),
    ]
    for verb, arguments, options in calls:
        with refuses(Code.ACCESS):
            fs.do(verb, inode, *arguments, caller=ALICE, **options)
    fs.do("setattr", inode, Set.UID | Set.MODE, uid=1000, mode=0o4444)
    fs.do("publish", inode, 0, writes=[(0, b"x")], caller=ALICE)
    assert fs.stat(inode).mode & 0o7777 == 0o444


def test_sticky_directory(fs: Namespace) -> None:
    tmp = fs.dir(b"tmp")
    fs.do("setattr", tmp, Set.MODE, mode=0o1777)
    for verb in ("unlink", "rename"):
        fs.file(b"f", within=tmp, caller=ALICE)
        arguments = (tmp, b"f") if verb == "unlink" else (tmp, b"f", tmp, b"g")
        with refuses(Code.NOT_PERMITTED):
            fs.do(verb, *arguments, caller=BOB)
        fs.do(verb, *arguments, caller=ALICE)
    fs.file(b"mine", within=tmp, caller=BOB)
    with refuses(Code.NOT_PERMITTED):
        fs.do("rename", tmp, b"mine", tmp, b"g", caller=BOB)
    fs.dir(b"d", within=tmp, caller=ALICE)
    for verb in ("rmdir", "unlink"):
        with refuses(Code.NOT_PERMITTED):
            fs.do(verb, tmp, b"d", caller=BOB)
    fs.do("rmdir", tmp, b"d", caller=ROOT_USER)


def test_moving_a_directory_needs_to_write_it(fs: Namespace) -> None:
    home = fs.dir(b"home")
    fs.do("setattr", home, 7, mode=0o777, uid=1000, gid=1000)
    fs.dir(b"to", within=home, caller=ALICE)
    fs.do("setattr", fs.dir(b"d", within=home), Set.MODE, mode=0o755)
    to = ref_of(fs.attr("lookup", home, b"to"))
    with refuses(Code.ACCESS):
        fs.do("rename", home, b"d", to, b"d", caller=ALICE)
    fs.do("rename", home, b"d", home, b"e", caller=ALICE)


def test_devices_are_roots(fs: Namespace) -> None:
    fs.do("setattr", TOP, Set.MODE, mode=0o777)
    with refuses(Code.NOT_PERMITTED):
        fs.do("create", TOP, b"null", stat.S_IFCHR, rdev=0x103, caller=ALICE)
    fs.do("create", TOP, b"fifo", stat.S_IFIFO, caller=ALICE)
    attr = fs.attr("create", TOP, b"null", stat.S_IFCHR | 0o666, rdev=0x103, caller=ROOT_USER)
    assert (attr.rdev, attr.flags) == (0x103, 0)


def test_xattr_names_and_sizes(fs: Namespace) -> None:
    inode = fs.file(b"f")
    for code, name, value, flags in [
        (Code.INVALID, b"", b"", 0),
        (Code.INVALID, b"user.", b"", 0),
        (Code.INVALID, b"user.a\0", b"", 0),
        (Code.NAME_TOO_LONG, b"user." + b"x" * 251, b"", 0),
        (Code.NOT_SUPPORTED, b"system.foo", b"", 0),
        (Code.NOT_SUPPORTED, b"foo", b"", 0),
        (Code.XATTR_TOO_BIG, b"user.a", bytes(65537), 0),
        (Code.NO_XATTR, b"user.a", b"", 2),
        (Code.INVALID, b"user.a", b"", 4),
    ]:
        with refuses(code):
            fs.do("setxattr", inode, name, value, flags=flags)
    fs.do("setxattr", inode, b"user.a", bytes(65536), flags=1)
    with refuses(Code.EXISTS):
        fs.do("setxattr", inode, b"user.a", b"", flags=1)
    for verb in ("getxattr", "removexattr"):
        with refuses(Code.NO_XATTR):
            fs.do(verb, inode, b"user.b")
    names = [b"user.%0250d" % i for i in range(300)]
    with refuses(Code.NO_SPACE):
        for name in names:
            fs.store.run(setxattr, KERNEL, inode, name, b"")


def test_xattr_namespaces(fs: Namespace) -> None:
    inode, link = fs.file(b"f"), fs.symlink(b"l")
    fs.do("setattr", inode, Set.UID, uid=1000)
    for name in (b"trusted.a", b"security.a", b"user.a"):
        fs.do("setxattr", inode, name, b"1")
    for name in (b"trusted.a", b"security.a"):
        with refuses(Code.NOT_PERMITTED):
            fs.do("setxattr", inode, name, b"2", caller=ALICE)
    fs.do("setxattr", inode, b"user.a", b"2", caller=ALICE)
    with refuses(Code.NO_XATTR):
        fs.do("getxattr", inode, b"trusted.a", caller=ALICE)
    assert fs.do("listxattr", inode, caller=ALICE).data == b"security.a\0user.a"
    assert fs.do("listxattr", inode).data == b"security.a\0trusted.a\0user.a"
    with refuses(Code.NOT_PERMITTED):
        fs.do("setxattr", link, b"user.a", b"", caller=ROOT_USER)


@pytest.mark.parametrize(
    ("uid", "gid", "groups", "rights"),
    [(0, 0, (), 7), (7, 8, (), 6), (9, 8, (), 5), (9, 9, (8,), 5), (9, 9, (), 2)],
)
def test_the_first_class_that_fits_decides(
    fs: Namespace, uid: int, gid: int, groups: tuple[int, ...], rights: int
) -> None:
    inode = fs.file(b"f")
    fs.do("setattr", inode, 7, mode=0o652, uid=7, gid=8)
    caller = Caller(uid, gid, frozenset(groups), trusted=False)
    attr = fs.stat(inode)
    got = sum(want for want in (4, 2, 1) if has_access(fs.store, caller, attr, want))
    assert got == rights


def test_root_executes_only_what_somebody_may(fs: Namespace) -> None:
    attr = fs.stat(fs.file(b"f", 0o666))
    assert not has_access(fs.store, ROOT_USER, attr, 1)
    assert has_access(fs.store, ROOT_USER, fs.stat(fs.dir(b"d", 0)), 1)


def test_open(fs: Namespace) -> None:
    inode = fs.file(b"f", inline=b"abc")
    assert fs.do("open", inode, caller=ALICE).data == b""
    assert fs.do("open", inode, want_inline=True, caller=ALICE).data == b"abc"
    with refuses(Code.ACCESS):
        fs.do("open", inode, write=True, caller=ALICE)
    fs.do("setattr", inode, Set.MODE, mode=0o622)
    assert fs.do("open", inode, write=True, want_inline=True, caller=ALICE).data == b""


def test_what_belongs_to_others_stays_as_it_is(fs: Namespace) -> None:
    """A setattr that asks for nothing by name still takes setuid away and sets ctime, and a read
    that is told later sets atime."""
    program = fs.file(b"program", 0o4755)
    secret = fs.file(b"secret", 0o600)
    before = [fs.stat(program), fs.stat(secret)]
    for mask in (0, int(Set.KILL_PRIV), 1 << 20):
        with refuses(Code.NOT_PERMITTED):
            fs.do("setattr", program, mask, caller=ALICE)
    fs.do("touch", [(secret, 1 << 62)], caller=ALICE)
    assert [fs.stat(program), fs.stat(secret)] == before
    fs.do("touch", [(secret, 1 << 62), (program, 1 << 62)], caller=ALICE)
    assert fs.stat(secret) == before[1]
    assert fs.stat(program).atime_ns > before[0].atime_ns
    assert fs.attr("setattr", program, int(Set.KILL_PRIV), caller=ROOT_USER).mode & 0o7777 == 0o755
