"""setattr: chmod, chown, truncate, utimens, and any of them together.

Truncation to nothing makes a file inline and empty again, under no data generation. A shrink of
data on data daemons sets TRUNCATING: nobody writes until the daemons have dropped the rest.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.limits import FILE_DATA_BYTES_MAX
from superfs.core.namespace.access import (
    WRITE,
    check_access,
    check_owner,
    check_write_open,
    is_owner,
    keeps_setgid,
)
from superfs.core.namespace.acl import ACCESS_XATTR, chmod_acl, pack_acl, parse_acl
from superfs.core.namespace.bits import (
    HAS_ACL,
    INLINE,
    SET_ATIME,
    SET_ATIME_NOW,
    SET_GID,
    SET_KILL_PRIV,
    SET_MODE,
    SET_MTIME,
    SET_MTIME_NOW,
    SET_SIZE,
    SET_UID,
    TRUNCATING,
)
from superfs.core.namespace.find import find
from superfs.core.namespace.inodes import kill_privileges, save, save_access, stamp
from superfs.core.namespace.outcome import Outcome

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Caller, Ref, Txn

_NOW = SET_ATIME_NOW | SET_MTIME_NOW
_TIMES = SET_ATIME | SET_MTIME | _NOW
_ACCESS = int(SET_MODE | SET_UID | SET_GID | SET_KILL_PRIV)
_ASKED_FOR = SET_MODE | SET_UID | SET_GID | SET_SIZE | _TIMES
_NO_ID = 0xFFFFFFFF
_TIME_MAX = (1 << 63) - 1


def setattr(  # noqa: A001
    txn: Txn,
    caller: Caller,
    inode: Ref,
    mask: int,
    *,
    mode: int = 0,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    atime_ns: int = 0,
    mtime_ns: int = 0,
) -> Outcome:
    mask = int(mask)
    attr, directory = find(txn, inode)
    if mask & SET_SIZE:
        _check_size(attr, size)
    _check_values(mask, uid, gid, atime_ns, mtime_ns)
    if mask & SET_MODE and attr.is_symlink:
        raise FsError(Code.NOT_SUPPORTED, "chmod of a symlink")
    if not caller.trusted:
        _check_permission(txn, caller, attr, mask, uid, gid)
        if mask & SET_MODE and not keeps_setgid(caller, gid if mask & SET_GID else attr.gid):
            mode &= ~stat.S_ISGID

    stamp(txn, attr)
    now = attr.ctime_ns
    chown = mask & (SET_UID | SET_GID | SET_KILL_PRIV) and not attr.is_dir
    if chown or (mask & SET_SIZE and caller.uid != 0):
        kill_privileges(txn, caller, attr)
    if mask & SET_UID:
        attr.uid = uid
    if mask & SET_GID:
        attr.gid = gid
    if mask & SET_MODE:
        attr.mode = stat.S_IFMT(attr.mode) | mode & 0o7777
        _chmod_acl(txn, attr)
    if mask & SET_SIZE:
        _truncate(txn, attr, size)
        attr.mtime_ns = now
    if mask & SET_ATIME_NOW:
        attr.atime_ns = now
    elif mask & SET_ATIME:
        attr.atime_ns = atime_ns
    if mask & SET_MTIME_NOW:
        attr.mtime_ns = now
    elif mask & SET_MTIME:
        attr.mtime_ns = mtime_ns
    if mask & _ACCESS:
        save_access(txn, attr, directory)
    else:
        save(txn, attr, directory)
    return Outcome(attr)


def _check_size(attr: Attr, size: int) -> None:
    if attr.is_dir:
        raise FsError(Code.IS_DIRECTORY)
    if not attr.is_regular or size < 0:
        raise FsError(Code.INVALID, f"size {size} of mode {attr.mode:o}")
    if size > FILE_DATA_BYTES_MAX:
        raise FsError(Code.FILE_TOO_BIG, f"size {size}")
    if attr.flags & TRUNCATING:
        raise FsError(Code.BUSY, "a truncation is being finished")


def _check_values(mask: int, uid: int, gid: int, atime_ns: int, mtime_ns: int) -> None:
    if mask & SET_UID and not 0 <= uid < _NO_ID:
        raise FsError(Code.INVALID, f"uid {uid}")
    if mask & SET_GID and not 0 <= gid < _NO_ID:
        raise FsError(Code.INVALID, f"gid {gid}")
    if not (-_TIME_MAX <= atime_ns <= _TIME_MAX and -_TIME_MAX <= mtime_ns <= _TIME_MAX):
        raise FsError(Code.INVALID, "a time out of range")


def _check_permission(txn: Txn, caller: Caller, attr: Attr, mask: int, uid: int, gid: int) -> None:
    """What setattr_prepare and its callers ask on Linux, in their order."""
    if mask & SET_SIZE:
        check_write_open(txn, caller, attr)
    if mask & SET_UID and caller.uid != 0 and not caller.uid == attr.uid == uid:
        raise FsError(Code.NOT_PERMITTED, "chown")
    if mask & SET_GID and caller.uid != 0:
        check_owner(caller, attr)
        if gid != attr.gid and not caller.in_group(gid):
            raise FsError(Code.NOT_PERMITTED, "chgrp to a foreign group")
    if mask & SET_MODE:
        check_owner(caller, attr)
    times = mask & _TIMES
    if times and not is_owner(caller, attr):
        # "Now" for both is what a write does: whoever may write may. Anything else is the owner's.
        if times != _NOW:
            raise FsError(Code.NOT_PERMITTED, "times of somebody else's file")
        check_access(txn, caller, attr, WRITE)
    if not mask & _ASKED_FOR:
        check_owner(caller, attr)  # chown to nobody: it still takes setuid away and sets ctime


def _chmod_acl(txn: Txn, attr: Attr) -> None:
    if attr.flags & HAS_ACL:
        value = txn.get_xattr(attr.place, attr.ino, ACCESS_XATTR)
        assert value is not None, attr
        acl = chmod_acl(parse_acl(value), attr.mode)
        txn.put_xattr(attr.place, attr.ino, ACCESS_XATTR, pack_acl(acl))


def _truncate(txn: Txn, attr: Attr, size: int) -> None:
    old = attr.size
    if size == 0:
        if attr.is_inline and old and txn.get_inline(attr.place, attr.ino) is not None:
            txn.delete_inline(attr.place, attr.ino)
        if attr.data_generation:
            txn.reap_data(attr)
            attr.data_generation, attr.chains = 0, ()
        attr.flags |= INLINE
    elif attr.is_inline:
        if size < old:
            data = txn.get_inline(attr.place, attr.ino)
            if data is not None and len(data) > size:
                txn.put_inline(attr.place, attr.ino, data[:size])
    elif size < old:
        attr.flags |= TRUNCATING
        attr.size = size
        txn.truncate_data(attr, size)
    attr.size = size
