"""Where the mounts of this machine can be asked what they are doing, and how.

Each mount listens on a Unix socket of its own in a directory that is its user's alone. Who connects
sends one line and gets lines, each a JSON object:

    {"ask": "stats"}    one: counters since the mount began (superfs.mount.figures); ask at will
    {"ask": "watch"}    one every moment, with every request of the kernel since the last
                        (superfs.mount.accesses), until the connection is closed
    anything else       {"error": "..."}
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

LINE_BYTES_MAX = 4096
"""Of a question."""


def directory_of(uid: int) -> Path:
    return Path("/run/superfs-mounts") if uid == 0 else Path(f"/tmp/superfs-mounts-{uid}")


def is_private(path: Path, uid: int) -> bool:
    """Where anybody may write, somebody else may have been first."""
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o077


def socket_of(pid: int) -> Path:
    """Of a mount of this user."""
    return directory_of(os.geteuid()) / f"{pid}.sock"
