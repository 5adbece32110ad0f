"""Reading a directory while others read and change it, with system calls of one's own."""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from harness.cluster import Cluster
from harness.mount import Mount, fsck

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = pytest.mark.fuse

SMALL, HUGE = 4096, 1 << 20
GETDENTS64 = {"x86_64": 217, "aarch64": 61}[os.uname().machine]
ENTRY = struct.Struct("=QqHB")  # number, cookie, length, type
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def mounts() -> Iterator[tuple[Mount, Mount]]:
    with (
        Cluster() as cluster,
        Mount(cluster, "r0") as first,
        Mount(cluster, "r1") as second,
    ):
        yield first, second
        fsck(cluster)
        cluster.trouble()


@contextmanager
def reading(directory: Path) -> Iterator[int]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def some(fd: int, room: int) -> dict[str, int]:
    """Number by name, as one system call with so much room gives them."""
    memory = ctypes.create_string_buffer(room)
    length = _libc.syscall(GETDENTS64, fd, memory, room)
    if length < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    found, at = {}, 0
    while at < length:
        ino, _, size, _ = ENTRY.unpack_from(memory, at)
        name = memory.raw[at + ENTRY.size : at + size].partition(b"\0")[0].decode()
        assert name not in found
        found[name] = ino
        at += size
    return found


def rest(fd: int, room: int) -> dict[str, int]:
    found: dict[str, int] = {}
    while part := some(fd, room):
        assert not set(part) & set(found), "every name comes once"
        found.update(part)
    return found


def fill(directory: Path, count: int, suffix: str = "") -> None:
    directory.mkdir()
    for number in range(count):
        (directory / f"{number:05d}{suffix}").touch()


def test_a_reader_with_much_room(mounts: tuple[Mount, Mount]) -> None:
    """More than an answer of pyfuse3 can be."""
    first, second = mounts
    count = 1500
    fill(first.point / "room", count, "n" * 200)
    for _ in range(2):
        with reading(second.point / "room") as fd:
            assert len(rest(fd, HUGE)) == count + 2


def test_who_removes_what_he_reads_while_somebody_else_reads(
    mounts: tuple[Mount, Mount],
) -> None:
    """What the kernel keeps of the other's listing begins later."""
    top = mounts[0].point / "removal"
    fill(top, 500)
    os.listdir(top)
    with reading(top) as fd:
        while names := set(some(fd, SMALL)) - {".", ".."}:
            for name in names:
                (top / name).unlink()
            os.listdir(top)
    top.rmdir()


def test_what_the_kernel_keeps_goes_while_somebody_reads_it(mounts: tuple[Mount, Mount]) -> None:
    first, second = mounts
    fill(first.point / "kept", 500)
    for _ in range(2):
        os.listdir(second.point / "kept")
    with reading(second.point / "kept") as fd:
        found = some(fd, SMALL)
        (first.point / "kept" / "00001").unlink()
        found |= rest(fd, SMALL)
    assert set(os.listdir(first.point / "kept")) <= set(found)


def test_where_a_directory_that_was_moved_says_it_is(mounts: tuple[Mount, Mount]) -> None:
    first, second = mounts
    for name in ("old", "new", "old/x"):
        (first.point / name).mkdir()
    for mount in mounts:
        os.listdir(mount.point / "old" / "x")
    (first.point / "old" / "x").rename(first.point / "new" / "x")
    above = (first.point / "new").stat().st_ino
    for mount in (first, second):
        with reading(mount.point / "new" / "x") as fd:
            assert some(fd, SMALL)[".."] == above
