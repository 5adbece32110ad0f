"""Extended attributes and ACLs.

The kernel asks for security.capability before the first write of every file: the inode's flags
say that there is none, and nothing is asked of the server. The same goes for ACLs. A check of
XATTR_CREATE and XATTR_REPLACE is pyfuse3's: it reads first, and is atomic within one mount only.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from superfs.core.cachedirs import CACHE_XATTR
from superfs.core.errors import Code, FsError
from superfs.core.limits import XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX
from superfs.core.namespace.bits import (
    HAS_ACL,
    HAS_CAPABILITY,
    HAS_DEFAULT_ACL,
    HAS_XATTR,
    SET_MODE,
)

if TYPE_CHECKING:
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Caller
    from superfs.mount.mounted import Mounted
    from superfs.mount.nodes import Node

CAPABILITY = b"security.capability"
ACL_ACCESS = b"system.posix_acl_access"
ACL_DEFAULT = b"system.posix_acl_default"
FLAG_OF = {
    CAPABILITY: HAS_CAPABILITY,
    ACL_ACCESS: HAS_ACL,
    ACL_DEFAULT: HAS_DEFAULT_ACL,
}
HAS_ANY = HAS_XATTR | HAS_ACL | HAS_DEFAULT_ACL
NAMESPACES = (b"user.", b"trusted.", b"security.", ACL_ACCESS, ACL_DEFAULT, CACHE_XATTR)


def surely_absent(attr: Attr, name: bytes) -> bool:
    flag = FLAG_OF.get(name)
    if flag is not None:
        return not attr.flags & flag
    return not attr.flags & HAS_ANY


class Xattrs:
    def __init__(self, mounted: Mounted) -> None:
        self._m = mounted

    async def get(self, node: Node, name: bytes) -> bytes:
        attr = self._m.known_attr(node) or await self._m.fetch(node)
        if surely_absent(attr, name):
            raise FsError(Code.NO_XATTR)
        outcome = await self._m.ask(self._m.meta.getxattr(node.ref, name))
        return outcome.data

    async def names(self, node: Node, uid: int) -> list[bytes]:
        """Of trusted ones only root hears, as of every file system."""
        attr = self._m.known_attr(node) or await self._m.fetch(node)
        if not attr.flags & HAS_ANY:
            return []
        outcome = await self._m.ask(self._m.meta.listxattr(node.ref))
        hidden = b"trusted." if uid else b"\0"
        names = outcome.data.split(b"\0")
        return [name for name in names if name and not name.startswith(hidden)]

    async def set(self, node: Node, name: bytes, value: bytes, caller: Caller) -> None:
        _check(name, value)
        attr = await self._m.attr(node)
        if name in (ACL_ACCESS, ACL_DEFAULT) and attr.is_symlink:
            raise FsError(Code.NOT_SUPPORTED, "a symbolic link has no ACL")
        with self._m.changing(node):
            await self._m.ask(self._m.meta.setxattr(node.ref, name, value, caller=caller))
            if name == ACL_ACCESS:
                await self._drop_setgid(node, attr, caller)
        self._m.cache.drop_attr(node)
        node.packed = None

    async def remove(self, node: Node, name: bytes, caller: Caller) -> None:
        with self._m.changing(node):
            await self._m.ask(self._m.meta.removexattr(node.ref, name, caller=caller))
        self._m.cache.drop_attr(node)
        node.packed = None

    async def _drop_setgid(self, node: Node, attr: Attr, caller: Caller) -> None:
        """Who is not in the file's group loses its setgid bit by setting an ACL, as by chmod. The
        kernel leaves that to us."""
        if not attr.mode & stat.S_ISGID or caller.uid == 0 or caller.in_group(attr.gid):
            return
        now = await self._m.fetch(node)
        mode = stat.S_IMODE(now.mode) & ~stat.S_ISGID
        await self._m.ask(self._m.meta.setattr(node.ref, SET_MODE, mode=mode, caller=caller))


def _check(name: bytes, value: bytes) -> None:
    if not name.startswith(NAMESPACES):
        raise FsError(Code.NOT_SUPPORTED, "a namespace of extended attributes we do not have")
    if len(name) > XATTR_NAME_BYTES_MAX:
        raise FsError(Code.INVALID, f"an attribute name of {len(name)} bytes")
    if len(value) > XATTR_VALUE_BYTES_MAX:
        raise FsError(Code.XATTR_TOO_BIG, f"{len(value)} bytes")
