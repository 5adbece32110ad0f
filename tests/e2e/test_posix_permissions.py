"""Permissions as other users see them: mode bits, ownership, sticky, setuid and setgid."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from typing import TYPE_CHECKING

import pytest

from harness.posix import Actor, fails

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness.posix import Call

pytestmark = pytest.mark.fuse

ANN, BOB, STAFF = 1001, 1002, 2000


@pytest.fixture
def ann() -> Iterator[Actor]:
    with Actor(ANN) as actor:
        yield actor


@pytest.fixture
def bob() -> Iterator[Actor]:
    with Actor(BOB) as actor:
        yield actor


def mode(path: Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_mode_bits_decide(place: Path, ann: Actor, bob: Actor) -> None:
    """Every class by every bit: owner, group, others; reading, writing, searching."""
    with Actor(BOB, groups=(STAFF,)) as staff:
        (place / "f").write_text("text")
        os.chown(place / "f", ANN, STAFF)
        (place / "d").mkdir()
        (place / "d" / "in").touch()
        os.chown(place / "d", ANN, STAFF)
        who = ((ann, 6), (staff, 3), (bob, 0))
        for bits, (actor, shift) in itertools.product(range(8), who):
            os.chmod(place / "f", bits << shift)
            os.chmod(place / "d", bits << shift)
            checks: tuple[tuple[int, Callable[[Actor], object]], ...] = (
                (4, lambda a: a.call("read_file", place / "f")),
                (2, lambda a: a.call("open", place / "f", os.O_WRONLY)),
                (6, lambda a: a.call("open", place / "f", os.O_RDWR)),
                (4, lambda a: a.call("listdir", place / "d")),
                (1, lambda a: a.call("stat", place / "d" / "in")),
                (3, lambda a: a.call("mkdir", place / "d" / "new")),
            )
            for wanted, check in checks:
                if bits & wanted == wanted:
                    check(actor)
                else:
                    with fails(errno.EACCES):
                        check(actor)
            if (place / "d" / "new").exists():
                os.rmdir(place / "d" / "new")


def test_access_is_not_remembered_for_somebody_else(place: Path, ann: Actor, bob: Actor) -> None:
    (place / "d").mkdir(mode=0o700)
    os.chown(place / "d", ANN, ANN)
    for _ in range(3):
        ann.call("write_file", place / "d" / "f", b"secret", os.O_CREAT)
        assert ann.call("read_file", place / "d" / "f") == b"secret"
        with fails(errno.EACCES):
            bob.call("read_file", place / "d" / "f")
        with fails(errno.EACCES):
            bob.call("listdir", place / "d")


def test_new_files_belong_to_their_maker(place: Path, ann: Actor) -> None:
    ann.call("umask", 0o027)
    ann.call("write_file", place / "f", b"x", os.O_CREAT)
    ann.call("mkdir", place / "d", 0o777)
    ann.call("symlink", "f", place / "s")
    ann.call("mkfifo", place / "p", 0o666)
    for name, bits in (("f", 0o750), ("d", 0o750), ("s", 0o777), ("p", 0o640)):
        info = os.lstat(place / name)
        assert (info.st_uid, info.st_gid) == (ANN, ANN), name
        assert mode(place / name) == bits, name
    ann.call("umask", 0o022)


def test_only_owners_change_mode_and_owner(place: Path, ann: Actor, bob: Actor) -> None:
    ann.call("write_file", place / "f", b"x", os.O_CREAT)
    ann.call("chmod", place / "f", 0o604)
    calls: list[Call] = [
        lambda: bob.call("chmod", place / "f", 0o777),
        lambda: bob.call("chown", place / "f", BOB, -1),
        lambda: ann.call("chown", place / "f", BOB, -1),
        lambda: ann.call("chown", place / "f", -1, STAFF),
        lambda: bob.call("utime", place / "f", (1, 1)),
    ]
    for call in calls:
        with fails(errno.EPERM):
            call()
    ann.call("chown", place / "f", ANN, ANN)
    with Actor(ANN, groups=(STAFF,)) as member:
        member.call("chown", place / "f", -1, STAFF)
    assert os.stat(place / "f").st_gid == STAFF
    assert mode(place / "f") == 0o604


def test_root_may_everything(place: Path) -> None:
    (place / "f").write_text("x")
    os.chmod(place / "f", 0)
    os.chown(place / "f", ANN, ANN)
    assert (place / "f").read_text() == "x"
    os.chown(place / "f", 0xFFFFFFFE, 0xFFFFFFFE)
    assert os.stat(place / "f").st_uid == 0xFFFFFFFE


def test_sticky_directory(place: Path, ann: Actor, bob: Actor) -> None:
    (place / "t").mkdir()
    os.chmod(place / "t", 0o1777)
    ann.call("write_file", place / "t" / "f", b"x", os.O_CREAT)
    ann.call("mkdir", place / "t" / "d", 0o777)
    bob.call("write_file", place / "t" / "mine", b"x", os.O_CREAT)
    calls: list[Call] = [
        lambda: bob.call("unlink", place / "t" / "f"),
        lambda: bob.call("rmdir", place / "t" / "d"),
        lambda: bob.call("rename", place / "t" / "f", place / "t" / "g"),
        lambda: bob.call("rename", place / "t" / "mine", place / "t" / "f"),
    ]
    for call in calls:
        with fails(errno.EPERM, errno.EACCES):
            call()
    assert sorted(os.listdir(place / "t")) == ["d", "f", "mine"]
    ann.call("unlink", place / "t" / "f")
    ann.call("rmdir", place / "t" / "d")
    os.chown(place / "t", BOB, BOB)
    ann.call("write_file", place / "t" / "a", b"x", os.O_CREAT)
    bob.call("unlink", place / "t" / "a")  # the owner of the directory may


def test_setgid_directory_is_inherited(place: Path, ann: Actor) -> None:
    (place / "d").mkdir()
    os.chown(place / "d", 0, STAFF)
    os.chmod(place / "d", 0o2777)
    ann.call("write_file", place / "d" / "f", b"x", os.O_CREAT)
    ann.call("mkdir", place / "d" / "sub", 0o755)
    ann.call("symlink", "x", place / "d" / "s")
    assert {os.lstat(place / "d" / n).st_gid for n in ("f", "sub", "s")} == {STAFF}
    assert mode(place / "d" / "sub") == 0o2755
    assert mode(place / "d" / "f") & 0o2000 == 0
    ann.call("mkdir", place / "d" / "sub" / "deeper", 0o755)
    assert mode(place / "d" / "sub" / "deeper") == 0o2755


def test_setgid_needs_membership(place: Path, ann: Actor) -> None:
    ann.call("write_file", place / "f", b"x", os.O_CREAT)
    os.chown(place / "f", ANN, STAFF)
    ann.call("chmod", place / "f", 0o2755)
    assert mode(place / "f") == 0o755
    with Actor(ANN, groups=(STAFF,)) as member:
        member.call("chmod", place / "f", 0o2755)
    assert mode(place / "f") == 0o2755


@pytest.mark.parametrize("size", [5, 50_000])
def test_writing_clears_setuid_and_setgid(place: Path, bob: Actor, size: int) -> None:
    for bits, left in ((0o6777, 0o777), (0o4777, 0o777), (0o2777, 0o777), (0o2766, 0o2766)):
        (place / "f").write_bytes(b"x" * size)
        os.chmod(place / "f", bits)
        bob.call("write_file", place / "f", b"changed", 0)
        expected = left if bits != 0o2766 else mode(place / "f") & 0o2000 | 0o766
        assert mode(place / "f") == expected, oct(bits)
        os.unlink(place / "f")


def test_truncating_clears_setuid_and_setgid(place: Path, bob: Actor) -> None:
    (place / "f").write_bytes(b"x" * 100)
    os.chmod(place / "f", 0o6777)
    bob.call("truncate", place / "f", 3)
    assert mode(place / "f") == 0o777
    os.chmod(place / "f", 0o6777)
    bob.call("open", place / "f", os.O_WRONLY | os.O_TRUNC)
    assert mode(place / "f") == 0o777


def test_changing_owner_clears_setuid_and_setgid(place: Path) -> None:
    (place / "f").touch()
    with Actor(ANN, groups=(STAFF,)) as member:
        for bits, left in ((0o6775, 0o775), (0o4755, 0o755)):
            os.chown(place / "f", ANN, ANN)
            os.chmod(place / "f", bits)
            member.call("chown", place / "f", -1, STAFF)
            assert mode(place / "f") == left, oct(bits)
    os.chmod(place / "f", 0o6755)
    os.chown(place / "f", BOB, BOB)
    assert mode(place / "f") == 0o755  # Linux: root's chown of a file clears them too
    (place / "d").mkdir()
    os.chmod(place / "d", 0o2775)
    os.chown(place / "d", BOB, BOB)
    assert mode(place / "d") == 0o2775


def test_a_chown_to_nobody_clears_setuid_and_setgid(place: Path, ann: Actor) -> None:
    (place / "f").touch()
    os.chown(place / "f", ANN, ANN)
    os.chmod(place / "f", 0o6755)
    ann.call("chown", place / "f", -1, -1)
    assert mode(place / "f") == 0o755


def test_setgid_without_execution_is_left_to_members(place: Path, ann: Actor) -> None:
    """Also where the group is one of many that the caller is in."""
    (place / "f").write_bytes(b"x" * 100)
    os.chown(place / "f", ANN, STAFF)
    with Actor(ANN, groups=(STAFF,)) as member:
        for call, *arguments in (("truncate", 3), ("chown", -1, -1), ("chown", -1, STAFF)):
            os.chmod(place / "f", 0o2766)
            member.call(call, place / "f", *arguments)
            assert mode(place / "f") == 0o2766, call
    ann.call("truncate", place / "f", 2)
    assert mode(place / "f") == 0o766


def test_supplementary_groups_count(place: Path) -> None:
    (place / "f").write_text("x")
    os.chown(place / "f", 0, 3007)
    os.chmod(place / "f", 0o640)
    with Actor(BOB, groups=tuple(range(3000, 3040))) as many:
        assert many.call("read_file", place / "f") == b"x"
    with Actor(BOB, groups=(3000,)) as few, fails(errno.EACCES):
        few.call("read_file", place / "f")


def test_foreign_hard_links_and_directories(place: Path, ann: Actor, bob: Actor) -> None:
    (place / "d").mkdir(mode=0o755)
    os.chown(place / "d", ANN, ANN)
    ann.call("write_file", place / "d" / "f", b"x", os.O_CREAT)
    calls: list[Call] = [
        lambda: bob.call("link", place / "d" / "f", place / "d" / "g"),
        lambda: bob.call("unlink", place / "d" / "f"),
        lambda: bob.call("rename", place / "d" / "f", place / "f"),
        lambda: bob.call("mkdir", place / "d" / "sub"),
        lambda: bob.call("symlink", "x", place / "d" / "s"),
        lambda: bob.call("write_file", place / "d" / "new", b"x", os.O_CREAT),
    ]
    for call in calls:
        with fails(errno.EACCES, errno.EPERM):  # EPERM: the kernel protects hard links
            call()
    with fails(errno.EACCES):
        bob.call("truncate", place / "d" / "f", 0)
    assert os.listdir(place / "d") == ["f"]


def test_mknod_of_devices_is_for_root(place: Path, ann: Actor) -> None:
    with fails(errno.EPERM):
        ann.call("mknod", place / "dev", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    ann.call("mknod", place / "pipe", stat.S_IFIFO | 0o600)


def test_utime_now_needs_write_access_only(place: Path, bob: Actor) -> None:
    (place / "f").touch()
    os.chmod(place / "f", 0o666)
    os.utime(place / "f", (1, 1))
    bob.call("utime", place / "f")
    assert os.stat(place / "f").st_mtime > 1000
    with fails(errno.EPERM):
        bob.call("utime", place / "f", (5, 5))
    os.chmod(place / "f", 0o644)
    with fails(errno.EACCES):
        bob.call("utime", place / "f")
