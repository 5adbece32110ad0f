"""append: where an O_APPEND write goes. `number` is the offset: the end of the file, which moves
by `length` at once, so that two appenders never get the same place.

The data of a file on data daemons is written there by the client, under attr.data_generation, and
published. Of an inline file it comes along, or is published as a write at that offset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.limits import FILE_DATA_BYTES_MAX, INLINE_BYTES_MAX
from superfs.core.namespace.contents import check_writable, merge
from superfs.core.namespace.find import find_inode
from superfs.core.namespace.inodes import kill_privileges, save, stamp
from superfs.core.namespace.outcome import Outcome

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Caller, Ref, Txn


def append(txn: Txn, caller: Caller, inode: Ref, length: int, *, data: bytes = b"") -> Outcome:
    attr = find_inode(txn, inode)
    check_writable(txn, caller, attr)
    if length < 0 or (data and length != len(data)):
        raise FsError(Code.INVALID, f"append of {length} bytes with {len(data)}")
    offset = attr.size
    if offset + length > FILE_DATA_BYTES_MAX:
        raise FsError(Code.FILE_TOO_BIG, f"{length} bytes behind {offset}")
    contents = b""
    if attr.is_inline:
        if offset + length > INLINE_BYTES_MAX:
            raise FsError(Code.INLINE_FULL, f"{length} bytes behind {offset}")
        if data:
            contents = merge(txn, attr, [(offset, data)])
    elif data:
        raise FsError(Code.NOT_INLINE, "contents are on data daemons by now")
    if length:
        stamp(txn, attr)
        attr.mtime_ns = attr.ctime_ns
        attr.size = offset + length
        if contents:
            txn.put_inline(attr.place, attr.ino, contents)
        if caller.uid != 0:
            kill_privileges(txn, caller, attr)
        save(txn, attr)
    return Outcome(attr, number=offset)
