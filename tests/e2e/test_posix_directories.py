"""Directories: counts, big ones, and listing one while it changes."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.fuse


def test_link_count_of_directories(place: Path) -> None:
    base = place.stat().st_nlink
    assert base == 2
    for name in "abc":
        (place / name).mkdir()
    (place / "f").touch()
    assert place.stat().st_nlink == 5
    os.rmdir(place / "a")
    os.rename(place / "b", place / "c" / "b")
    assert place.stat().st_nlink == 3
    assert (place / "c").stat().st_nlink == 3


def test_listing_says_types_and_numbers(place: Path) -> None:
    (place / "f").touch()
    (place / "d").mkdir()
    os.symlink("f", place / "s")
    os.mkfifo(place / "p")
    with os.scandir(place) as entries:
        found = {entry.name: entry for entry in entries}
    assert sorted(found) == ["d", "f", "p", "s"]
    assert found["d"].is_dir(follow_symlinks=False)
    assert found["f"].is_file(follow_symlinks=False)
    assert found["s"].is_symlink()
    for name, entry in found.items():
        info = os.lstat(place / name)
        assert entry.inode() == info.st_ino
        assert stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode) == stat.S_IFMT(info.st_mode)


def test_dot_and_dot_dot(place: Path) -> None:
    (place / "d").mkdir()
    assert os.stat(place / "d" / ".").st_ino == (place / "d").stat().st_ino
    assert os.stat(place / "d" / "..").st_ino == place.stat().st_ino
    found = subprocess.check_output(["ls", "-ai", place / "d"], text=True).split()
    assert str((place / "d").stat().st_ino) in found
    assert str(place.stat().st_ino) in found


def test_entries_that_stay_are_seen_exactly_once(place: Path) -> None:
    """While other names come and go, every name that stays is listed once in each pass."""
    stay = {f"stay{i:04}" for i in range(700)}
    for name in stay:
        (place / name).touch()
    stop = threading.Event()

    def churn() -> None:
        i = 0
        while not stop.is_set():
            (place / f"new{i}").touch()
            if i >= 20:
                os.unlink(place / f"new{i - 20}")
            i += 1

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(8):
            names = [entry.name for entry in os.scandir(place)]
            assert len(names) == len(set(names)), "an entry was listed twice"
            assert stay <= set(names), sorted(stay - set(names))[:5]
    finally:
        stop.set()
        thread.join()


def test_removing_while_listing(place: Path) -> None:
    """What rm -rf does: names are removed while the listing is read; none is skipped."""
    for i in range(1500):
        (place / f"f{i:05}").touch()
    seen = 0
    with os.scandir(place) as entries:
        for entry in entries:
            os.unlink(entry.path)
            seen += 1
    assert seen == 1500
    assert os.listdir(place) == []


def test_renaming_while_listing_loses_nothing(place: Path) -> None:
    for i in range(500):
        (place / f"a{i:04}").touch()
    with os.scandir(place) as entries:
        first = next(entries)
        os.rename(first.path, place / "zzz")
        rest = [entry.name for entry in entries]
    assert len(rest) == len(set(rest))
    assert {f"a{i:04}" for i in range(500)} - {first.name} <= set(rest)


def test_seekdir_positions_stay_valid(place: Path) -> None:
    """A listing that is rewound shows what is there now."""
    for i in range(50):
        (place / f"f{i}").touch()
    fd = os.open(place, os.O_RDONLY)
    assert len(os.listdir(fd)) == 50
    (place / "more").touch()
    assert "more" in os.listdir(fd)  # listdir rewinds
    os.close(fd)


def test_working_directory_that_moves(place: Path) -> None:
    (place / "d").mkdir()
    fd = os.open(place / "d", os.O_RDONLY)
    (place / "d" / "f").write_text("x")
    os.rename(place / "d", place / "e")
    assert os.listdir(fd) == ["f"]
    inner = os.open("g", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    os.close(inner)
    os.close(fd)
    assert sorted(os.listdir(place / "e")) == ["f", "g"]
