"""Keeps the memory of large messages in the process, instead of giving it back after each.

glibc maps every allocation of 128 KiB and more anew and unmaps it when it is freed, so a message
of 1 MiB costs 256 page faults at each of its copies: on a virtual machine more than everything
else that is done with it. Our own processes that move bulk data call it first thing. The client
library never does: how a process uses its memory is for its program to say.
"""

from __future__ import annotations

import ctypes

from superfs.core.limits import MIB

KEPT_BYTES_MAX = 128 * MIB  # free memory at the end of the heap that is not given back
LARGEST_KEPT_BYTES = 32 * MIB  # the most that glibc takes
GROWTH_BYTES = 4 * MIB

# malloc.h
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3


def keep_large_buffers() -> bool:
    """False where the C library has no mallopt; nothing depends on it but speed."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = (
        (_M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES),
        (_M_TRIM_THRESHOLD, KEPT_BYTES_MAX),
        (_M_TOP_PAD, GROWTH_BYTES),
    )
    return all(mallopt(option, value) == 1 for option, value in settings)
