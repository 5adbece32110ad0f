"""The one error type of SuperFS and the one table of what its codes mean.

A code number travels on the wire and is never reused or renumbered. `rpc/errors.py` alone turns
errors into gRPC status and back; `mount/operations.py` alone turns them into FUSE errors.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import IntEnum


class Code(IntEnum):
    """Append-only."""

    OK = 0
    # the rules of the namespace
    NOT_FOUND = 1
    EXISTS = 2
    NOT_DIRECTORY = 3
    IS_DIRECTORY = 4
    NOT_EMPTY = 5
    INVALID = 6
    NAME_TOO_LONG = 7
    ACCESS = 8  # the mode bits say no
    NOT_PERMITTED = 9  # only an owner or root may
    STALE = 10  # the inode is gone, or its number has a new generation
    TOO_MANY_LINKS = 11
    CROSS_DEVICE = 12
    LOOP = 13
    FILE_TOO_BIG = 14
    NO_SPACE = 15
    QUOTA = 16
    READ_ONLY = 17
    NO_XATTR = 18
    XATTR_TOO_BIG = 19
    NOT_SUPPORTED = 20
    BUSY_DIRECTORY = 21  # a mount point, or the root
    # the protocol
    BUSY = 40  # something is being finished on this inode: ask again
    STALE_DATA = 41  # the data generation has changed: write the data again
    NOT_INLINE = 42  # contents are on data daemons by now
    INLINE_FULL = 43  # contents do not fit inline any more: spill them
    WRONG_OWNER = 44  # this daemon does not own the slot or chunk: refresh the cluster map
    SESSION_EXPIRED = 45
    GRACE = 46  # after a restart: reclaims and reads only, ask again
    UNAUTHENTICATED = 47
    FORBIDDEN = 48  # the token is good, but not for this
    TOO_LARGE = 49  # a message or a field beyond its limit
    BAD_REQUEST = 50  # malformed: a client's bug
    UNAVAILABLE = 51  # not reachable, starting, or stopping
    DEADLINE = 52
    DELEGATED = 53  # another client holds it exclusively, and is asked to let go: ask again
    LOG_REFUSED = 54  # what a log says is not what it comes to here: somebody else was faster
    # the store
    DAMAGED = 60  # a checksum does not match
    IO = 61
    BAD_FORMAT = 62  # a version this program does not know
    WRONG_IDENTITY = 63  # another cluster's data, or none where some must be
    INTERNAL = 64


@dataclass(frozen=True, slots=True)
class Kind:
    errno: int
    grpc: int  # numeric gRPC status
    retryable: bool = False


KINDS: dict[Code, Kind] = {
    Code.OK: Kind(0, 0),
    Code.NOT_FOUND: Kind(errno.ENOENT, 5),
    Code.EXISTS: Kind(errno.EEXIST, 6),
    Code.NOT_DIRECTORY: Kind(errno.ENOTDIR, 9),
    Code.IS_DIRECTORY: Kind(errno.EISDIR, 9),
    Code.NOT_EMPTY: Kind(errno.ENOTEMPTY, 9),
    Code.INVALID: Kind(errno.EINVAL, 3),
    Code.NAME_TOO_LONG: Kind(errno.ENAMETOOLONG, 3),
    Code.ACCESS: Kind(errno.EACCES, 7),
    Code.NOT_PERMITTED: Kind(errno.EPERM, 7),
    Code.STALE: Kind(errno.ESTALE, 9),
    Code.TOO_MANY_LINKS: Kind(errno.EMLINK, 8),
    Code.CROSS_DEVICE: Kind(errno.EXDEV, 9),
    Code.LOOP: Kind(errno.ELOOP, 9),
    Code.FILE_TOO_BIG: Kind(errno.EFBIG, 11),
    Code.NO_SPACE: Kind(errno.ENOSPC, 8),
    Code.QUOTA: Kind(errno.EDQUOT, 8),
    Code.READ_ONLY: Kind(errno.EROFS, 9),
    Code.NO_XATTR: Kind(errno.ENODATA, 5),
    Code.XATTR_TOO_BIG: Kind(errno.E2BIG, 3),
    Code.NOT_SUPPORTED: Kind(errno.EOPNOTSUPP, 12),
    Code.BUSY_DIRECTORY: Kind(errno.EBUSY, 9),
    Code.BUSY: Kind(errno.EAGAIN, 14, retryable=True),
    Code.STALE_DATA: Kind(errno.ESTALE, 10),
    Code.NOT_INLINE: Kind(errno.EIO, 9),
    Code.INLINE_FULL: Kind(errno.EIO, 9),
    Code.WRONG_OWNER: Kind(errno.EIO, 14, retryable=True),
    Code.SESSION_EXPIRED: Kind(errno.EIO, 16),
    Code.GRACE: Kind(errno.EAGAIN, 14, retryable=True),
    Code.UNAUTHENTICATED: Kind(errno.EACCES, 16),
    Code.FORBIDDEN: Kind(errno.EACCES, 7),
    Code.TOO_LARGE: Kind(errno.EMSGSIZE, 8),
    Code.BAD_REQUEST: Kind(errno.EINVAL, 3),
    Code.UNAVAILABLE: Kind(errno.EIO, 14, retryable=True),
    Code.DEADLINE: Kind(errno.ETIMEDOUT, 4, retryable=True),
    Code.DELEGATED: Kind(errno.EAGAIN, 14, retryable=True),
    Code.LOG_REFUSED: Kind(errno.EIO, 10),
    Code.DAMAGED: Kind(errno.EIO, 15),
    Code.IO: Kind(errno.EIO, 13),
    Code.BAD_FORMAT: Kind(errno.EIO, 9),
    Code.WRONG_IDENTITY: Kind(errno.EIO, 9),
    Code.INTERNAL: Kind(errno.EIO, 13),
}
assert KINDS.keys() == set(Code)


class FsError(Exception):
    """An operation that could not be done: `code` says why, `detail` with what."""

    def __init__(self, code: Code, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    @property
    def errno(self) -> int:
        return KINDS[self.code].errno

    @property
    def retryable(self) -> bool:
        return KINDS[self.code].retryable

    def __str__(self) -> str:
        return f"{self.code.name}: {self.detail}" if self.detail else self.code.name


def known_code(number: int) -> Code:
    """The code of a number from the wire; a number from a newer peer is INTERNAL."""
    try:
        return Code(number)
    except ValueError:
        return Code.INTERNAL
