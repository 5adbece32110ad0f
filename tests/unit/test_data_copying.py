"""Out of shared memory into a segment, and out of the page cache again."""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import datastore
from harness.pagecache import resident
from harness.waiting import wait_until
from superfs.core.limits import KIB, MIB
from superfs.core.linux import is_since
from superfs.core.pagecache import PASSING_BYTES_MIN, RWF_DONTCACHE, SINCE
from superfs.data.copying import Copying
from superfs.data.segments import Blob

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = 4 * KIB
needs_the_flag = pytest.mark.skipif(not is_since(SINCE), reason="an older kernel")


class Calls:
    """pwritev, seen; `error` when bytes are to pass through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: int = 0) -> None:
        self.seen: list[tuple[int, int, int]] = []  # offset, length, flags
        self._real, self._error = os.pwritev, error
        monkeypatch.setattr(os, "pwritev", self)

    def __call__(self, fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags and self._error:
            raise OSError(self._error, os.strerror(self._error))
        self.seen.append((offset, len(buffers[0]), flags))
        return self._real(fd, buffers, offset)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "segment", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@needs_the_flag
def test_whole_pages_pass_through(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, data = Calls(monkeypatch), os.urandom(MIB)
    assert Copying().copy(memoryview(data), file, 100, drop_behind=True) == RWF_DONTCACHE
    assert os.pread(file, MIB, 100) == data
    assert calls.seen == [
        (100, PAGE - 100, 0), (PAGE, MIB - PAGE, RWF_DONTCACHE), (MIB, 100, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(("size", "drop_behind"), [(MIB, False), (PASSING_BYTES_MIN - 1, True)])
def test_what_stays(
    file: int, monkeypatch: pytest.MonkeyPatch, size: int, drop_behind: bool
) -> None:
    calls = Calls(monkeypatch)
    data = memoryview(os.urandom(size))
    assert Copying().copy(data, file, 100, drop_behind=drop_behind) == 0
    assert calls.seen == [(100, size, 0)]


@needs_the_flag
def test_a_file_system_that_cannot(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked once."""
    calls, data = Calls(monkeypatch, errno.EOPNOTSUPP), os.urandom(MIB)
    copier = Copying()
    assert copier.copy(memoryview(data), file, 100, drop_behind=True) == 0
    assert os.pread(file, MIB, 100) == data
    calls.seen.clear()
    assert copier.copy(memoryview(data), file, 100, drop_behind=True) == 0
    assert calls.seen == [(100, MIB, 0)]


@needs_the_flag
def test_a_disk_that_fails(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    Calls(monkeypatch, errno.EIO)
    copier = Copying()
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        copier.copy(memoryview(bytes(MIB)), file, 100, drop_behind=True)
    assert copier.copy(memoryview(bytes(MIB)), file, 0, drop_behind=False) == 0


@given(st.integers(0, 3 * PAGE), st.integers(PASSING_BYTES_MIN, PASSING_BYTES_MIN + 3 * PAGE))
def test_every_byte_once(place: int, size: int) -> None:
    calls: list[tuple[int, int, int]] = []

    def pwritev(_fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        calls.append((offset, len(buffers[0]), flags))
        return len(buffers[0])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwritev", pwritev)
        Copying().copy(memoryview(bytes(size)), 0, place, drop_behind=True)
    at = place
    for offset, length, flags in calls:
        assert offset == at
        assert not flags or offset % PAGE == (offset + length) % PAGE == 0
        at += length
    assert at == place + size


def test_what_has_passed_is_there_after_a_kill(tmp_path: Path) -> None:
    store = datastore.opened(tmp_path / "store")
    parts = [os.urandom(MIB) for _ in range(3)]
    for n, data in enumerate(parts):
        store.write([Blob(1, 1, 0, n * MIB, memoryview(data), True, True)])
    datastore.kill(store)
    store = datastore.reopen(tmp_path / "store")
    for n, data in enumerate(parts):
        assert datastore.read(store, 1, n * MIB, MIB) == data
    datastore.kill(store)


def test_the_page_cache_is_left(tmp_path: Path) -> None:
    store = datastore.opened(tmp_path / "store")
    for kept in (True, False):
        before = resident(segments(tmp_path))
        for n in range(4):
            data = memoryview(os.urandom(MIB))
            store.write([Blob(2 - kept, 1, 0, n * MIB, data, True, not kept)])
        store.sync()
        if kept:
            assert resident(segments(tmp_path)) - before >= 4 * MIB
        elif store.segments._copying._drop_behind.works:
            limit = before + MIB
            wait_until(partial(_is_below, tmp_path, limit), "they leave when written")
    datastore.kill(store)


def segments(directory: Path) -> list[Path]:
    return list((directory / "store" / "segments").iterdir())


def _is_below(directory: Path, limit: int) -> bool:
    return resident(segments(directory)) < limit
