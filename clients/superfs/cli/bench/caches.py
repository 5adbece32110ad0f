"""What the kernel remembers of files, and making it forget."""

from __future__ import annotations

import functools
import os
from pathlib import Path

DROP_CACHES = Path("/proc/sys/vm/drop_caches")
PAGES_DENTRIES_INODES = "3"


@functools.cache
def why_not() -> str:
    """Why the caches cannot be dropped here; empty: they can."""
    if os.geteuid() != 0:
        return "only root may drop the kernel's caches"
    if not os.access(DROP_CACHES, os.W_OK):
        return f"{DROP_CACHES} may not be written here"
    return ""


def drop() -> None:
    """Of the whole machine: there is no smaller measure. What is dirty would stay, so that it is
    written first."""
    os.sync()
    DROP_CACHES.write_text(PAGES_DENTRIES_INODES)
