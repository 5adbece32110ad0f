"""What a path can be asked and told: one coroutine a system call. Raises FsError.

`FileSystem` and `AsyncFileSystem` are two faces of this.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, cast

from superfs.client.handles import OpenFiles
from superfs.client.resolve import (
    AnyPath,
    Target,
    ref_of,
    resolve,
    resolve_deepest,
    resolve_parent,
)
from superfs.core.attrs import Attr, Set
from superfs.core.errors import Code, FsError
from superfs.core.namespace.access import has_access
from superfs.core.namespace.acl import ACCESS_XATTR

if TYPE_CHECKING:
    from superfs.client.connection import Connection
    from superfs.core.namespace.outcome import Entry, FsStat
    from superfs.core.namespace.txn import Ref, Txn

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
XATTR_CREATE = 1
XATTR_REPLACE = 2


class Paths:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.meta = connection.meta
        self.files = OpenFiles(connection)

    async def find(self, path: AnyPath, *, follow: bool = True) -> Target:
        """Something that exists, with its attributes as this process sees them."""
        target = await resolve(self.meta, path, follow=follow)
        assert target.attr is not None
        target.attr = self.files.view(target.attr)
        return target

    # ---- asking

    async def stat(self, path: AnyPath, *, follow: bool = True) -> Attr:
        target = await self.find(path, follow=follow)
        assert target.attr is not None
        return target.attr

    async def exists(self, path: AnyPath, *, follow: bool = True) -> bool:
        try:
            await self.find(path, follow=follow)
        except FsError as error:
            if error.code in (Code.NOT_FOUND, Code.NOT_DIRECTORY, Code.LOOP):
                return False
            raise
        return True

    async def access(self, path: AnyPath, mode: int) -> bool:
        """os.access for this process's user: by mode bits and ACL."""
        try:
            target = await self.find(path)
        except FsError as error:
            if error.code in (Code.NOT_FOUND, Code.NOT_DIRECTORY, Code.LOOP, Code.ACCESS):
                return False
            raise
        assert target.attr is not None
        acl: bytes | None = None
        try:
            acl = (await self.meta.getxattr(target.ref, ACCESS_XATTR)).data
        except FsError as error:
            if error.code not in (Code.NO_XATTR, Code.NOT_SUPPORTED):
                raise
        # The rule asks its transaction for one thing only.
        txn = cast("Txn", _OneXattr(acl))
        return has_access(txn, self.connection.caller, target.attr, mode & 7)

    async def entries(
        self, path: AnyPath, *, plus: bool = False, inline_max: int = 0
    ) -> list[Entry]:
        """The whole directory, in byte order of names."""
        target = await self.find(path)
        assert target.attr is not None
        if not target.attr.is_dir:
            raise FsError(Code.NOT_DIRECTORY)
        return await self.entries_of(target.ref, plus=plus, inline_max=inline_max)

    async def entries_of(
        self, directory: Ref, *, plus: bool = False, inline_max: int = 0
    ) -> list[Entry]:
        entries: list[Entry] = []
        after = b""
        while True:
            outcome = await self.meta.read_dir(
                directory, after=after, plus=plus, inline_max=inline_max
            )
            entries += outcome.entries
            if not outcome.more or not outcome.entries:
                return entries
            after = outcome.entries[-1].name

    async def readlink(self, path: AnyPath) -> bytes:
        target = await resolve(self.meta, path, follow=False, want_inline=True)
        assert target.attr is not None
        if not target.attr.is_symlink:
            raise FsError(Code.INVALID, "not a symlink")
        return target.data

    async def statvfs(self) -> FsStat:
        outcome = await self.meta.statfs()
        assert outcome.fs_stat is not None
        return outcome.fs_stat

    # ---- names

    async def mkdir(self, path: AnyPath, mode: int = 0o777) -> Attr:
        parent, name = await self._free_name(path, directory=True)
        outcome = await self.meta.mkdir(parent, name, stat.S_IFDIR | mode & 0o7777)
        assert outcome.attr is not None
        return outcome.attr

    async def makedirs(self, path: AnyPath, mode: int = 0o777, *, exist_ok: bool = False) -> None:
        """One round trip, and one for each directory that is missing."""
        found = await resolve_deepest(self.meta, path)
        if found is None:
            await self._make_each(path, mode, exist_ok=exist_ok)
            return
        attr, parent, missing = found
        if not missing and not (exist_ok and attr is not None and attr.is_dir):
            raise FsError(Code.EXISTS)
        for name in missing:
            last = name is missing[-1]
            kind = stat.S_IFDIR | (mode & 0o7777 if last else 0o777)
            try:
                made = await self.meta.mkdir(parent, name, kind)
            except FsError as error:
                # Somebody else was quicker: as good, but for the last one.
                if error.code is not Code.EXISTS or (last and not exist_ok):
                    raise
                made = await self.meta.lookup(parent, name)
            assert made.attr is not None
            parent = ref_of(made.attr)

    async def _make_each(self, path: AnyPath, mode: int, *, exist_ok: bool) -> None:
        """Along a path that goes up or through symlinks."""
        raw = os.fsencode(path).rstrip(b"/")
        missing: list[bytes] = []
        while raw and not await self.exists(raw):
            missing.append(raw)
            raw = os.path.dirname(raw).rstrip(b"/")
        if not missing:
            target = await self.find(path)
            assert target.attr is not None
            if not (exist_ok and target.attr.is_dir):
                raise FsError(Code.EXISTS)
            return
        for part in reversed(missing):
            try:
                await self.mkdir(part, mode if part is missing[0] else 0o777)
            except FsError as error:
                if error.code is not Code.EXISTS or (part is missing[0] and not exist_ok):
                    raise

    async def _free_name(self, path: AnyPath, *, directory: bool = False) -> tuple[Ref, bytes]:
        """For a new name. Where the path leads to the root, that exists."""
        try:
            return await resolve_parent(self.meta, path, directory=directory)
        except FsError as error:
            if error.code in (Code.BUSY_DIRECTORY, Code.NOT_EMPTY):
                raise FsError(Code.EXISTS, error.detail) from None
            raise

    async def rmdir(self, path: AnyPath) -> None:
        parent, name = await resolve_parent(self.meta, path, directory=True)
        await self.meta.rmdir(parent, name)

    async def unlink(self, path: AnyPath) -> None:
        parent, name = await resolve_parent(self.meta, path)
        await self.meta.unlink(parent, name)

    async def rename(self, source: AnyPath, target: AnyPath, flags: int = 0) -> None:
        old_dir, old_name = await resolve_parent(self.meta, source, directory=True)
        new_dir, new_name = await resolve_parent(self.meta, target, directory=True)
        await self.meta.rename(old_dir, old_name, new_dir, new_name, flags=flags)

    async def link(self, source: AnyPath, target: AnyPath, *, follow: bool = False) -> None:
        found = await self.find(source, follow=follow)
        parent, name = await self._free_name(target)
        await self.meta.link(found.ref, parent, name)

    async def symlink(self, contents: AnyPath, path: AnyPath) -> None:
        parent, name = await self._free_name(path)
        await self.meta.create(parent, name, stat.S_IFLNK | 0o777, target=os.fsencode(contents))

    async def mknod(self, path: AnyPath, mode: int = 0o600, device: int = 0) -> None:
        """The type bits of `mode` say what; none: a regular file."""
        parent, name = await self._free_name(path)
        if not stat.S_IFMT(mode):
            mode |= stat.S_IFREG
        await self.meta.create(parent, name, mode, rdev=device)

    # ---- attributes

    async def setattr(
        self,
        path: AnyPath,
        mask: int,
        *,
        follow: bool = True,
        **values: Any,  # noqa: ANN401 - mode, uid, gid, size, atime_ns, mtime_ns: as the verb
    ) -> None:
        """In order with what this process has written to the file and not published."""
        found = await self.find(path, follow=follow)
        assert found.attr is not None
        inode = self.files.find(found.attr)
        if inode is not None:
            await inode.setattr(mask, **values)
        else:
            await self.meta.setattr(found.ref, mask, **values)

    async def chmod(self, path: AnyPath, mode: int, *, follow: bool = True) -> None:
        await self.setattr(path, Set.MODE, follow=follow, mode=mode & 0o7777)

    async def chown(self, path: AnyPath, uid: int, gid: int, *, follow: bool = True) -> None:
        """-1 leaves one as it is."""
        mask = (Set.UID if uid != -1 else 0) | (Set.GID if gid != -1 else 0)
        await self.setattr(
            path, mask | Set.KILL_PRIV, follow=follow, uid=max(uid, 0), gid=max(gid, 0)
        )

    async def utime(
        self, path: AnyPath, ns: tuple[int, int] | None = None, *, follow: bool = True
    ) -> None:
        """(atime, mtime) in nanoseconds; None: now."""
        if ns is None:
            await self.setattr(path, Set.ATIME_NOW | Set.MTIME_NOW, follow=follow)
        else:
            await self.setattr(
                path, Set.ATIME | Set.MTIME, follow=follow, atime_ns=ns[0], mtime_ns=ns[1]
            )

    async def truncate(self, path: AnyPath, size: int) -> None:
        await self.setattr(path, Set.SIZE, size=size)

    # ---- extended attributes

    async def getxattr(self, path: AnyPath, name: bytes, *, follow: bool = True) -> bytes:
        found = await resolve(self.meta, path, follow=follow)
        return (await self.meta.getxattr(found.ref, name)).data

    async def listxattr(self, path: AnyPath, *, follow: bool = True) -> list[bytes]:
        found = await resolve(self.meta, path, follow=follow)
        data = (await self.meta.listxattr(found.ref)).data
        return [name for name in data.split(b"\0") if name]

    async def setxattr(
        self, path: AnyPath, name: bytes, value: bytes, flags: int = 0, *, follow: bool = True
    ) -> None:
        found = await resolve(self.meta, path, follow=follow)
        await self.meta.setxattr(found.ref, name, value, flags=flags)

    async def removexattr(self, path: AnyPath, name: bytes, *, follow: bool = True) -> None:
        found = await resolve(self.meta, path, follow=follow)
        await self.meta.removexattr(found.ref, name)


class _OneXattr:
    def __init__(self, value: bytes | None) -> None:
        self._value = value

    def get_xattr(self, *_key: Any) -> bytes | None:  # noqa: ANN401
        return self._value
