"""Where the mounts of this machine can be asked what they are doing, and how.

Each mount listens on a Unix socket of its own in a directory that is its user's alone. Who connects
sends one line and gets lines, each a JSON object:

    {"ask": "stats"}    one: counters since the mount began (superfs.mount.figures); ask at will
    {"ask": "watch"}    one every moment, with every request of the kernel since the last
                        (superfs.mount.accesses), until the connection is closed
    anything else       {"error": "..."}
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Protocol

LINE_BYTES_MAX = 4096
"""Of a question."""
_PEER = struct.Struct("iII")


def directory_of(uid: int) -> Path:
    return Path("/run/superfs-mounts") if uid == 0 else Path(f"/tmp/superfs-mounts-{uid}")


def is_private(path: Path, uid: int) -> bool:
    """Where anybody may write, somebody else may have been first."""
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o077


class Peer(Protocol):
    """A socket, of this library's or trio's."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


def uid_of(peer: Peer) -> int:
    """Of the process at the other end."""
    return int(_PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[1])


def all_sockets() -> list[Path]:
    """Of mounts that this user may ask: root's and his own."""
    found: list[Path] = []
    for uid in sorted({0, os.geteuid()}):
        directory = directory_of(uid)
        with contextlib.suppress(OSError):
            if is_private(directory, uid):
                found += sorted(directory.glob("*.sock"))
    return found


def connect(path: Path, timeout_s: float) -> socket.socket:
    """To a mount of root or of this user. PermissionError: somebody else listens there, whose word
    about a cluster and a token is not to be taken. OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(os.fspath(path))
        if uid_of(connection) not in (0, os.geteuid()):
            raise PermissionError(f"{path} is not of a mount of this user")
    except BaseException:
        connection.close()
        raise
    return connection


def socket_of(pid: int) -> Path:
    """Of a mount of this user."""
    return directory_of(os.geteuid()) / f"{pid}.sock"
