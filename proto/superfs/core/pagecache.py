"""Bytes that only pass through the page cache: it is somebody else who keeps them.

With `RWF_DONTCACHE` what is read or written is in the page cache until it was copied, or is on the
disk, and its pages are free then. Linux 6.14 had it first, 6.16 without the races of its beginning.
File systems that cannot say EOPNOTSUPP.
"""

from __future__ import annotations

import errno

from superfs.core.limits import KIB
from superfs.core.linux import is_since

RWF_DONTCACHE = 0x80  # <linux/fs.h>
PASSING_BYTES_MIN = 256 * KIB
"""Of less what follows would soon have to be fetched again, and each write would go to the disk
alone."""


SINCE = (6, 16)


class DropBehind:
    def __init__(self, *, wanted: bool = True) -> None:
        self.works = wanted and is_since(SINCE)  # until a file system says that it cannot

    def flags(self, size: int) -> int:
        """For preadv and pwritev of so many bytes."""
        return RWF_DONTCACHE if self.works and size >= PASSING_BYTES_MIN else 0

    def refused(self, error: OSError) -> bool:
        """Whether the call has failed for the flag, and succeeds without."""
        if error.errno != errno.EOPNOTSUPP:
            return False
        self.works = False
        return True
