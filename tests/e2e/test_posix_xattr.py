"""Extended attributes and POSIX ACLs, through the system calls and through setfacl/getfacl."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from harness.posix import Actor, fails

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.fuse

ANN, BOB, STAFF = 1001, 1002, 2000


def setfacl(*args: str | Path) -> None:
    subprocess.run(["setfacl", *args], check=True, capture_output=True)


def getfacl(path: Path) -> list[str]:
    return subprocess.check_output(["getfacl", "-cnp", str(path)], text=True).split()


def mode(path: Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_life_of_an_xattr(place: Path, kind: str) -> None:
    path = place / "x"
    path.touch() if kind == "file" else path.mkdir()
    assert os.listxattr(path) == []
    os.setxattr(path, "user.a", b"1")
    os.setxattr(path, "user.empty", b"")
    os.setxattr(path, "user.\udcff", b"\0\xff", os.XATTR_CREATE)
    os.setxattr(path, "trusted.t", b"t")
    assert sorted(os.listxattr(path)) == ["trusted.t", "user.a", "user.empty", "user.\udcff"]
    assert os.getxattr(path, "user.empty") == b""
    assert os.getxattr(path, "user.\udcff") == b"\0\xff"
    with fails(errno.EEXIST):
        os.setxattr(path, "user.a", b"2", os.XATTR_CREATE)
    with fails(errno.ENODATA):
        os.setxattr(path, "user.none", b"2", os.XATTR_REPLACE)
    os.setxattr(path, "user.a", b"22", os.XATTR_REPLACE)
    assert os.getxattr(path, "user.a") == b"22"
    before = path.stat().st_ctime_ns
    os.removexattr(path, "user.a")
    assert path.stat().st_ctime_ns > before
    for call in (os.getxattr, os.removexattr):
        with fails(errno.ENODATA):
            call(path, "user.a")
    os.rename(path, place / "y")
    assert os.getxattr(place / "y", "user.empty") == b""


def test_xattrs_follow_a_hard_link(place: Path) -> None:
    (place / "f").touch()
    os.setxattr(place / "f", "user.before", b"1")
    os.link(place / "f", place / "g")
    os.setxattr(place / "g", "user.after", b"2")
    os.unlink(place / "f")
    assert sorted(os.listxattr(place / "g")) == ["user.after", "user.before"]


def test_xattr_limits(place: Path) -> None:
    (place / "f").touch()
    os.setxattr(place / "f", "user." + "n" * 250, b"x")
    with fails(errno.ERANGE):
        os.setxattr(place / "f", "user." + "n" * 251, b"x")
    with fails(errno.EOPNOTSUPP):
        os.setxattr(place / "f", "nonsense.a", b"x")
    with fails(errno.E2BIG):
        os.setxattr(place / "f", "user.big", bytes(65537))
    for i in range(20):
        os.setxattr(place / "f", f"user.k{i:02}", b"v" * 50)
    assert len(os.listxattr(place / "f")) == 21


def test_xattr_namespaces_by_user(place: Path) -> None:
    (place / "f").touch()
    os.chown(place / "f", ANN, ANN)
    os.setxattr(place / "f", "trusted.secret", b"x")
    with Actor(ANN) as ann, Actor(BOB) as bob:
        ann.call("setxattr", str(place / "f"), "user.mine", b"1")
        assert bob.call("getxattr", str(place / "f"), "user.mine") == b"1"
        with fails(errno.EACCES):
            bob.call("setxattr", str(place / "f"), "user.theirs", b"1")
        with fails(errno.EPERM):
            ann.call("setxattr", str(place / "f"), "trusted.t", b"1")
        with fails(errno.ENODATA):
            ann.call("getxattr", str(place / "f"), "trusted.secret")
        assert ann.call("listxattr", str(place / "f")) == ["user.mine"]
        assert "trusted.secret" in os.listxattr(place / "f")
        os.symlink("f", place / "s")
        with fails(errno.EPERM):
            os.setxattr(place / "s", "user.a", b"1", follow_symlinks=False)


def test_acl_of_a_file(place: Path) -> None:
    path = place / "f"
    path.write_text("x")
    os.chmod(path, 0o640)
    setfacl("-m", f"u:{BOB}:rw,g:{STAFF}:r", path)
    assert getfacl(path) == [
        "user::rw-", f"user:{BOB}:rw-", "group::r--", f"group:{STAFF}:r--", "mask::rw-",
        "other::---",
    ]  # fmt: skip
    assert mode(path) == 0o660  # the group bits are the mask
    with Actor(BOB) as bob, Actor(ANN) as ann, Actor(ANN, groups=(STAFF,)) as staff:
        bob.call("open", path, os.O_RDWR)
        assert staff.call("read_file", path) == b"x"
        for actor, flags in ((staff, os.O_WRONLY), (ann, os.O_RDONLY)):
            with fails(errno.EACCES):
                actor.call("open", path, flags)
        os.chmod(path, 0o600)  # takes the mask away, so nobody named gets in
        assert "mask::---" in getfacl(path)
        with fails(errno.EACCES):
            bob.call("open", path, os.O_RDONLY)
        os.chmod(path, 0o640)
        assert bob.call("read_file", path) == b"x"
    setfacl("-b", path)
    assert getfacl(path) == ["user::rw-", "group::r--", "other::---"]
    assert mode(path) == 0o640
    assert os.listxattr(path) == []


def test_acl_that_says_what_the_mode_says_is_the_mode(place: Path) -> None:
    (place / "f").touch()
    setfacl("-m", "u::rwx,g::r,o::-", place / "f")
    assert mode(place / "f") == 0o740
    assert os.listxattr(place / "f") == []


def test_default_acl_is_inherited_instead_of_the_umask(place: Path) -> None:
    top = place / "d"
    top.mkdir(mode=0o755)
    setfacl("-d", "-m", f"u::rwx,g::rx,o::-,u:{BOB}:rwx,m::rwx", top)
    os.chown(top, ANN, ANN)
    with Actor(ANN) as ann:
        ann.call("umask", 0o077)
        ann.call("open", top / "f", os.O_CREAT | os.O_WRONLY, 0o666)
        ann.call("open", top / "tight", os.O_CREAT | os.O_WRONLY, 0o600)
        ann.call("mkdir", top / "sub", 0o777)
        ann.call("symlink", "f", top / "s")
    assert mode(top / "f") == 0o660
    assert getfacl(top / "f") == [
        "user::rw-", f"user:{BOB}:rwx", "#effective:rw-", "group::r-x", "#effective:r--",
        "mask::rw-", "other::---",
    ]  # fmt: skip
    assert mode(top / "tight") == 0o600
    assert "mask::---" in getfacl(top / "tight")
    assert mode(top / "sub") == 0o770
    assert f"default:user:{BOB}:rwx" in getfacl(top / "sub")
    assert "system.posix_acl_default" in os.listxattr(top / "sub")
    with Actor(BOB) as bob:
        bob.call("write_file", top / "sub" / "from_bob", b"x", os.O_CREAT)
        with fails(errno.EACCES):
            bob.call("open", top / "tight", os.O_RDONLY)
    setfacl("-k", top)
    with Actor(ANN) as ann:
        ann.call("umask", 0o077)
        ann.call("open", top / "plain", os.O_CREAT | os.O_WRONLY, 0o666)
    assert mode(top / "plain") == 0o600
    assert getfacl(top / "plain") == ["user::rw-", "group::---", "other::---"]


def test_default_acl_without_mask(place: Path) -> None:
    top = place / "d"
    top.mkdir()
    setfacl("-d", "-m", "u::rwx,g::rx,o::r", top)
    old = os.umask(0o077)
    try:
        os.close(os.open(top / "f", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir(top / "sub", 0o777)
    finally:
        os.umask(old)
    assert (mode(top / "f"), mode(top / "sub")) == (0o644, 0o754)
    assert os.listxattr(top / "f") == []


def test_acl_rules_of_ownership(place: Path) -> None:
    (place / "f").touch()
    (place / "d").mkdir()
    os.chown(place / "f", ANN, ANN)
    with Actor(BOB) as bob, Actor(ANN) as ann:
        value = bytes.fromhex("0200000001000600ffffffff04000400ffffffff20000400ffffffff")
        with fails(errno.EPERM):
            bob.call("setxattr", str(place / "f"), "system.posix_acl_access", value)
        ann.call("setxattr", str(place / "f"), "system.posix_acl_access", value)
        with fails(errno.EINVAL):
            ann.call("setxattr", str(place / "f"), "system.posix_acl_access", value[:-3])
    assert mode(place / "f") == 0o644
    with fails(errno.EACCES, errno.EOPNOTSUPP):
        os.setxattr(place / "f", "system.posix_acl_default", value)
    os.setxattr(place / "d", "system.posix_acl_default", value)
    assert os.getxattr(place / "d", "system.posix_acl_default") == value


def test_write_clears_a_capability(place: Path) -> None:
    path = place / "f"
    path.write_bytes(b"x" * 100)
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(path, "security.capability", capability)
    assert os.getxattr(path, "security.capability") == capability
    with open(path, "r+b") as file:
        file.write(b"y")
    with fails(errno.ENODATA):
        os.getxattr(path, "security.capability")
