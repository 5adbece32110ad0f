"""open(2) and what one handle does: position, flags, appending. Raises FsError."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, TypeVar

from superfs.client.data import Where
from superfs.client.resolve import AnyPath, ref_of, resolve, resolve_parent
from superfs.core.attrs import Set
from superfs.core.errors import Code, FsError
from superfs.core.limits import INLINE_BYTES_MAX, MESSAGE_DATA_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from superfs.client.file import OpenInode
    from superfs.client.lent import Placing
    from superfs.client.paths import Paths
    from superfs.core.attrs import Attr

T = TypeVar("T")
CREATE_MODE = 0o666
REPLACED_TRIES = 16
"""A path that leads to another file each time is somebody else's error."""


class Handle:
    """One open(2) of a regular file."""

    def __init__(self, paths: Paths, inode: OpenInode, flags: int) -> None:
        self._paths = paths
        self.inode = inode
        self.flags = flags
        self.closed = False
        self.losses = inode.losses
        access = flags & os.O_ACCMODE
        self.readable = access in (os.O_RDONLY, os.O_RDWR)
        self.writable = access in (os.O_WRONLY, os.O_RDWR)

    async def read(self, offset: int, length: int) -> bytes:
        return await self.inode.read(offset, length)

    async def read_all(self, offset: int) -> bytes:
        """To the end."""
        return await self.inode.read(offset, max(0, await self.inode.end() - offset))

    async def write(
        self, offset: int, data: bytes | bytearray | memoryview, placing: Placing | None = None
    ) -> int:
        """The position behind the write, which O_APPEND moves to the end of the file. `placing`:
        of whoever may wait for a disk of this host."""
        with self.inode.telling(self):
            return await self._write(offset, data, placing)

    async def _write(
        self, offset: int, data: bytes | bytearray | memoryview, placing: Placing | None
    ) -> int:
        kill_priv = self._paths.connection.caller.uid != 0
        if self.flags & os.O_APPEND:
            offset = await self.inode.append_at(data, kill_priv=kill_priv)
        else:
            await self.inode.write(offset, data, kill_priv=kill_priv, placing=placing)
        if self.flags & (os.O_SYNC | os.O_DSYNC):
            await self.inode.fsync()
        return offset + len(data)

    async def truncate(self, size: int) -> None:
        await self.inode.truncate(size)

    async def flush(self) -> None:
        with self.inode.telling(self):
            await self.inode.flush()

    async def fsync(self) -> None:
        with self.inode.telling(self):
            await self.inode.fsync()

    async def close(self) -> None:
        """Once; the error is that of the flush."""
        if not self.closed:
            self.closed = True
            with self.inode.telling(self):
                await self._paths.files.close(self.inode)


async def _anew(attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """The file at a path may be replaced after it was found and before it is opened or read: then
    the path is looked up again."""
    for _ in range(REPLACED_TRIES):
        try:
            return await attempt()
        except FsError as error:
            if error.code not in (Code.STALE, Code.STALE_DATA):
                raise
    return await attempt()


async def open_file(paths: Paths, path: AnyPath, flags: int, mode: int = CREATE_MODE) -> Handle:
    return await _anew(lambda: _open_file(paths, path, flags, mode))


async def _open_file(paths: Paths, path: AnyPath, flags: int, mode: int) -> Handle:
    writes = flags & os.O_ACCMODE != os.O_RDONLY
    if flags & os.O_CREAT:
        attr, fresh, capability = await _create(paths, path, flags, mode)
    else:
        target = await resolve(paths.meta, path, follow=not flags & os.O_NOFOLLOW)
        assert target.attr is not None
        attr, fresh, capability = target.attr, False, b""
    _check_kind(attr, writes)
    if fresh:
        inode = paths.files.adopt(attr, inline=b"", capability=capability)
    else:
        if not writes and attr.chains and attr.size > MESSAGE_DATA_BYTES_MAX:
            with contextlib.suppress(FsError):  # a read will tell
                paths.connection.data.learn(Where.of(attr), 0)  # while metad opens it
        inode = await paths.files.open(attr, write=writes)
    handle = Handle(paths, inode, flags)
    if flags & os.O_TRUNC and writes and not fresh:
        try:
            await inode.setattr(Set.SIZE, size=0)
        except BaseException:
            await handle.close()
            raise
    return handle


def _check_kind(attr: Attr, writes: bool) -> None:
    if attr.is_dir:
        if writes:
            raise FsError(Code.IS_DIRECTORY)
        raise FsError(Code.IS_DIRECTORY, "list a directory with listdir or scandir")
    if attr.is_symlink:
        raise FsError(Code.LOOP, "a symlink, and it is not to be followed")
    if not attr.is_regular:
        raise FsError(Code.NOT_SUPPORTED, "special files are opened through a mount")


async def _create(paths: Paths, path: AnyPath, flags: int, mode: int) -> tuple[Attr, bool, bytes]:
    """(attributes, whether it is new and registered as open, then the right to its data)."""
    exclusive = bool(flags & os.O_EXCL)
    kind = stat.S_IFREG | mode & 0o7777
    parent, name = await resolve_parent(paths.meta, path)
    while True:
        outcome = await paths.meta.create(parent, name, kind, exclusive=exclusive, open=True)
        attr = outcome.attr
        assert attr is not None
        if outcome.number:
            return attr, True, outcome.capability
        # It was there. That the create has registered it is taken back: `open` will say it.
        await paths.meta.release([ref_of(attr)])
        if not attr.is_symlink or flags & os.O_NOFOLLOW:
            return attr, False, b""
        target = await resolve(paths.meta, path, missing_ok=True)
        if target.attr is not None:
            return target.attr, False, b""
        parent, name = target.parent, target.name


async def read_bytes(paths: Paths, path: AnyPath) -> bytes:
    """The whole file: one round trip where it is small."""
    return await _anew(lambda: _read_bytes(paths, path))


async def _read_bytes(paths: Paths, path: AnyPath) -> bytes:
    target = await resolve(paths.meta, path, want_inline=True)
    attr = target.attr
    assert attr is not None
    _check_kind(attr, writes=False)
    inode = paths.files.find(attr)
    if inode is not None:
        inode.observe(attr)
        return await inode.read(0, inode.size)
    if attr.is_inline:
        return target.data.ljust(attr.size, b"\0")
    if paths.connection.capability:
        return await paths.connection.data.read(Where.of(attr), 0, attr.size)
    handle = await open_file(paths, path, os.O_RDONLY)
    try:
        return await handle.read(0, handle.inode.size)
    finally:
        await handle.close()


async def write_bytes(
    paths: Paths, path: AnyPath, data: bytes | bytearray | memoryview, mode: int = CREATE_MODE
) -> None:
    """Creates the file or replaces its contents; visible when it returns."""
    if len(data) <= INLINE_BYTES_MAX:
        parent, name = await resolve_parent(paths.meta, path)
        outcome = await paths.meta.create(
            parent, name, stat.S_IFREG | mode & 0o7777, exclusive=False, inline=bytes(data)
        )
        if outcome.number:
            return
    handle = await open_file(paths, path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        await handle.write(0, data)
    finally:
        await handle.close()
