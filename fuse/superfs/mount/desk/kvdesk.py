"""What the kernel asks of `.kv` (superfs.mount.kvtree), which no other part of the mount knows: it
is answered here, in full. Nothing can be changed there.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.ids import is_virtual
from superfs.mount.desk import protocol
from superfs.mount.desk.protocol import (
    FORGET_IN,
    GETXATTR_IN,
    HANDLE_IN,
    NAMES_AT,
    OPEN_IN,
    READ_IN,
    RENAME_IN,
    Op,
)
from superfs.mount.kvtree import DIRECTORY_MODE, FILE_MODE, NAME

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from superfs.mount.desk.waits import Waits
    from superfs.mount.kvtree import KvHandle, KvNode, KvTree

ATTR_S = 1.0
TWO_PLACES = frozenset({Op.RENAME, Op.RENAME2, Op.LINK})
CHANGES = frozenset({
    Op.SETATTR, Op.SYMLINK, Op.MKNOD, Op.MKDIR, Op.UNLINK, Op.RMDIR, Op.RENAME, Op.RENAME2,
    Op.LINK, Op.CREATE, Op.SETXATTR, Op.REMOVEXATTR,
})  # fmt: skip
NOTHING_TO_DO = frozenset({Op.FLUSH, Op.FSYNC, Op.FSYNCDIR})
KERNEL_ROOT = 1
DOT_COOKIES = 2
Parts = tuple[bytes, ...]


class KvDesk:
    def __init__(
        self, tree: KvTree, start: Callable[[int, Awaitable[Parts]], None], waits: Waits
    ) -> None:
        """`start`: the answer comes later."""
        self.tree = tree
        self._start = start
        self._waits = waits

    def claims(self, opcode: int, number: int, body: memoryview) -> bool:
        """Of a request about one of ours or the root, or about two places. Statistics are the file
        system's."""
        if opcode == Op.STATFS:
            return False
        if is_virtual(number):
            return True
        if opcode in TWO_PLACES:
            other = RENAME_IN.unpack_from(body)[0]  # a link: of the file
            if is_virtual(other):
                return True
            if other == KERNEL_ROOT and opcode != Op.LINK and bytes(body[-5:]) == b"\0.kv\0":
                return True
        at = NAMES_AT.get(opcode)
        return (
            number == KERNEL_ROOT
            and at is not None
            and bytes(body[at : at + len(NAME) + 1]) == NAME + b"\0"
        )

    def serve(self, unique: int, opcode: int, number: int, body: memoryview) -> bytes:
        """The answer; empty: it comes later, or nobody waits for one."""
        tree = self.tree
        if opcode == Op.FORGET:
            tree.forget([(number, FORGET_IN.unpack_from(body)[0])])
            return b""
        if opcode in TWO_PLACES and not (
            is_virtual(number) and is_virtual(RENAME_IN.unpack_from(body)[0])
        ):
            raise FsError(Code.CROSS_DEVICE)
        if opcode in CHANGES:
            raise FsError(Code.READ_ONLY, "what is in .kv cannot be changed")
        if opcode == Op.LOOKUP and number == KERNEL_ROOT:
            return self._found(unique, tree.top)
        if opcode in NOTHING_TO_DO:
            return protocol.done(unique)
        if opcode == Op.GETATTR:
            return protocol.attributes(unique, ATTR_S, self._packed(tree.node(number)))
        if opcode == Op.GETXATTR:
            return protocol.error(unique, errno.ENODATA)
        if opcode == Op.LISTXATTR:
            room = GETXATTR_IN.unpack_from(body)[0]
            return protocol.done(unique) if room else protocol.size(unique, 0)
        if opcode == Op.OPENDIR:
            return protocol.opened(unique, tree.opened(tree.node(number)), 0)
        if opcode in (Op.RELEASE, Op.RELEASEDIR):
            tree.release(HANDLE_IN.unpack_from(body)[0])
            return protocol.done(unique)
        return self._later(unique, opcode, number, body)

    def _later(self, unique: int, opcode: int, number: int, body: memoryview) -> bytes:
        if opcode == Op.LOOKUP:
            self._start(unique, self._lookup(unique, self.tree.node(number), bytes(body[:-1])))
        elif opcode == Op.OPEN:
            self._start(unique, self._open(unique, self.tree.node(number), body))
        elif opcode in (Op.READ, Op.READDIR, Op.READDIRPLUS):
            fh, offset, size = READ_IN.unpack_from(body)
            handle = self.tree.handles.get(fh)
            if opcode == Op.READ:
                self._start(unique, self._read(unique, handle, offset, size))
            else:
                plus = opcode == Op.READDIRPLUS
                self._start(unique, self._readdir(unique, handle, offset, size, plus=plus))
        else:
            return protocol.error(unique, errno.ENOSYS)
        return b""

    # ---- names

    def _packed(self, node: KvNode) -> bytes:
        return protocol.pack_attr(node.number, self.tree.attr(node), 0)

    def _found(self, unique: int, node: KvNode) -> bytes:
        self.tree.count(node)
        return protocol.entry(unique, node.number, 1, 0, ATTR_S, self._packed(node))

    async def _lookup(self, unique: int, parent: KvNode, name: bytes) -> Parts:
        node = await self.tree.find(parent, name)
        return (self._found(unique, node),) if unique in self._waits else ()

    # ---- directories

    async def _readdir(
        self, unique: int, handle: KvHandle, cookie: int, room: int, *, plus: bool
    ) -> Parts:
        make = protocol.bare_direntplus if plus else protocol.dirent
        found: list[bytes] = []
        node = handle.node
        for name in (b".", b"..")[cookie:]:
            number = node.number if name == b"." else KERNEL_ROOT
            found.append(make(name, cookie + len(found) + 1, number, DIRECTORY_MODE))
        room -= sum(map(len, found))
        after = max(cookie - DOT_COOKIES, 0)
        mode = FILE_MODE if len(node.path) == 2 else DIRECTORY_MODE
        ahead = True
        while ahead:
            entries, behind = await self.tree.entries(handle, after)
            for name, number, place in entries:
                entry = make(name, place + DOT_COOKIES, number, mode)
                room -= len(entry)
                if room < 0:
                    break
                found.append(entry)
            ahead = not found and behind > 0  # a page may be empty, and others follow
            after = behind
        return (protocol.data(unique, b"".join(found)),)

    # ---- files

    async def _open(self, unique: int, node: KvNode, body: memoryview) -> Parts:
        flags = OPEN_IN.unpack_from(body)[0]
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            raise FsError(Code.READ_ONLY, "what is in .kv cannot be changed")
        data = await self.tree.fetch(node)
        if data is None:
            raise FsError(Code.STALE, "it was evicted")  # the kernel looks its name up again
        if unique not in self._waits:
            return ()
        return (protocol.opened(unique, self.tree.opened(node), 0),)

    async def _read(self, unique: int, handle: KvHandle, offset: int, size: int) -> Parts:
        data = await self.tree.fetch(handle.node)
        if data is None:
            raise FsError(Code.STALE, "it was evicted")
        return (protocol.data(unique, data[offset : offset + size]),)
