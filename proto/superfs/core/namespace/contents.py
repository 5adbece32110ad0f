"""What verbs share about the contents of regular files, and of symlinks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.limits import INLINE_BYTES_MAX
from superfs.core.namespace.access import READ, check_write_open, has_access, is_owner
from superfs.core.namespace.bits import TRUNCATING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Caller, Txn


def may_read(txn: Txn, caller: Caller, attr: Attr) -> bool:
    """An owner may: a descriptor opened for reading outlives a chmod."""
    return is_owner(caller, attr) or attr.is_symlink or has_access(txn, caller, attr, READ)


def stored(txn: Txn, attr: Attr) -> bytes:
    """Inline bytes as they are stored. An empty file has no record."""
    return (txn.get_inline(attr.place, attr.ino) or b"") if attr.size else b""


def inline_of(txn: Txn, caller: Caller, attr: Attr) -> bytes:
    """Contents that come along unasked: nothing where the caller may not read them."""
    return stored(txn, attr) if may_read(txn, caller, attr) else b""


def check_writable(txn: Txn, caller: Caller, attr: Attr) -> None:
    if not attr.is_regular:
        raise FsError(Code.IS_DIRECTORY if attr.is_dir else Code.INVALID)
    if attr.flags & TRUNCATING:
        raise FsError(Code.BUSY, "a truncation is being finished")
    if not caller.trusted:
        check_write_open(txn, caller, attr)


def merge(txn: Txn, attr: Attr, writes: Sequence[tuple[int, bytes]]) -> bytes:
    """The inline contents after these writes, zeros in the holes; INLINE_FULL where they do not
    fit. Nothing is changed yet."""
    for offset, data in writes:
        if offset < 0:
            raise FsError(Code.INVALID, f"offset {offset}")
        if offset + len(data) > INLINE_BYTES_MAX:
            raise FsError(Code.INLINE_FULL, f"a write ends at {offset + len(data)}")
    contents = bytearray(stored(txn, attr))
    before = len(contents)
    for offset, data in writes:
        if data and len(contents) < offset:
            contents.extend(bytes(offset - len(contents)))
        contents[offset : offset + len(data)] = data
    if len(contents) > before and not txn.has_room(len(contents) - before):
        raise FsError(Code.NO_SPACE)
    return bytes(contents)


def set_mtime(attr: Attr, mtime_ns: int, ctime_before_ns: int) -> None:
    """After `stamp`, with the time of the write as the writer's clock had it (0: now). It is never
    in the future. A write older than the last change of the inode, one that arrives late, does not
    set mtime back; a newer one does, when somebody had set a time in the future. Nor does an inode
    keep the times of a clock that was wrong."""
    now = attr.ctime_ns
    if not mtime_ns or mtime_ns > now or ctime_before_ns > now:
        attr.mtime_ns = now
    elif mtime_ns > attr.mtime_ns or mtime_ns > ctime_before_ns:
        attr.mtime_ns = mtime_ns
