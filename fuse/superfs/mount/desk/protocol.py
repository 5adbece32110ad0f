"""The FUSE protocol of the kernel (include/uapi/linux/fuse.h, 7.31 and later), as far as the desk
speaks it: what requests look like, and how answers and notifications are packed.

Every message begins with a header; numbers are the machine's own, structures are packed to
multiples of eight bytes. The only place in the mount that knows bytes of this protocol.

    request    len u32, opcode u32, unique u64, nodeid u64, uid, gid, pid u32, extlen u16, pad u16
    answer     len u32, error i32 (0 or a negative errno), unique u64
    notice     len u32, error i32 (which notice), unique u64 = 0
"""

from __future__ import annotations

import enum
import stat
from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.core.attrs import Attr


class Op(enum.IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    CREATE = 35
    INTERRUPT = 36
    BATCH_FORGET = 42
    READDIRPLUS = 44
    RENAME2 = 45


class SetAttr(enum.IntFlag):
    """What a SETATTR is about."""

    MODE = 1
    UID = 2
    GID = 4
    SIZE = 8
    ATIME = 16
    MTIME = 32
    FH = 64
    ATIME_NOW = 128
    MTIME_NOW = 256
    LOCKOWNER = 512
    KILL_SUIDGID = 2048


OPERATIONS: dict[int, str] = {
    1: "lookup", 3: "getattr", 4: "setattr", 5: "readlink", 6: "symlink", 8: "mknod", 9: "mkdir",
    10: "unlink", 11: "rmdir", 12: "rename", 13: "link", 14: "open", 15: "read", 16: "write",
    17: "statfs", 18: "release", 20: "fsync", 21: "setxattr", 22: "getxattr", 23: "listxattr",
    24: "removexattr", 25: "flush", 26: "init", 27: "opendir", 28: "readdir", 29: "releasedir",
    30: "fsyncdir", 31: "getlk", 32: "setlk", 33: "setlkw", 34: "access", 35: "create", 37: "bmap",
    39: "ioctl", 40: "poll", 43: "fallocate", 44: "readdir", 45: "rename", 46: "lseek",
    47: "copy_file_range", 50: "syncfs", 51: "tmpfile", 52: "statx",
}  # fmt: skip
"""What there is, for people: readdir is READDIRPLUS too."""
NAMES_AT = {1: 0, 6: 0, 8: 16, 9: 8, 10: 0, 11: 0, 12: 8, 13: 8, 35: 16, 45: 16}
"""Where in a request that is about a directory its first name begins."""
UNANSWERED = frozenset({Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT})


class Notice(enum.IntEnum):
    INVAL_INODE = 2
    INVAL_ENTRY = 3
    INC_EPOCH = 8  # Linux 6.16
    PRUNE = 9  # Linux 6.18


HEADER = Struct("=IIQQIIIHH")
HEADER_BYTES = HEADER.size
OUT_BYTES = 16
WRITE_BYTES_MAX = 1 << 20
REQUEST_BYTES_MAX = WRITE_BYTES_MAX + 4096
"""The kernel refuses to be read with less room than its greatest request."""

OPEN_IN = Struct("=II")  # flags, open_flags
READ_IN = Struct("=QQI")  # fh, offset, size; more follows
WRITE_IN = Struct("=QQII")  # fh, offset, size, flags; more follows
WRITE_CACHE = 1  # in the flags: pages of a mapping are written back
WRITE_DATA = HEADER_BYTES + 40
HANDLE_IN = Struct("=Q")  # of flush, release, releasedir, fsyncdir: fh; more follows. Of
# interrupt: which request
GETXATTR_IN = Struct("=II")  # size, padding; then the name
CREATE_IN = Struct("=IIII")  # flags, mode, umask, open_flags; then the name
MKDIR_IN = Struct("=II")  # mode, umask; then the name
LINK_IN = Struct("=Q")  # the inode; then its new name
RENAME_IN = Struct("=Q")  # new directory; then both names
RENAME2_IN = Struct("=QI4x")  # new directory, flags; then both names
SETATTR_IN = Struct("=I4xQQ8xqqqIIII4xII4x")
"""valid, fh, size, atime, mtime, ctime, their ns, mode, uid, gid"""
FORGET_IN = Struct("=Q")  # look-ups
BATCH_FORGET_IN = Struct("=II")  # count, padding
FORGET_ONE = Struct("=QQ")  # nodeid, look-ups

FOPEN_DIRECT_IO = 1 << 0
FOPEN_KEEP_CACHE = 1 << 1
FOPEN_CACHE_DIR = 1 << 3
FOPEN_NOFLUSH = 1 << 5

_OUT = Struct("=IiQ")
_OPEN_OUT = Struct("=IiQQII")  # header, fh, flags, padding
_OPENED = Struct("=QII")  # fh, flags, padding
_SIZE_OUT = Struct("=IiQII")  # header, size, padding: of write, getxattr and listxattr
_ATTR_OUT = Struct("=IiQQII")  # header, valid s, valid ns, padding; then the attributes
_ENTRY = Struct("=QQQQII")  # nodeid, generation, entry s, attr s, entry ns, attr ns
_ENTRY_OUT = Struct("=IiQQQQQII")  # header and entry; then the attributes
_ATTR = Struct("=QQQqqqIIIIIIIIII")
ATTR_BYTES = _ATTR.size
ENTRY_BYTES = _ENTRY.size + ATTR_BYTES
_DIRENT = Struct("=QQII")  # ino, cookie of the next, length of the name, type
_NODEID = Struct("=Q")
_INVAL_INODE = Struct("=IiQQqq")
_INVAL_ENTRY = Struct("=IiQQII")
_PRUNE = Struct("=IiQIIQ")  # header, count, padding, spare; then the numbers

INIT_IN = Struct("=IIII")  # major, minor, max_readahead, flags; more follows
HANDLE_KILLPRIV_V2 = 1 << 28
_INIT_FLAGS_AT = OUT_BYTES + 12  # of the answer, behind the same three numbers
_FLAGS = Struct("=I")

BLOCK_BYTES = 512
FILE_IO_BYTES = 128 * 1024  # what st_blksize recommends
DIRECTORY_IO_BYTES = 4096
_NS = 10**9


def pack_attr(number: int, attr: Attr, atime_ns: int) -> bytes:
    """struct fuse_attr. `atime_ns`: of a read that the server has not been told of, or 0."""
    read_ns = max(attr.atime_ns, atime_ns) if atime_ns else attr.atime_ns
    atime_s, atime_ns = divmod(read_ns, _NS)
    mtime_s, mtime_ns = divmod(attr.mtime_ns, _NS)
    ctime_s, ctime_ns = divmod(attr.ctime_ns, _NS)
    if stat.S_ISDIR(attr.mode):
        blocks, io_bytes = 0, DIRECTORY_IO_BYTES
    else:
        blocks, io_bytes = -(-attr.size // BLOCK_BYTES), FILE_IO_BYTES
    return _ATTR.pack(
        number, attr.size, blocks, atime_s, mtime_s, ctime_s, atime_ns, mtime_ns, ctime_ns,
        attr.mode, attr.nlink, attr.uid, attr.gid, attr.rdev, io_bytes, 0,
    )  # fmt: skip


def greeting(answer: bytes, offered: int) -> bytes:
    """The answer to INIT, with what we take over that libfuse does not know of: who writes or gives
    a file away loses its privileges without the kernel's asking for them. Then it looks for
    security.capability once, not before every write, and at no attributes before a chown."""
    if len(answer) < _INIT_FLAGS_AT + _FLAGS.size or not offered & HANDLE_KILLPRIV_V2:
        return answer
    changed = bytearray(answer)
    flags = _FLAGS.unpack_from(answer, _INIT_FLAGS_AT)[0] | HANDLE_KILLPRIV_V2
    _FLAGS.pack_into(changed, _INIT_FLAGS_AT, flags)
    return bytes(changed)


def error(unique: int, number: int) -> bytes:
    return _OUT.pack(OUT_BYTES, -number, unique)


def done(unique: int) -> bytes:
    return _OUT.pack(OUT_BYTES, 0, unique)


def data_header(unique: int, length: int) -> bytes:
    """Before `length` bytes of contents."""
    return _OUT.pack(OUT_BYTES + length, 0, unique)


def data(unique: int, body: bytes) -> bytes:
    return _OUT.pack(OUT_BYTES + len(body), 0, unique) + body


def open_options(keep_cache: bool, direct_io: bool) -> int:
    return keep_cache * FOPEN_KEEP_CACHE | direct_io * FOPEN_DIRECT_IO


def opened(unique: int, fh: int, flags: int) -> bytes:
    return _OPEN_OUT.pack(_OPEN_OUT.size, 0, unique, fh, flags, 0)


def size(unique: int, length: int) -> bytes:
    return _SIZE_OUT.pack(_SIZE_OUT.size, 0, unique, length, 0)


def attributes(unique: int, valid_s: float, attr: bytes) -> bytes:
    seconds = int(valid_s)
    ns = int((valid_s - seconds) * 1e9)
    return _ATTR_OUT.pack(_ATTR_OUT.size + ATTR_BYTES, 0, unique, seconds, ns, 0) + attr


def entry(
    unique: int, number: int, generation: int, entry_s: float, attr_s: float, attr: bytes
) -> bytes:
    e, a = int(entry_s), int(attr_s)
    e_ns, a_ns = int((entry_s - e) * 1e9), int((attr_s - a) * 1e9)
    length = OUT_BYTES + ENTRY_BYTES
    return _ENTRY_OUT.pack(length, 0, unique, number, generation, e, a, e_ns, a_ns) + attr


def created(
    unique: int,
    number: int,
    generation: int,
    entry_s: float,
    attr_s: float,
    attr: bytes,
    fh: int,
    flags: int,
) -> bytes:
    """Of CREATE: an entry, and that it is open."""
    body = entry(unique, number, generation, entry_s, attr_s, attr)[OUT_BYTES:]
    length = OUT_BYTES + ENTRY_BYTES + _OPENED.size
    return _OUT.pack(length, 0, unique) + body + _OPENED.pack(fh, flags, 0)


def direntplus(
    name: bytes,
    cookie: int,
    number: int,
    generation: int,
    entry_s: float,
    attr_s: float,
    attr: bytes,
    mode: int,
) -> bytes:
    """One entry of a READDIRPLUS answer."""
    e, a = int(entry_s), int(attr_s)
    e_ns, a_ns = int((entry_s - e) * 1e9), int((attr_s - a) * 1e9)
    length = len(name)
    return b"".join((
        _ENTRY.pack(number, generation, e, a, e_ns, a_ns),
        attr,
        _DIRENT.pack(number, cookie, length, mode >> 12),
        name,
        b"\0" * (-length & 7),
    ))  # fmt: skip


def dot(name: bytes, cookie: int, number: int) -> bytes:
    """ "." and "..": a listing tells their numbers and that they are directories; they are no
    look-up (nodeid 0)."""
    return bare_direntplus(name, cookie, number, stat.S_IFDIR)


def dirent(name: bytes, cookie: int, number: int, mode: int) -> bytes:
    """One entry of a READDIR answer."""
    length = len(name)
    return _DIRENT.pack(number, cookie, length, mode >> 12) + name + b"\0" * (-length & 7)


def bare_direntplus(name: bytes, cookie: int, number: int, mode: int) -> bytes:
    """One entry of a READDIRPLUS answer that is no look-up: the kernel makes no inode of it."""
    return bytes(ENTRY_BYTES) + dirent(name, cookie, number, mode)


FORGET_NAMES = _OUT.pack(OUT_BYTES, Notice.INC_EPOCH, 0)
"""Every name is to be looked up again before it is believed."""


def inval_inode(number: int, *, attr_only: bool) -> bytes:
    offset, length = (-1, 0) if attr_only else (0, 0)
    return _INVAL_INODE.pack(_INVAL_INODE.size, Notice.INVAL_INODE, 0, number, offset, length)


def inval_entry(parent: int, name: bytes) -> bytes:
    length = len(name)
    head = _INVAL_ENTRY.pack(
        _INVAL_ENTRY.size + length + 1, Notice.INVAL_ENTRY, 0, parent, length, 0
    )
    return head + name + b"\0"


def prune(numbers: Sequence[int]) -> bytes:
    length = _PRUNE.size + 8 * len(numbers)
    head = _PRUNE.pack(length, Notice.PRUNE, 0, len(numbers), 0, 0)
    return head + Struct(f"={len(numbers)}Q").pack(*numbers)


def listed_numbers(body: memoryview) -> list[int]:
    """What a READDIRPLUS answer has counted."""
    found, at = [], 0
    while at < len(body):
        number = _NODEID.unpack_from(body, at)[0]
        if number:
            found.append(number)
        length = _DIRENT.unpack_from(body, at + ENTRY_BYTES)[2]
        at += ENTRY_BYTES + _DIRENT.size + length + (-length & 7)
    return found


def forgotten(body: memoryview) -> list[tuple[int, int]]:
    """(nodeid, look-ups) of a BATCH_FORGET."""
    count = BATCH_FORGET_IN.unpack_from(body)[0]
    found = FORGET_ONE.iter_unpack(body[8 : 8 + count * FORGET_ONE.size])
    return [(number, lookups) for number, lookups in found]
