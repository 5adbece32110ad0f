"""Who this process is to the kernel: the caller that path-level calls act for."""

from __future__ import annotations

import os
from pathlib import Path

from superfs.core.namespace.txn import Caller

DEFAULT_UMASK = 0o022


def own_umask() -> int:
    """Read without setting it: os.umask would change it for a moment, for every thread."""
    for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return DEFAULT_UMASK


def own_caller() -> Caller:
    return Caller(
        uid=os.geteuid(),
        gid=os.getegid(),
        groups=frozenset(os.getgroups()),
        umask=own_umask(),
    )
