"""Names, links, special files and the errors of walking a path."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from harness.posix import Call, fails

pytestmark = pytest.mark.fuse

ODD_NAMES = [
    b"\xff\xfe\x80", b"\xed\xb3\xbf", b"a\nb", b"\x1b[31mred\x1b[0m", b"-rf", b"name.", b"name ",
    b" ", b"...", b"caf\xc3\xa9", b"cafe\xcc\x81", b"\x01", b"\\", b"*", b"'\"", b"a" * 255,
    b"\xe6\xb8\x85" * 85,
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_bytes_make_a_name(place: Path, name: bytes) -> None:
    base = os.fsencode(place)
    path = os.path.join(base, name)
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
    os.write(fd, name)
    os.close(fd)
    assert os.listdir(base) == [name]
    os.mkdir(os.path.join(base, b"d"))
    os.rename(path, os.path.join(base, b"d", name))
    with open(os.path.join(base, b"d", name), "rb") as file:
        assert file.read() == name
    os.symlink(name, os.path.join(base, b"d", b"s"))
    assert os.readlink(os.path.join(base, b"d", b"s")) == name
    os.unlink(os.path.join(base, b"d", name))
    os.mkdir(os.path.join(base, b"d", name))
    assert sorted(os.listdir(os.path.join(base, b"d"))) == sorted([name, b"s"])
    os.rmdir(os.path.join(base, b"d", name))


def test_composed_and_decomposed_names_differ(place: Path) -> None:
    base = os.fsencode(place)
    for name in (b"caf\xc3\xa9", b"cafe\xcc\x81"):
        os.mkdir(os.path.join(base, name))
    assert len(os.listdir(base)) == 2


def test_lengths(place: Path) -> None:
    long = "n" * 256
    (place / "f").touch()
    calls: list[Call] = [
        lambda: os.mkdir(place / long),
        lambda: os.open(place / long, os.O_CREAT | os.O_WRONLY),
        lambda: os.symlink("x", place / long),
        lambda: os.mkfifo(place / long),
        lambda: os.link(place / "f", place / long),
        lambda: os.rename(place / "f", place / long),
        lambda: os.stat(place / long),
        lambda: os.unlink(place / long),
        lambda: os.rmdir(place / long),
    ]
    for call in calls:
        with fails(errno.ENAMETOOLONG):
            call()
    os.symlink("t" * 4095, place / "s")
    assert os.readlink(place / "s") == "t" * 4095
    with fails(errno.ENAMETOOLONG):
        os.symlink("t" * 4096, place / "s2")
    with fails(errno.ENOENT):
        os.symlink("", place / "s3")


def test_deep_tree(place: Path) -> None:
    fd = os.open(place, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    assert (place / Path(*["d"] * 300) / "leaf").exists()


def test_errors_of_a_path(place: Path) -> None:
    (place / "f").touch()
    (place / "d").mkdir()
    (place / "d" / "x").touch()
    os.symlink("loop", place / "loop")
    cases: list[tuple[int, Call]] = [
        (errno.ENOENT, lambda: os.stat(place / "none")),
        (errno.ENOENT, lambda: os.mkdir(place / "none" / "d")),
        (errno.ENOENT, lambda: os.unlink(place / "none")),
        (errno.ENOENT, lambda: os.rmdir(place / "none")),
        (errno.ENOENT, lambda: os.rename(place / "none", place / "g")),
        (errno.ENOENT, lambda: os.link(place / "none", place / "g")),
        (errno.ENOENT, lambda: os.readlink(place / "none")),
        (errno.ENOTDIR, lambda: os.stat(place / "f" / "x")),
        (errno.ENOTDIR, lambda: os.mkdir(place / "f" / "x")),
        (errno.ENOTDIR, lambda: os.rmdir(place / "f")),
        (errno.ENOTDIR, lambda: os.listdir(place / "f")),
        (errno.ENOTDIR, lambda: os.open(place / "f", os.O_DIRECTORY)),
        (errno.ENOTDIR, lambda: os.open(f"{place}/f/", os.O_RDONLY)),
        (errno.EISDIR, lambda: os.unlink(place / "d")),
        (errno.EISDIR, lambda: os.open(place / "d", os.O_WRONLY)),
        (errno.EISDIR, lambda: os.open(place / "d", os.O_CREAT | os.O_WRONLY)),
        (errno.EEXIST, lambda: os.mkdir(place / "f")),
        (errno.EEXIST, lambda: os.mkdir(place / "d")),
        (errno.EEXIST, lambda: os.mkfifo(place / "f")),
        (errno.EEXIST, lambda: os.symlink("x", place / "f")),
        (errno.EEXIST, lambda: os.link(place / "f", place / "d")),
        (errno.EEXIST, lambda: os.mkdir(place / "loop")),
        (errno.ENOTEMPTY, lambda: os.rmdir(place / "d")),
        (errno.EINVAL, lambda: os.rmdir(f"{place}/d/.")),
        (errno.ENOTEMPTY, lambda: os.rmdir(f"{place}/d/..")),
        (errno.EINVAL, lambda: os.readlink(place / "f")),
        (errno.ELOOP, lambda: os.stat(place / "loop")),
        (errno.ELOOP, lambda: os.open(place / "loop", os.O_RDONLY | os.O_NOFOLLOW)),
        (errno.EPERM, lambda: os.link(place / "d", place / "d2")),
    ]
    for number, call in cases:
        with fails(number):
            call()
    assert sorted(os.listdir(place)) == ["d", "f", "loop"]


def test_exclusive_create(place: Path) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    os.close(os.open(place / "f", flags, 0o600))
    os.symlink("none", place / "dangling")
    for name in ("f", "dangling"):
        with fails(errno.EEXIST):
            os.open(place / name, flags)
    os.close(os.open(place / "dangling", os.O_CREAT | os.O_WRONLY))
    assert (place / "none").exists()


def test_create_race_has_one_winner(place: Path) -> None:
    won: list[int] = []

    def contend(number: int) -> None:
        for i in range(20):
            try:
                os.close(os.open(place / f"r{i}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                won.append(i)
            except FileExistsError:
                pass

    threads = [threading.Thread(target=contend, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(20))


def test_hard_links(place: Path) -> None:
    (place / "a").write_text("one")
    (place / "d").mkdir()
    os.link(place / "a", place / "b")
    os.link(place / "b", place / "d" / "c")
    paths = [place / "a", place / "b", place / "d" / "c"]
    assert {(p.stat().st_ino, p.stat().st_nlink) for p in paths} == {(paths[0].stat().st_ino, 3)}
    (place / "d" / "c").write_text("two!")
    assert [p.read_text() for p in paths] == ["two!"] * 3
    os.chmod(place / "b", 0o600)
    assert stat.S_IMODE(paths[2].stat().st_mode) == 0o600
    before = paths[2].stat().st_ctime_ns
    os.unlink(place / "a")
    assert paths[2].stat().st_nlink == 2
    assert paths[2].stat().st_ctime_ns > before
    os.rename(place / "b", place / "d" / "b")
    os.unlink(place / "d" / "c")
    assert (place / "d" / "b").stat().st_nlink == 1
    assert (place / "d" / "b").read_text() == "two!"
    os.link(place / "d" / "b", place / "again")
    assert (place / "again").read_text() == "two!"


def test_many_links(place: Path) -> None:
    (place / "f").touch()
    for i in range(500):
        os.link(place / "f", place / f"l{i:03}")
    assert (place / "f").stat().st_nlink == 501


def test_link_to_a_symlink_links_itself(place: Path) -> None:
    os.symlink("nowhere", place / "s")
    os.link(place / "s", place / "t", follow_symlinks=False)
    assert os.lstat(place / "t").st_ino == os.lstat(place / "s").st_ino
    assert os.lstat(place / "t").st_nlink == 2


def test_symlink_attributes(place: Path) -> None:
    os.symlink("0123456789", place / "s")
    info = os.lstat(place / "s")
    assert stat.S_ISLNK(info.st_mode)
    assert info.st_size == 10
    assert stat.S_IMODE(info.st_mode) == 0o777
    os.chown(place / "s", 5, 6, follow_symlinks=False)
    assert (os.lstat(place / "s").st_uid, os.lstat(place / "s").st_gid) == (5, 6)
    (place / "d").mkdir()
    (place / "d" / "f").write_text("through")
    os.symlink("d", place / "sd")
    assert (place / "sd" / "f").read_text() == "through"


def test_fifo_and_socket_and_devices(place: Path) -> None:
    os.mkfifo(place / "p", 0o644)
    assert stat.S_ISFIFO(os.stat(place / "p").st_mode)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((place / "p").read_bytes()))
    reader.start()
    (place / "p").write_bytes(b"through the pipe")
    reader.join()
    assert got == [b"through the pipe"]
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        fd = os.open(place, os.O_RDONLY)
        path = f"/proc/self/fd/{fd}/s"  # the length of a socket's path is limited
        server.bind(path)
        server.listen(1)
        client.connect(path)
        os.close(fd)
    assert stat.S_ISSOCK(os.stat(place / "s").st_mode)
    for name, kind in (("c", stat.S_IFCHR), ("b", stat.S_IFBLK)):
        os.mknod(place / name, kind | 0o600, os.makedev(10, 229))
        info = os.stat(place / name)
        assert stat.S_IFMT(info.st_mode) == kind
        assert info.st_rdev == os.makedev(10, 229)
        assert info.st_size == 0
    os.mknod(place / "r", stat.S_IFREG | 0o600)
    assert (place / "r").read_bytes() == b""
    for name in "pscbr":
        os.rename(place / name, place / (name + "2"))
        os.unlink(place / (name + "2"))
    assert os.listdir(place) == []
