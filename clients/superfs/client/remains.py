"""What dead processes of this user on this machine have left: their sessions.

A session with leases outlives its process for as long as its leases may be trusted: a daemon
cannot tell a dead client from one that is cut off. This machine can: each such process keeps a file
locked as long as it lives, with its session in it. Who finds one that is not locked says so to the
daemons with its hello (`Hello.dead`).

The files are in the directory of the mounts' windows, which is the user's alone; nothing depends on
them but how long others wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
from typing import TYPE_CHECKING

from superfs.client import windows
from superfs.core.limits import DEAD_SESSIONS_MAX

if TYPE_CHECKING:
    from pathlib import Path

FILE_BYTES_MAX = 4096
SUFFIX = ".session"

log = logging.getLogger("superfs.client")


class Remains:
    """Of one cluster. Ours is held until `close`, or the end of the process."""

    def __init__(self, cluster_id: str, directory: Path | None = None) -> None:
        self._cluster_id = cluster_id
        self._directory = directory or windows.directory_of(os.geteuid())
        self._fd = -1
        self._path: Path | None = None
        self._found: dict[int, int] = {}  # session -> descriptor of its file, locked by us

    def claim(self, session: int) -> None:
        """This process speaks for that session from now on, and for no other."""
        text = json.dumps({"cluster": self._cluster_id, "session": session}).encode()
        try:
            if self._fd < 0:
                self._directory.mkdir(mode=0o700, exist_ok=True)
                if not windows.is_private(self._directory, os.geteuid()):
                    raise OSError(f"{self._directory} is not a private directory of this user")
                path = self._directory / f"{os.getpid()}-{session:x}{SUFFIX}"
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._fd = os.open(path, flags, 0o600)
                self._path = path
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, text, 0)
        except OSError as error:
            log.info("if this process dies, others wait for its leases to end: %s", error)

    def dead(self) -> list[int]:
        """Sessions that nobody speaks for. They are ours to bury: others do not find them."""
        with contextlib.suppress(OSError):
            for path in sorted(self._directory.glob(f"*{SUFFIX}")):
                if len(self._found) >= DEAD_SESSIONS_MAX:
                    break
                if path != self._path:
                    self._look(path)
        return list(self._found)

    def _look(self, path: Path) -> None:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left = json.loads(os.pread(fd, FILE_BYTES_MAX, 0))
            if left["cluster"] == self._cluster_id:
                self._found[int(left["session"])] = fd
                fd = -1
        except (OSError, ValueError, KeyError, TypeError):
            pass  # it lives, or has only just begun to
        finally:
            if fd >= 0:
                os.close(fd)

    def buried(self) -> None:
        """The daemons know."""
        for fd in self._found.values():
            with contextlib.suppress(OSError):
                os.unlink(os.readlink(f"/proc/self/fd/{fd}"))
            os.close(fd)
        self._found.clear()

    def close(self) -> None:
        """After the goodbye."""
        for fd in self._found.values():
            os.close(fd)
        self._found.clear()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd, self._path = -1, None
