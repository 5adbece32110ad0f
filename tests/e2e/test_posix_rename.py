"""rename(2) and renameat2(2): what may replace what, atomicity, loops, flags."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest

from harness.posix import RENAME_EXCHANGE, RENAME_NOREPLACE, fails, renameat2

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.fuse


def test_file_over_file(place: Path) -> None:
    (place / "a").write_text("new")
    (place / "b").write_text("old")
    ino = (place / "a").stat().st_ino
    os.rename(place / "a", place / "b")
    assert os.listdir(place) == ["b"]
    assert (place / "b").read_text() == "new"
    assert (place / "b").stat().st_ino == ino


def test_onto_itself_and_onto_its_own_link(place: Path) -> None:
    (place / "a").write_text("x")
    os.rename(place / "a", place / "a")
    os.link(place / "a", place / "b")
    os.rename(place / "a", place / "b")  # POSIX: both names stay
    assert sorted(os.listdir(place)) == ["a", "b"]
    assert (place / "a").stat().st_nlink == 2


def test_what_cannot_replace_what(place: Path) -> None:
    (place / "f").touch()
    (place / "d").mkdir()
    (place / "full").mkdir()
    (place / "full" / "x").touch()
    cases = [
        (errno.EISDIR, "f", "d"),
        (errno.ENOTDIR, "d", "f"),
        (errno.ENOTEMPTY, "d", "full"),
        (errno.EINVAL, "d", "d/sub"),
        (errno.EINVAL, "full", "full/x/y"),
        (errno.ENOENT, "none", "g"),
        (errno.ENOENT, "f", "none/g"),
        (errno.ENOTDIR, "f", "f/g"),
        (errno.ENOTEMPTY, "full/x", "full"),
        (errno.EBUSY, "d/.", "g"),
    ]
    for number, old, new in cases:
        codes = (number, errno.ENOTDIR) if (old, new) == ("full", "full/x/y") else (number,)
        with fails(*codes):
            os.rename(f"{place}/{old}", f"{place}/{new}")
    assert sorted(os.listdir(place)) == ["d", "f", "full"]


def test_directory_over_empty_directory(place: Path) -> None:
    (place / "a").mkdir()
    (place / "a" / "inner").touch()
    (place / "b").mkdir()
    links = place.stat().st_nlink
    os.rename(place / "a", place / "b")
    assert os.listdir(place / "b") == ["inner"]
    assert place.stat().st_nlink == links - 1


def test_directory_moves_with_its_tree(place: Path) -> None:
    (place / "a" / "b" / "c").mkdir(parents=True)
    (place / "a" / "b" / "c" / "f").write_text("deep")
    (place / "x").mkdir()
    counts = place.stat().st_nlink, (place / "x").stat().st_nlink
    os.rename(place / "a" / "b", place / "x" / "b")
    assert (place / "x" / "b" / "c" / "f").read_text() == "deep"
    assert (place / "a").stat().st_nlink == 2
    assert (place.stat().st_nlink, (place / "x").stat().st_nlink) == (counts[0], counts[1] + 1)
    assert os.stat(place / "x" / "b" / "..").st_ino == (place / "x").stat().st_ino
    # the name is free again, and a directory of that name is another one
    (place / "a" / "b").mkdir()
    assert (place / "a" / "b").stat().st_ino != (place / "x" / "b").stat().st_ino
    assert os.listdir(place / "a" / "b") == []
    with fails(errno.EINVAL):
        os.rename(place / "x", place / "x" / "b" / "c" / "x")


def test_swapping_and_recreating_many_times(place: Path) -> None:
    """Predictable numbers: each new directory of an old name must be a fresh one."""
    for i in range(10):
        (place / "d").mkdir()
        (place / "d" / f"f{i}").touch()
        os.rename(place / "d", place / f"old{i}")
    for i in range(10):
        assert os.listdir(place / f"old{i}") == [f"f{i}"]
    assert len({(place / f"old{i}").stat().st_ino for i in range(10)}) == 10


def test_noreplace(place: Path) -> None:
    (place / "a").write_text("a")
    (place / "b").write_text("b")
    with fails(errno.EEXIST):
        renameat2(place / "a", place / "b", RENAME_NOREPLACE)
    renameat2(place / "a", place / "c", RENAME_NOREPLACE)
    assert (place / "c").read_text() == "a"


def test_exchange(place: Path) -> None:
    (place / "f").write_text("file")
    (place / "d" / "sub").mkdir(parents=True)
    (place / "e").mkdir()
    (place / "e" / "g").write_text("other")
    renameat2(place / "f", place / "e" / "g", RENAME_EXCHANGE)
    assert ((place / "f").read_text(), (place / "e" / "g").read_text()) == ("other", "file")
    renameat2(place / "d", place / "e" / "g", RENAME_EXCHANGE)  # a directory with a file
    assert (place / "d").read_text() == "file"
    assert os.listdir(place / "e" / "g") == ["sub"]
    assert (place / "e").stat().st_nlink == 3
    with fails(errno.ENOENT):
        renameat2(place / "f", place / "none", RENAME_EXCHANGE)
    with fails(errno.EINVAL):
        renameat2(place / "e", place / "e" / "g", RENAME_EXCHANGE)
    with fails(errno.EINVAL):
        renameat2(place / "f", place / "d", RENAME_EXCHANGE | RENAME_NOREPLACE)
    with fails(errno.EINVAL):
        renameat2(place / "f", place / "d", 1 << 20)


def test_replaced_file_stays_readable_where_open(place: Path) -> None:
    (place / "a").write_text("new")
    (place / "b").write_text("old contents")
    with open(place / "b", "rb") as held:
        os.rename(place / "a", place / "b")
        assert held.read() == b"old contents"
        assert os.fstat(held.fileno()).st_nlink == 0
    assert (place / "b").read_text() == "new"


def test_replacement_is_atomic_for_readers(place: Path) -> None:
    """A name that is replaced again and again is never absent and never half."""
    (place / "current").write_text("0" * 1000)
    stop = threading.Event()
    wrong: list[str] = []

    def read() -> None:
        while not stop.is_set():
            try:
                text = (place / "current").read_text()
            except OSError as error:
                wrong.append(str(error))
                return
            if len(text) != 1000 or len(set(text)) != 1:
                wrong.append(text[:50])

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for i in range(60):
        (place / "new").write_text(str(i % 10) * 1000)
        os.rename(place / "new", place / "current")
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong, wrong[:3]


def test_times_of_a_rename(place: Path) -> None:
    (place / "x").mkdir()
    (place / "y").mkdir()
    (place / "x" / "f").touch()
    before = [(place / n).stat().st_mtime_ns for n in "xy"]
    mtime, ctime = ((place / "x" / "f").stat().st_mtime_ns, (place / "x" / "f").stat().st_ctime_ns)
    os.rename(place / "x" / "f", place / "y" / "f")
    assert all((place / n).stat().st_mtime_ns > t for n, t in zip("xy", before, strict=True))
    assert (place / "y" / "f").stat().st_mtime_ns == mtime
    assert (place / "y" / "f").stat().st_ctime_ns > ctime


def test_crossing_directory_renames_make_no_loop(place: Path) -> None:
    """a/b <-> b/a by two threads: somebody gets EINVAL or ENOENT, nothing is lost."""
    refused: list[int | None] = []
    for i in range(15):
        (place / f"a{i}").mkdir()
        (place / f"b{i}").mkdir()
        (place / f"a{i}" / "in_a").touch()
        (place / f"b{i}" / "in_b").touch()
        barrier = threading.Barrier(2)

        def move(old: str, new: str, gate: threading.Barrier = barrier) -> None:
            gate.wait()
            try:
                os.rename(place / old, place / new)
            except OSError as error:
                refused.append(error.errno)

        pairs = ((f"a{i}", f"b{i}/a{i}"), (f"b{i}", f"a{i}/b{i}"))
        threads = [threading.Thread(target=move, args=pair) for pair in pairs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    names = {name for _, _, files in os.walk(place) for name in files}
    count = sum(len(files) for _, _, files in os.walk(place))
    assert set(refused) <= {errno.EINVAL, errno.ENOENT}
    assert names == {"in_a", "in_b"}
    assert count == 30
