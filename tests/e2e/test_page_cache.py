"""Large files of a mount are in the page cache once, and not a second time as bytes of segments."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from harness.cluster import Cluster
from harness.mount import Mount
from harness.waiting import wait_until
from superfs.client.extentreads import _pread
from superfs.core.limits import KIB, MIB
from superfs.core.pagecache import RWF_DONTCACHE, DropBehind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SIZE = 96 * MIB


def resident(files: Sequence[Path]) -> int:
    """Bytes of them that are in the page cache."""
    command = ["fincore", "--bytes", "--noheadings", "--output", "RES", *map(str, files)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return sum(map(int, found.stdout.split()))


def can_drop_behind(directory: Path) -> bool:
    with (directory / "probe").open("wb") as file:
        try:
            os.pwritev(file.fileno(), [bytes(MIB)], 0, RWF_DONTCACHE)
        except OSError as error:
            return error.errno != errno.EOPNOTSUPP
    return True


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
            with forgotten.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert path.read_bytes() == data
        check(segments, drop_behind, "read")
        assert resident([path]) >= SIZE


def check(segments: Sequence[Path], drop_behind: bool, what: str) -> None:
    if drop_behind:
        limit = SIZE // 2  # the kernel leaves some of what it has read ahead
        wait_until(lambda: resident(segments) < limit, f"{what}, and not kept", timeout_s=5)
    else:
        assert resident(segments) >= SIZE


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
