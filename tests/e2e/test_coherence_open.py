"""What one mount has open, while another one changes it."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import pytest

from harness.cluster import Cluster
from harness.mount import Mount, fsck
from harness.posix import Actor, fails

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.fuse, pytest.mark.slow]
EACCES, ENOENT = 13, 2


@pytest.fixture(scope="module")
def cluster_of_two() -> Iterator[tuple[Mount, Mount]]:
    with Cluster() as cluster, Mount(cluster, "m0") as first, Mount(cluster, "m1") as second:
        yield first, second
        fsck(cluster)
        trouble = [*cluster.trouble(), *first.trouble(), *second.trouble()]
        assert not trouble, "\n".join(trouble)


@pytest.fixture
def tops(cluster_of_two: tuple[Mount, Mount], request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """One new directory, through both."""
    first, second = (mount.point / request.node.name for mount in cluster_of_two)
    first.mkdir()
    first.chmod(0o777)
    return first, second


def test_a_directory_is_renamed_under_an_open_descriptor(tops: tuple[Path, Path]) -> None:
    here, there = tops
    (here / "d").mkdir()
    (here / "d" / "x").write_text("x")
    fd = os.open(there / "d", os.O_RDONLY)
    try:
        assert os.listdir(fd) == ["x"]
        (here / "d").rename(here / "e")
        (here / "e" / "y").write_text("y")
        (here / "d").mkdir()
        assert sorted(os.listdir(fd)) == ["x", "y"]
        assert os.stat("y", dir_fd=fd).st_size == 1
        os.close(os.open("z", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        assert sorted(os.listdir(here / "e")) == ["x", "y", "z"]
        assert os.listdir(here / "d") == os.listdir(there / "d") == []
        assert os.fstat(fd).st_ino == os.stat(here / "e").st_ino
    finally:
        os.close(fd)


@pytest.mark.parametrize("size", [5, 100_000])
@pytest.mark.parametrize("how", ["unlink", "replace"])
def test_a_file_is_removed_right_after_it_was_opened(
    tops: tuple[Path, Path], size: int, how: str
) -> None:
    """The server hears of an open a moment later only. None is lost in that moment."""
    here, there = tops
    for number in range(20):
        name = f"x{number}"
        (here / name).write_bytes(b"%d" % (number % 10) * size)
        (here / "other").write_bytes(b"other")
        assert os.stat(there / name).st_size == size
        fd = os.open(there / name, os.O_RDONLY)
        try:
            if how == "unlink":
                (here / name).unlink()
            else:
                (here / "other").replace(here / name)
            assert os.pread(fd, size + 1, 0) == b"%d" % (number % 10) * size
            assert os.fstat(fd).st_nlink == 0
        finally:
            os.close(fd)


def test_a_directory_is_removed_under_a_working_directory(tops: tuple[Path, Path]) -> None:
    here, there = tops
    (here / "d").mkdir()
    before = os.getcwd()
    os.chdir(there / "d")
    try:
        assert os.listdir(".") == []
        (here / "d").rmdir()
        with fails(ENOENT, 116):
            open("x", "w").close()
        (here / "d").mkdir()
        (there / "d" / "x").touch()
        assert os.listdir(here / "d") == ["x"]
    finally:
        os.chdir(before)


@pytest.mark.parametrize("size", [100, 1 << 20])
def test_close_to_open(tops: tuple[Path, Path], size: int) -> None:
    here, there = tops
    (here / "x").write_bytes(b"1" * size)
    fd = os.open(there / "x", os.O_RDONLY)
    try:
        assert os.pread(fd, size, 0) == b"1" * size
        for byte in (b"2", b"3"):
            with open(here / "x", "r+b") as file:
                file.write(byte * size)
            assert (there / "x").read_bytes() == byte * size
        with open(here / "x", "ab") as file:
            file.write(b"4")
        assert os.fstat(fd).st_size == size + 1
        assert (there / "x").read_bytes() == b"3" * size + b"4"
        os.truncate(here / "x", size // 2)
        assert os.fstat(fd).st_size == size // 2
        assert (there / "x").read_bytes() == b"3" * (size // 2)
    finally:
        os.close(fd)


def test_a_mapping_is_made_anew(tops: tuple[Path, Path]) -> None:
    here, there = tops
    size = 1 << 18
    for byte in (b"1", b"2", b"3"):
        (here / "x").write_bytes(byte * size)
        with open(there / "x", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as m:
            assert m[:] == byte * size


def test_in_turn_at_the_end(tops: tuple[Path, Path]) -> None:
    """Each appends to what the other one has just closed."""
    expected = b""
    for n in range(20):
        with open(tops[n % 2] / "x", "ab") as file:
            file.write(b"%02d" % n)
        expected += b"%02d" % n
        for top in tops:
            assert (top / "x").read_bytes() == expected
            assert (top / "x").stat().st_size == len(expected)


def test_an_open_file_moves_to_another_directory(tops: tuple[Path, Path]) -> None:
    here, there = tops
    (here / "d").mkdir()
    (here / "x").write_bytes(b"12")
    with open(there / "x", "r+b", buffering=0) as file:
        assert file.read() == b"12"
        (here / "x").rename(here / "d" / "y")
        info = os.fstat(file.fileno())
        assert (info.st_nlink, info.st_size) == (1, 2)
        file.write(b"3")
        os.fsync(file.fileno())
        assert (here / "d" / "y").read_bytes() == b"123"
        os.chmod(here / "d" / "y", 0o600)
        assert os.fstat(file.fileno()).st_mode & 0o777 == 0o600


def test_permissions(tops: tuple[Path, Path]) -> None:
    here, there = tops
    (here / "d").mkdir()
    (here / "d" / "x").write_text("x")
    with Actor(1000) as actor:
        assert actor.call("read_file", there / "d" / "x") == b"x"
        (here / "d" / "x").chmod(0o600)
        with fails(EACCES):
            actor.call("read_file", there / "d" / "x")
        (here / "d" / "x").chmod(0o644)
        assert actor.call("read_file", there / "d" / "x") == b"x"
        (here / "d").chmod(0o700)
        with fails(EACCES):
            actor.call("stat", there / "d" / "x")
        os.chown(here / "d", 1000, 1000)
        assert actor.call("read_file", there / "d" / "x") == b"x"


def test_who_lists_sees_what_stays_exactly_once(tops: tuple[Path, Path]) -> None:
    here, there = tops
    names = [f"{n:04d}-{'x' * 60}" for n in range(1500)]
    for name in names:
        (here / name).touch()
    gone, new = names[::3], [f"{n:04d}-new" for n in range(0, 1500, 7)]
    with os.scandir(there) as entries:
        listed = [next(entries).name]
        for name in gone:
            (here / name).unlink()
        for name in new:
            (here / name).touch()
        listed += [entry.name for entry in entries]
    assert len(set(listed)) == len(listed)
    assert set(names) - set(gone) <= set(listed) <= set(names) | set(new)
    assert set(os.listdir(there)) == set(names) - set(gone) | set(new)
    assert not any((there / name).exists() for name in gone)


def test_a_name_changes_hands(tops: tuple[Path, Path]) -> None:
    """File, directory, nothing and symbolic link, by each in turn, seen by the other."""
    for n in range(12):
        mine, other = tops[n % 2] / "x", tops[1 - n % 2] / "x"
        assert not other.exists()
        mine.mkdir()
        assert other.is_dir()
        other.rmdir()
        assert not mine.exists()
        mine.write_text(str(n))
        assert other.read_text() == str(n)
        other.unlink()
        mine.symlink_to(f"to-{n}")
        assert other.readlink().name == f"to-{n}"
        with fails(17):
            other.mkdir()
        other.unlink()
        assert not mine.is_symlink()
