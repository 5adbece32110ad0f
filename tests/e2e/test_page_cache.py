"""Large files of a mount are in the page cache once, and not a second time as bytes of segments."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from mmap import PROT_READ, mmap
from typing import TYPE_CHECKING

import pytest

from harness.cluster import Cluster
from harness.mount import Mount
from harness.pagecache import resident
from harness.waiting import wait_until
from superfs.client.extentreads import _is_cached, _pread
from superfs.core.limits import KIB, MIB
from superfs.core.linux import is_since
from superfs.core.pagecache import RWF_DONTCACHE, SINCE, DropBehind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SIZE = 96 * MIB


def can_drop_behind(directory: Path) -> bool:
    with (directory / "probe").open("wb") as file:
        flags = DropBehind().flags(MIB)
        try:
            os.pwritev(file.fileno(), [bytes(MIB)], 0, flags)
        except OSError as error:
            return error.errno != errno.EOPNOTSUPP
    return bool(flags)


@pytest.mark.fuse
@pytest.mark.parametrize("drop_behind", [True, False])
def test_large_files_are_in_memory_once(drop_behind: bool, tmp_path: Path) -> None:
    if not can_drop_behind(tmp_path):
        pytest.skip("this kernel, or the file system of the tests, keeps everything")
    with (
        Cluster() as cluster,
        Mount(cluster, settings={"client": {"drop_behind": drop_behind}}) as mount,
    ):
        path, data = mount.point / "big", os.urandom(SIZE)
        with path.open("wb", buffering=0) as file:
            for at in range(0, SIZE, MIB):
                file.write(data[at : at + MIB])
            os.fsync(file.fileno())
        segments = list((cluster.state_dir("datad-2") / "segments").glob("*.seg"))
        assert sum(path.stat().st_size for path in segments) >= SIZE
        check(segments, drop_behind, "written")
        for forgotten in (path, *segments):
            with forgotten.open("rb") as other:
                os.posix_fadvise(other.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert path.read_bytes() == data
        check(segments, drop_behind, "read")

        def is_kept() -> bool:  # what the mount heard before may drop pages late
            return path.read_bytes() == data and resident([path]) >= SIZE

        wait_until(is_kept, "what was read is kept in front of the mount")


def check(segments: Sequence[Path], drop_behind: bool, what: str) -> None:
    if drop_behind:
        limit = SIZE // 2  # the kernel leaves some of what it has read ahead
        wait_until(lambda: resident(segments) < limit, f"{what}, and not kept", timeout_s=5)
    else:
        assert resident(segments) >= SIZE


@pytest.mark.fuse
def test_records_are_appended_whole() -> None:
    """Of memory that does not begin with a page, too: through two mounts."""
    with Cluster() as cluster, Mount(cluster, "a0") as first, Mount(cluster, "a1") as second:

        def append(mount: Mount, records: range) -> None:
            fd = os.open(mount.point / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            for record in records:
                assert os.write(fd, memoryview(bytes([record]) * (MIB + 1))[1:]) == MIB
            os.close(fd)

        append(first, range(1))
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(append, (first, second), (range(1, 11), range(11, 21))))
        data = (second.point / "log").read_bytes()
        records = [data[at : at + MIB] for at in range(0, len(data), MIB)]
        assert sorted(record[0] for record in records) == list(range(21))
        assert all(record == record[:1] * MIB for record in records)


@pytest.mark.fuse
def test_a_mapping_shows_what_was_written_past_it() -> None:
    with Cluster() as cluster, Mount(cluster) as mount:
        path = mount.point / "mapped"
        path.write_bytes(bytes(4 * MIB))
        with path.open("rb") as file, mmap(file.fileno(), 0, prot=PROT_READ) as shown:
            assert shown[:] == bytes(4 * MIB)
            fd = os.open(path, os.O_WRONLY)
            for at, size in ((0, 10), (4090, 20), (MIB - 7, 2 * MIB), (4 * MIB - 3, 3)):
                assert os.pwrite(fd, b"x" * size, at) == size
                assert shown[at : at + size] == b"x" * size
                assert (
                    os.pread(file.fileno(), size + 1, at) == (b"x" * size + b"\0")[: 4 * MIB - at]
                )
            os.close(fd)


def test_the_pages_at_the_ends_are_not_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(256 * KIB))
    with (tmp_path / "file").open("rb") as file:
        fd = file.fileno()
        assert _is_cached(fd, 0, 256 * KIB)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # or asking brings the rest
        os.pread(fd, 1, 0)
        os.pread(fd, 1, 256 * KIB - 1)
        assert not _is_cached(fd, 0, 256 * KIB)


needs_the_flag = pytest.mark.skipif(not is_since(SINCE), reason="an older kernel")


class Calls:
    """preadv, seen."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: int = 0) -> None:
        self.flags: list[int] = []
        self._error, self._real = error, os.preadv
        monkeypatch.setattr(os, "preadv", self)

    def __call__(self, fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        self.flags.append(flags)
        if flags and self._error:
            raise OSError(self._error, os.strerror(self._error))
        return self._real(fd, buffers, offset)


@needs_the_flag
def test_only_large_reads_drop_what_they_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, data = Calls(monkeypatch), os.urandom(MIB)
    (tmp_path / "file").write_bytes(data)
    with (tmp_path / "file").open("rb") as file:
        fd, drop_behind = file.fileno(), DropBehind()
        assert _pread(fd, MIB, 0, drop_behind) == data
        assert _pread(fd, 300 * KIB, 100, drop_behind) == data[100 : 100 + 300 * KIB]
        assert _pread(fd, MIB, MIB - 10, drop_behind) == data[-10:]
        assert calls.flags == [RWF_DONTCACHE] * 3
        assert _pread(fd, 200 * KIB, 0, drop_behind) == data[: 200 * KIB]
        assert _pread(fd, MIB, 0, DropBehind(wanted=False)) == data
        assert len(calls.flags) == 3


@needs_the_flag
def test_reads_where_nothing_can_be_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, data = Calls(monkeypatch, errno.EOPNOTSUPP), os.urandom(MIB)
    (tmp_path / "file").write_bytes(data)
    with (tmp_path / "file").open("rb") as file:
        drop_behind = DropBehind()
        assert _pread(file.fileno(), MIB, 0, drop_behind) == data
        assert _pread(file.fileno(), MIB, 0, drop_behind) == data
    assert len(calls.flags) == 1, "it is asked once"
