"""Contents: offsets, holes, truncation, append, mmap, O_DIRECT, unlinked-open files."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import random
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from harness.posix import fails

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.fuse

INLINE = 8160
SIZES = [0, 1, 4095, INLINE - 1, INLINE, INLINE + 1, 16384, 16385, 1 << 20, (4 << 20) + 1]


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("size", SIZES)
def test_round_trip(place: Path, size: int) -> None:
    data = noise(size)
    (place / "f").write_bytes(data)
    assert (place / "f").stat().st_size == size
    assert (place / "f").read_bytes() == data
    fd = os.open(place / "f", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    assert os.pread(fd, 100, max(0, size - 50)) == data[max(0, size - 50) :]
    assert os.pread(fd, 10, size + 10) == b""
    os.close(fd)


def test_small_file_grows_out_of_the_metadata_store(place: Path) -> None:
    """Byte counts around the inline limit, through one handle and through many."""
    expected = b""
    with open(place / "f", "wb", buffering=0) as file:
        for i in range(100):
            part = noise(97, i)
            file.write(part)
            expected += part
            if i % 25 == 0:
                assert (place / "f").read_bytes() == expected
    for i in range(20):
        with open(place / "f", "ab") as file:
            file.write(bytes([i]) * 333)
        expected += bytes([i]) * 333
    assert (place / "f").read_bytes() == expected


def test_two_handles_see_each_other(place: Path) -> None:
    with open(place / "f", "w+b", buffering=0) as a, open(place / "f", "r+b", buffering=0) as b:
        a.write(b"first")
        assert b.read() == b"first"
        b.seek(0)
        b.write(b"F")
        a.seek(0)
        assert a.read() == b"First"
        b.truncate(2)
        assert os.fstat(a.fileno()).st_size == 2
        os.pwrite(a.fileno(), b"x" * 5000, 5000)
        assert os.pread(b.fileno(), 10000, 0) == b"Fi" + bytes(4998) + b"x" * 5000


def test_overwrites_at_random(place: Path) -> None:
    rng = random.Random(7)
    model = bytearray()
    fd = os.open(place / "f", os.O_CREAT | os.O_RDWR)
    for i in range(300):
        offset = rng.randrange(300_000) if i > 20 else rng.randrange(5000)
        data = rng.randbytes(rng.choice([1, 10, 500, 4096, 20_000]))
        if rng.random() < 0.1:
            size = rng.randrange(len(model) + 10_000)
            os.ftruncate(fd, size)
            model = model[:size] + bytes(max(0, size - len(model)))
        else:
            assert os.pwrite(fd, data, offset) == len(data)
            if offset > len(model):
                model += bytes(offset - len(model))
            model[offset : offset + len(data)] = data
        if rng.random() < 0.2:
            assert os.pread(fd, 50_000, offset) == bytes(model[offset : offset + 50_000])
    os.fsync(fd)
    os.close(fd)
    assert (place / "f").read_bytes() == bytes(model)


@pytest.mark.parametrize("size", [10, 20_000, 5 << 20])
def test_truncate_down_and_up_gives_zeros(place: Path, size: int) -> None:
    data = noise(size)
    (place / "f").write_bytes(data)
    cut = size // 3
    os.truncate(place / "f", cut)
    assert (place / "f").stat().st_size == cut
    os.truncate(place / "f", size)
    assert (place / "f").read_bytes() == data[:cut] + bytes(size - cut)
    with open(place / "f", "r+b") as file:
        file.truncate(0)
        file.truncate(100)
    assert (place / "f").read_bytes() == bytes(100)


def test_truncate_errors(place: Path) -> None:
    (place / "d").mkdir()
    (place / "f").touch()
    with fails(errno.EISDIR):
        os.truncate(place / "d", 0)
    with fails(errno.EINVAL):
        os.truncate(place / "f", -1)
    with fails(errno.ENOENT):
        os.truncate(place / "none", 0)
    fd = os.open(place / "f", os.O_RDONLY)
    with fails(errno.EINVAL):
        os.ftruncate(fd, 5)
    with fails(errno.EBADF):
        os.write(fd, b"x")
    os.close(fd)


def test_open_truncates(place: Path) -> None:
    (place / "small").write_bytes(b"x" * 10)
    (place / "big").write_bytes(b"x" * 100_000)
    for name in ("small", "big"):
        os.close(os.open(place / name, os.O_WRONLY | os.O_TRUNC))
        assert (place / name).stat().st_size == 0
        assert (place / name).read_bytes() == b""


def test_sparse_beyond_4_gib(place: Path) -> None:
    fd = os.open(place / "f", os.O_CREAT | os.O_RDWR)
    far = (5 << 30) + 123
    os.pwrite(fd, b"far away", far)
    os.pwrite(fd, b"near", 1 << 20)
    os.fsync(fd)
    assert os.fstat(fd).st_size == far + 8
    assert os.pread(fd, 100, far - 4) == bytes(4) + b"far away"
    assert os.pread(fd, 16, (4 << 30) - 8) == bytes(16)
    assert os.pread(fd, 8, (1 << 20) - 2) == b"\0\0near\0\0"
    os.ftruncate(fd, 4 << 30)
    os.ftruncate(fd, far + 8)
    assert os.pread(fd, 100, far) == bytes(8)
    os.close(fd)


def test_a_terabyte_of_hole_costs_nothing(place: Path) -> None:
    os.close(os.open(place / "f", os.O_CREAT | os.O_WRONLY))
    os.truncate(place / "f", 1 << 40)
    with open(place / "f", "rb") as file:
        file.seek((1 << 40) - 10)
        assert file.read() == bytes(10)


def test_too_big(place: Path) -> None:
    fd = os.open(place / "f", os.O_CREAT | os.O_RDWR)
    with fails(errno.EFBIG, errno.EINVAL):
        os.pwrite(fd, b"x", (1 << 63) - 1)
    with fails(errno.EINVAL):
        os.pwrite(fd, b"x", -1)
    assert os.fstat(fd).st_size == 0
    os.close(fd)


def test_append(place: Path) -> None:
    fds = [os.open(place / "f", os.O_CREAT | os.O_WRONLY | os.O_APPEND) for _ in range(3)]
    for i in range(200):
        os.write(fds[i % 3], b"%06d\n" % i)
    os.pwrite(fds[0], b"END", 0)  # Linux: appends all the same
    for fd in fds:
        os.close(fd)
    assert (place / "f").read_bytes() == b"".join(b"%06d\n" % i for i in range(200)) + b"END"


def test_appends_of_threads_do_not_overlap(place: Path) -> None:
    def append(letter: bytes) -> None:
        fd = os.open(place / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        for _ in range(60):
            os.write(fd, letter * 99 + b"\n")
        os.close(fd)

    threads = [threading.Thread(target=append, args=(b"%c" % c,)) for c in b"abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (place / "log").read_bytes().splitlines()
    assert len(lines) == 240
    assert all(len(line) == 99 and len(set(line)) == 1 for line in lines)


@pytest.mark.parametrize("size", [100, 10_000, 3 << 20])
def test_shared_writable_mmap(place: Path, size: int) -> None:
    data = noise(size)
    (place / "f").write_bytes(data)
    with open(place / "f", "r+b") as file:
        with mmap.mmap(file.fileno(), size) as window:
            assert window[:] == data
            window[50:60] = b"0123456789"
            window.flush()
            assert (place / "f").read_bytes()[50:60] == b"0123456789"
            window[size - 1 : size] = b"Z"
        os.pwrite(file.fileno(), b"ww", 10)
    expected = data[:10] + b"ww" + data[12:50] + b"0123456789" + data[60:-1] + b"Z"
    assert (place / "f").read_bytes() == expected


def test_private_mmap_stays_private(place: Path) -> None:
    (place / "f").write_bytes(b"x" * 10_000)
    with (
        open(place / "f", "r+b") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as window,
    ):
        window[:3] = b"abc"
    assert (place / "f").read_bytes() == b"x" * 10_000


def test_direct_io(place: Path) -> None:
    fd = os.open(place / "f", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    buffer = mmap.mmap(-1, 1 << 20)
    buffer[:] = noise(1 << 20)
    for i in range(4):
        assert os.pwritev(fd, [buffer], i << 20) == 1 << 20
    back = mmap.mmap(-1, 1 << 20)
    assert os.preadv(fd, [back], 3 << 20) == 1 << 20
    assert back[:] == buffer[:]
    assert os.fstat(fd).st_size == 4 << 20
    assert (place / "f").read_bytes() == buffer[:] * 4
    os.close(fd)


@pytest.mark.parametrize("size", [100, 200_000])
def test_unlinked_but_open(place: Path, size: int) -> None:
    data = noise(size)
    (place / "f").write_bytes(data)
    fd = os.open(place / "f", os.O_RDWR)
    os.unlink(place / "f")
    assert os.listdir(place) == []
    assert os.fstat(fd).st_nlink == 0
    assert os.pread(fd, size, 0) == data
    os.pwrite(fd, b"still", 3)
    os.pwrite(fd, b"grows", size + 10)
    os.fchmod(fd, 0o600)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    assert os.pread(fd, 5, 3) == b"still"
    assert os.pread(fd, 15, size) == bytes(10) + b"grows"
    (place / "f").write_bytes(b"another")
    os.ftruncate(fd, 4)
    assert os.pread(fd, 100, 0) == data[:3] + b"s"
    os.close(fd)
    assert (place / "f").read_bytes() == b"another"


def test_removed_directory_that_is_open(place: Path) -> None:
    (place / "d").mkdir()
    fd = os.open(place / "d", os.O_RDONLY)
    os.rmdir(place / "d")
    assert os.listdir(fd) == []
    with fails(errno.ENOENT):
        os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    (place / "d").mkdir()
    (place / "d" / "new").touch()
    with fails(errno.ENOENT):
        os.stat("new", dir_fd=fd)
    os.close(fd)


def test_fsync_of_everything(place: Path) -> None:
    with open(place / "f", "wb") as file:
        file.write(b"x" * 100_000)
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())
    fd = os.open(place, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    fd = os.open(place / "s", os.O_CREAT | os.O_WRONLY | os.O_SYNC)
    os.write(fd, b"synced")
    os.close(fd)
    subprocess.run(["sync", "-f", place], check=True)


def test_parallel_writers_of_many_files(place: Path) -> None:
    def write(number: int) -> None:
        for i in range(10):
            data = noise(30_000 + 100 * i, number)
            (place / f"{number}-{i}").write_bytes(data)
            (place / f"{number}-{i}").rename(place / f"{number}-{i}.done")

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(os.listdir(place)) == 60
    for number in range(6):
        for i in range(10):
            got = (place / f"{number}-{i}.done").read_bytes()
            assert hashlib.md5(got).digest() == hashlib.md5(noise(len(got), number)).digest()
