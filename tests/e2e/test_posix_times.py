"""Times to the nanosecond, who moves which, relatime, statvfs."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.posix import Call

pytestmark = pytest.mark.fuse

DAY_NS = 24 * 3600 * 10**9


@pytest.mark.parametrize(
    "ns", [0, 1, -1, -(10**9) - 5, 2**31 * 10**9 + 7, 2**32 * 10**9 + 999_999_999]
)
def test_times_are_kept_to_the_nanosecond(place: Path, ns: int) -> None:
    (place / "d").mkdir()
    (place / "f").touch()
    os.symlink("f", place / "s")
    for name in "dfs":
        os.utime(place / name, ns=(ns, ns + 3), follow_symlinks=False)
        info = os.lstat(place / name)
        assert (info.st_atime_ns, info.st_mtime_ns) == (ns, ns + 3)


def test_now_and_omit(place: Path) -> None:
    (place / "f").touch()
    os.utime(place / "f", ns=(5, 7))
    before = time.time_ns()
    os.utime(place / "f")
    info = os.stat(place / "f")
    assert before - 10**9 < info.st_mtime_ns < time.time_ns() + 10**9
    assert abs(info.st_atime_ns - info.st_mtime_ns) < 10**9


def test_what_moves_which_time(place: Path) -> None:
    (place / "f").write_text("x")
    (place / "d").mkdir()

    def moved(path: Path, action: Callable[[], object]) -> str:
        before = os.lstat(path)
        action()
        after = os.lstat(path)
        return "m" * (after.st_mtime_ns > before.st_mtime_ns) + "c" * (
            after.st_ctime_ns > before.st_ctime_ns
        )

    file, directory = place / "f", place / "d"
    assert moved(file, lambda: os.chmod(file, 0o600)) == "c"
    assert moved(file, lambda: os.chown(file, 1, 1)) == "c"
    assert moved(file, lambda: file.write_text("longer")) == "mc"
    assert moved(file, lambda: os.truncate(file, 2)) == "mc"
    assert moved(file, lambda: os.link(file, directory / "l")) == "c"
    assert moved(file, lambda: os.unlink(directory / "l")) == "c"
    assert moved(file, lambda: os.setxattr(file, "user.a", b"1")) == "c"
    assert moved(file, file.read_text) == ""
    assert moved(directory, lambda: (directory / "n").touch()) == "mc"
    assert moved(directory, lambda: (directory / "n").write_text("x")) == ""
    assert moved(directory, lambda: os.rename(directory / "n", directory / "o")) == "mc"
    assert moved(directory, lambda: os.symlink("x", directory / "s")) == "mc"
    assert moved(directory, lambda: os.mkdir(directory / "sub")) == "mc"
    assert moved(directory, lambda: os.rmdir(directory / "sub")) == "mc"
    assert moved(directory, lambda: os.unlink(directory / "o")) == "mc"
    assert moved(directory, lambda: os.listdir(directory)) == ""


def test_a_failed_operation_moves_nothing(place: Path) -> None:
    (place / "d").mkdir()
    before = place.stat()
    calls: list[Call] = [lambda: os.mkdir(place / "d"), lambda: os.rmdir(place / "none")]
    for call in calls:
        with pytest.raises(OSError, match="Errno"):
            call()
    assert place.stat().st_mtime_ns == before.st_mtime_ns
    assert place.stat().st_ctime_ns == before.st_ctime_ns


def test_mtime_that_was_set_stays(place: Path) -> None:
    """What cp -p, rsync and tar rely on: set on the open file, kept by close."""
    with open(place / "f", "wb") as file:
        file.write(b"x" * 10_000)
        file.flush()
        os.utime(file.fileno(), ns=(10**18, 10**18 + 1))
    assert os.stat(place / "f").st_mtime_ns == 10**18 + 1
    with open(place / "g", "wb") as file:
        file.write(b"y" * 10)
    os.utime(place / "g", ns=(10**18, 10**18 + 2))
    os.rename(place / "g", place / "h")
    assert os.stat(place / "h").st_mtime_ns == 10**18 + 2


def test_relatime(place: Path) -> None:
    """The access time moves when it is not after the last change; else it stays."""
    path = place / "f"
    path.write_text("text")
    now = time.time_ns()
    os.utime(path, ns=(now - 20 * 10**9, now - 10 * 10**9))
    path.read_text()
    wait_until(lambda: path.stat().st_atime_ns >= now - 10**9, "atime moved", timeout_s=5)
    later = time.time_ns() + 100 * 10**9
    os.utime(path, ns=(later, now - 10 * 10**9))
    path.read_text()
    assert path.stat().st_atime_ns == later
    os.utime(path, ns=(now - 2 * DAY_NS, now - 3 * DAY_NS))
    path.read_text()
    wait_until(lambda: path.stat().st_atime_ns >= now - 10**9, "atime moved", timeout_s=5)


def test_statvfs(place: Path) -> None:
    info = os.statvfs(place)
    assert info.f_namemax == 255
    assert 0 < info.f_bavail <= info.f_bfree <= info.f_blocks
    assert info.f_bsize >= 512
    assert 0 < info.f_favail <= info.f_files


def test_blocks_of_a_file(place: Path) -> None:
    """du and cp --sparse look at st_blocks: something for data, and a plausible amount."""
    (place / "f").write_bytes(b"x" * 1_000_000)
    fd = os.open(place / "f", os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    info = os.stat(place / "f")
    assert 1_000_000 <= info.st_blocks * 512 <= 2_000_000
    assert info.st_blksize >= 4096
