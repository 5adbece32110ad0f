"""/dev/fuse: answers and notices to the kernel."""

from __future__ import annotations

import errno
import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from superfs.mount.desk import protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ENDED = (errno.ENODEV, errno.ECONNABORTED)
"""The file system is not mounted any more."""
GONE = (errno.ENOENT, *ENDED)
"""Nobody waits for this answer."""

log = logging.getLogger("superfs.mount")


class Watcher(Protocol):
    def began(self, request: memoryview) -> None:
        """As the kernel has sent it; good only during the call."""

    def ended(self, answer: Sequence[bytes]) -> None:
        """In any thread."""


class Device:
    def __init__(self, fd: int) -> None:
        """`fd`: of a file system that is mounted, or being mounted."""
        os.set_blocking(fd, False)  # of reading only
        self.fd = fd
        self.answered: Callable[[], None] = lambda: None
        """Called after each answer."""
        self.watcher: Watcher | None = None
        """Told of every request and its answer, while somebody wants to know."""

    def answer(self, *parts: bytes) -> None:
        """One message. Whoever was killed meanwhile does not miss it."""
        self.give(*parts)
        self.answered()

    def give(self, *parts: bytes) -> None:
        """As `answer`, in any thread: of contents, under no lease."""
        watcher = self.watcher
        if watcher is not None:
            watcher.ended(parts)
        try:
            os.writev(self.fd, parts)
        except OSError as error:
            if error.errno not in GONE:
                self._refused(parts[0], error)

    def _refused(self, head: bytes, error: OSError) -> None:
        """Whoever asked is not left waiting, and nobody else has anything to do with it."""
        unique = int.from_bytes(head[8:16], sys.byteorder)
        log.error("a bug in the mount: the kernel does not take an answer: %s", error)
        with suppress(OSError):  # it has told whoever asked itself
            os.write(self.fd, protocol.error(unique, errno.EIO))


class Notices:
    """Tells the kernel that what it has cached is not so any more (superfs.mount.notify.Kernel).
    Raises what the kernel answers: ENOENT when it has nothing of it."""

    def __init__(self, fd: int, drain: Callable[[], object]) -> None:
        """`drain`: hands the kernel what pyfuse3 has answered (Relay.drain)."""
        self._fd = fd
        self._drain = drain

    def settle(self) -> None:
        """Every answer that was made is with the kernel: a notice that follows comes after it."""
        self._drain()

    def forget_names(self) -> None:
        os.write(self._fd, protocol.FORGET_NAMES)

    def invalidate_inode(self, inode: int, attr_only: bool = False) -> None:
        os.write(self._fd, protocol.inval_inode(inode, attr_only=attr_only))

    def invalidate_entry(self, inode_p: int, name: bytes, deleted: int = 0) -> None:
        os.write(self._fd, protocol.inval_entry(inode_p, name))

    def prune(self, inodes: Sequence[int]) -> None:
        os.write(self._fd, protocol.prune(inodes))
