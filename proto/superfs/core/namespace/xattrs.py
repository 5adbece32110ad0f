"""Which extended attributes exist, and who may see and set them."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from superfs.core.cachedirs import CACHE_XATTR, parse_settings
from superfs.core.errors import Code, FsError
from superfs.core.limits import XATTR_NAME_BYTES_MAX
from superfs.core.namespace.access import READ, WRITE, check_access, check_owner
from superfs.core.namespace.acl import ACCESS_XATTR, DEFAULT_XATTR
from superfs.core.namespace.bits import HAS_ACL, HAS_CAPABILITY, HAS_DEFAULT_ACL, HAS_XATTR
from superfs.core.namespace.inodes import CAPABILITY_XATTR

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Caller, Txn

ACLS = (ACCESS_XATTR, DEFAULT_XATTR)
_PREFIXES = (b"user.", b"trusted.", b"security.")
_FLAGS = {
    ACCESS_XATTR: HAS_ACL,
    DEFAULT_XATTR: HAS_DEFAULT_ACL,
    CAPABILITY_XATTR: HAS_CAPABILITY,
}


def flag_of(name: bytes) -> int:
    """The flag in Attr that tells of this attribute, beside HAS_XATTR."""
    return _FLAGS.get(name, 0)


def check_xattr_name(name: bytes) -> None:
    if len(name) > XATTR_NAME_BYTES_MAX:
        raise FsError(Code.NAME_TOO_LONG, f"an xattr name of {len(name)} bytes")
    if not name or b"\0" in name or name in _PREFIXES:
        raise FsError(Code.INVALID, f"not an xattr name: {name!r}")
    if name not in (*ACLS, CACHE_XATTR) and not name.startswith(_PREFIXES):
        raise FsError(Code.NOT_SUPPORTED, f"xattr namespace of {name!r}")


def check_readable(txn: Txn, caller: Caller, attr: Attr, name: bytes) -> None:
    """For an untrusted caller, as xattr_permission does. ACLs are for everybody to read."""
    if caller.trusted or name in (*ACLS, CACHE_XATTR) or name.startswith(b"security."):
        return
    if name.startswith(b"trusted."):
        if caller.uid != 0:
            raise FsError(Code.NO_XATTR, "trusted.*")
        return
    if not (attr.is_regular or attr.is_dir):
        raise FsError(Code.NO_XATTR, "user.* is for files and directories")
    check_access(txn, caller, attr, READ)


def check_settable(txn: Txn, caller: Caller, attr: Attr, name: bytes) -> None:
    """Also for trusted callers: ACLs are not for symlinks, default ACLs only for directories. What
    bounds a cache is the owner's: it decides about everybody's files in it."""
    if name == CACHE_XATTR:
        if not attr.is_dir:
            raise FsError(Code.NOT_DIRECTORY, "only a directory can be a cache")
        check_owner(caller, attr)
        return
    if name in ACLS:
        if attr.is_symlink:
            raise FsError(Code.NOT_SUPPORTED, "ACL of a symlink")
        check_owner(caller, attr)
        if name == DEFAULT_XATTR and not attr.is_dir:
            raise FsError(Code.ACCESS, "default ACL of a file")
        return
    if caller.trusted:
        return
    if name.startswith((b"trusted.", b"security.")):
        if caller.uid != 0:
            raise FsError(Code.NOT_PERMITTED, "trusted.* and security.* are root's")
        return
    if not (attr.is_regular or attr.is_dir):
        raise FsError(Code.NOT_PERMITTED, "user.* is for files and directories")
    if attr.is_dir and attr.mode & stat.S_ISVTX:
        check_owner(caller, attr)
    check_access(txn, caller, attr, WRITE)


def check_value(name: bytes, value: bytes) -> None:
    if name == CACHE_XATTR:
        parse_settings(value)


def drop_xattr(txn: Txn, attr: Attr, name: bytes) -> None:
    """Deletes one that exists, and its flags in `attr`, which the caller writes."""
    txn.delete_xattr(attr.place, attr.ino, name)
    attr.flags &= ~flag_of(name)
    if not txn.list_xattrs(attr.place, attr.ino):
        attr.flags &= ~HAS_XATTR
