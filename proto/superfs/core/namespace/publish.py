"""publish: what a writer did to a regular file.

Contents on data daemons are there already, under `data_generation`; contents of small files come
along in `writes`. `spill` moves a file from inline to the data daemons. See the three refusals:

    STALE_DATA   the file was truncated to nothing or spilled meanwhile: what was written under
                 that generation is reaped, the writer starts again
    INLINE_FULL  a write ends behind the inline limit: spill first
    NOT_INLINE   inline writes to, or a spill of, a file that is on data daemons by now

`number` is the inode's `change` before: a writer whose copy of the contents was of that change
knows the contents now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.limits import FILE_DATA_BYTES_MAX
from superfs.core.namespace.bits import INLINE
from superfs.core.namespace.contents import check_writable, merge, set_mtime
from superfs.core.namespace.find import find_inode
from superfs.core.namespace.inodes import kill_privileges, save, stamp
from superfs.core.namespace.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Caller, Ref, Txn


def publish(
    txn: Txn,
    caller: Caller,
    inode: Ref,
    data_generation: int,
    *,
    size: int = 0,
    mtime_ns: int = 0,
    writes: Sequence[tuple[int, bytes]] = (),
    kill_priv: bool = False,
    spill: bool = False,
    inline_change: int = 0,
    atime_ns: int = 0,
) -> Outcome:
    attr = find_inode(txn, inode)
    check_writable(txn, caller, attr)
    if not 0 <= size <= FILE_DATA_BYTES_MAX:
        raise FsError(Code.FILE_TOO_BIG if size > 0 else Code.INVALID, f"size {size}")
    contents = b""
    if spill:
        _check_spill(txn, attr, data_generation, inline_change, writes)
    else:
        _check_generation(txn, attr, data_generation, size, writes)
        if writes:
            contents = merge(txn, attr, writes)

    ctime_before_ns, change_before = attr.ctime_ns, attr.change
    stamp(txn, attr)
    if spill:
        if attr.size and txn.get_inline(attr.place, attr.ino) is not None:
            txn.delete_inline(attr.place, attr.ino)
        attr.flags &= ~INLINE
    elif contents:
        txn.put_inline(attr.place, attr.ino, contents)
        size = max(size, len(contents))
    if size > attr.size:
        attr.size = size
    set_mtime(attr, mtime_ns, ctime_before_ns)
    if atime_ns > attr.atime_ns:
        attr.atime_ns = min(atime_ns, attr.ctime_ns)
    if kill_priv or not (caller.trusted or caller.uid == 0):
        kill_privileges(txn, caller, attr)
    save(txn, attr)
    return Outcome(attr, number=change_before)


def _check_generation(
    txn: Txn, attr: Attr, data_generation: int, size: int, writes: Sequence[tuple[int, bytes]]
) -> None:
    """Contents must be where the file keeps them by now. Generation 0 without size and writes is
    about times alone."""
    if attr.is_inline:
        if data_generation and not writes:
            _refuse(txn, attr, data_generation)
        return
    if writes:
        raise FsError(Code.NOT_INLINE, "contents are on data daemons by now")
    if data_generation != attr.data_generation and (data_generation or size):
        _refuse(txn, attr, data_generation)


def _check_spill(
    txn: Txn,
    attr: Attr,
    data_generation: int,
    inline_change: int,
    writes: Sequence[tuple[int, bytes]],
) -> None:
    if writes or not data_generation:
        raise FsError(Code.INVALID, "a spill takes a data generation and no writes")
    if not attr.is_inline:
        if data_generation != attr.data_generation:
            reap_lost(txn, attr, data_generation)
        raise FsError(Code.NOT_INLINE, "contents are on data daemons already")
    if data_generation != attr.data_generation or inline_change != attr.change:
        _refuse(txn, attr, data_generation)


def _refuse(txn: Txn, attr: Attr, data_generation: int) -> None:
    """The writer lost a race. What it wrote is dropped, unless it is what the file may still come
    to use: a generation that is prepared for a spill."""
    if data_generation != attr.data_generation:
        reap_lost(txn, attr, data_generation)
    raise FsError(Code.STALE_DATA, f"written under {data_generation}, not {attr.data_generation}")


def reap_lost(txn: Txn, attr: Attr, data_generation: int) -> None:
    """Of a generation that the file does not use."""
    if 0 < data_generation < 1 << 32:
        lost = attr.copy()
        lost.data_generation = data_generation
        txn.reap_data(lost)
