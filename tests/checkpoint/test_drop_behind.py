"""Checkpoints that have to be on the disk do not stay in the page cache beside it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from superfs.checkpoint.directory import FileSink
from superfs.core.limits import KIB, MIB
from superfs.core.linux import is_since
from superfs.core.pagecache import RWF_DONTCACHE, SINCE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.skipif(not is_since(SINCE), reason="an older kernel")


@pytest.mark.parametrize("error", [0, errno.EOPNOTSUPP, errno.EIO])
@pytest.mark.parametrize("durable", [True, False])
def test_what_is_to_be_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool, error: int
) -> None:
    """A file system that cannot is asked once; a disk that fails is a disk that fails."""
    real, seen = os.pwritev, []

    def pwritev(fd: int, buffers: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        seen.append(flags)
        if flags and error:
            raise OSError(error, os.strerror(error))
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    data = os.urandom(4 * MIB)
    parts = [memoryview(data)[: 100 * KIB], memoryview(data)[100 * KIB :]]
    sink = FileSink(tmp_path / "file", durable=durable, size=2 * len(data))
    try:
        if durable and error == errno.EIO:
            with pytest.raises(OSError, match=os.strerror(error)):
                sink.pwrite(parts, 0)
            return
        sink.pwrite(parts, 0)
        sink.pwrite(parts, len(data))
        sink.sync()
    finally:
        sink.close()
    assert (tmp_path / "file").read_bytes() == 2 * data
    asked = RWF_DONTCACHE if durable else 0
    assert seen == ([asked, 0, 0] if durable and error else [asked, asked])
