"""How bytes come out of a client's shared memory into a segment.

The kernel copies them, and they are in its page cache then. What mounts write in large pieces
only passes through there: it is on its way to the disk at once and gone when it has arrived, so
that no memory has to be found for it (docs/decisions/0031-passing-through-the-page-cache.md).
"""

from __future__ import annotations

import errno
import os

from superfs.core.errors import Code, FsError
from superfs.core.limits import PAGE_BYTES
from superfs.core.pagecache import DropBehind


class Copying:
    def __init__(self) -> None:
        self._drop_behind = DropBehind()

    def copy(self, data: memoryview, fd: int, place: int, *, drop_behind: bool) -> int:
        """The flags with which it is read back. INVALID: the memory cannot be read.

        The first and the last page stay: what is in front of it and behind it is written next."""
        flags = self._drop_behind.flags(len(data)) if drop_behind else 0
        if not flags:
            _copy(data, fd, place)
            return 0
        start, end = -place % PAGE_BYTES, len(data) - (place + len(data)) % PAGE_BYTES
        _copy(data[:start], fd, place)
        try:
            _copy(data[start:end], fd, place + start, flags)
        except OSError as error:
            if not self._drop_behind.refused(error):
                raise
            flags = 0
            _copy(data[start:end], fd, place + start)
        _copy(data[end:], fd, place + end)
        return flags


def _copy(data: memoryview, fd: int, place: int, flags: int = 0) -> None:
    written = 0
    while written < len(data):
        try:
            written += os.pwritev(fd, [data[written:]], place + written, flags)
        except OSError as error:
            if error.errno != errno.EFAULT:
                raise
            raise FsError(Code.INVALID, "shared memory that cannot be read") from None
