"""A tree of the file system out to a local one: what `importing` does, backwards.

Listings bring small contents along; files of up to a message are read many at a time, larger ones
piece by piece. Directories get their modes and times at the end, deepest first, because filling
them changes both.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from typing import TYPE_CHECKING

from superfs.client.data import Where
from superfs.client.importing import OF_ONE_DIRECTORY
from superfs.client.opening import open_file, read_bytes
from superfs.client.resolve import ref_of, resolve
from superfs.core.attrs import Flag
from superfs.core.errors import Code, FsError
from superfs.core.limits import INLINE_BYTES_MAX, MESSAGE_DATA_BYTES_MAX
from superfs.core.namespace.outcome import Entry
from superfs.rpc.pending import Crew

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from superfs.client.paths import Paths
    from superfs.client.progress import Reporter
    from superfs.client.resolve import AnyPath
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Ref

    Read = Callable[[int, int], Coroutine[Any, Any, bytes]]

DIRECTORIES_AT_ONCE = 16
PORTION_FILES = 512
PORTION_BYTES = 4 * MESSAGE_DATA_BYTES_MAX
LARGE_BYTES = MESSAGE_DATA_BYTES_MAX
PIECE_BYTES = 4 * MESSAGE_DATA_BYTES_MAX
_LABELS = Flag.HAS_XATTR | Flag.HAS_ACL | Flag.HAS_DEFAULT_ACL | Flag.HAS_CAPABILITY


class Export:
    def __init__(self, paths: Paths, reporter: Reporter) -> None:
        self._paths = paths
        self._meta = paths.meta
        self._data = paths.connection.data
        self._reporter = reporter
        self._progress = reporter.progress
        self._keeps_owner = os.geteuid() == 0
        self._queue: deque[tuple[Ref, bytes, bytes]] = deque()  # directory, its path, local path
        self._links: dict[int, bytes] = {}
        self._finished: list[tuple[bytes, Attr]] = []

    async def run(self, source: AnyPath, target: bytes) -> None:
        found = await resolve(self._meta, source, want_inline=True)
        assert found.attr is not None
        path = os.fsencode(source)
        if not found.attr.is_dir:
            if os.path.isdir(target):  # noqa: ASYNC240 - driven by a thread
                target = os.path.join(target, found.name)
            inline = found.data if found.attr.is_inline else None
            entry = Entry(found.name, attr=found.attr, inline=inline)
            await self._portion([(entry, path, target)])
            return
        os.makedirs(target, exist_ok=True)
        self._queue.append((found.ref, path, target))
        crew: Crew[None] = Crew()
        try:
            while self._queue or len(crew):
                while self._queue and len(crew) < DIRECTORIES_AT_ONCE:
                    crew.start(self._directory(*self._queue.pop()))
                _, _, error = await crew.next_done()
                if error is not None:
                    raise error
        finally:
            crew.close()
        for local, attr in sorted(self._finished, key=lambda pair: -pair[0].count(b"/")):
            self._set_attributes(local, attr)

    async def _directory(self, directory: Ref, path: bytes, local: bytes) -> None:
        self._reporter.report(path)
        after = b""
        while True:
            try:
                outcome = await self._meta.read_dir(
                    directory, after=after, limit=PORTION_FILES, inline_max=INLINE_BYTES_MAX
                )
            except FsError as error:
                if error.code not in OF_ONE_DIRECTORY:
                    raise
                self._progress.failed(path, error)
                return
            await self._entries(outcome.entries, path, local)
            if not outcome.more or not outcome.entries:
                break
            after = outcome.entries[-1].name
        attr = outcome.dirs[0]
        await self._copy_xattrs([(local, attr)])
        self._finished.append((local, attr))
        self._progress.directories += 1
        self._reporter.report(path)

    async def _entries(self, entries: list[Entry], path: bytes, local: bytes) -> None:
        portion: list[tuple[Entry, bytes, bytes]] = []
        size = 0
        for entry in entries:
            attr, name = entry.attr, entry.name
            # A name decides where we write: what a local directory cannot hold is not believed.
            if attr is None or b"/" in name or b"\0" in name or name in (b"", b".", b".."):
                self._progress.failed(os.path.join(path, name), "not a name")
                continue
            here, there = os.path.join(path, name), os.path.join(local, name)
            if attr.is_dir:
                self._make_directory(attr, here, there)
                continue
            portion.append((entry, here, there))
            size += min(attr.size, LARGE_BYTES) if attr.is_regular else 0
            if size >= PORTION_BYTES:
                await self._portion(portion)
                portion, size = [], 0
        if portion:
            await self._portion(portion)

    def _make_directory(self, attr: Attr, path: bytes, local: bytes) -> None:
        try:
            if not (os.path.isdir(local) and not os.path.islink(local)):
                os.mkdir(local, 0o700)
            self._queue.append((ref_of(attr), path, local))
        except OSError as error:
            self._progress.failed(path, error)

    # ---- files

    async def _portion(self, portion: list[tuple[Entry, bytes, bytes]]) -> None:
        contents = await self._small_contents(portion)
        labelled: list[tuple[bytes, Attr]] = []
        for index, (entry, path, local) in enumerate(portion):
            attr = entry.attr
            assert attr is not None
            try:
                if self._is_linked(attr, local):
                    continue
                await self._file(entry, attr, contents.get(index), path, local)
                self._progress.files += 1
                self._progress.bytes_done += attr.size if attr.is_regular else 0
                labelled.append((local, attr))
                if not attr.is_symlink or self._keeps_owner:
                    self._set_attributes(local, attr)
            except (OSError, FsError) as error:
                self._progress.failed(path, error)
        await self._copy_xattrs(labelled)
        if portion:
            self._reporter.report(portion[-1][1])

    async def _small_contents(
        self, portion: list[tuple[Entry, bytes, bytes]]
    ) -> dict[int, bytes | FsError]:
        """Of files on data daemons that fit a message, by place."""
        wanted = [
            (index, entry.attr)
            for index, (entry, _, _) in enumerate(portion)
            if entry.attr is not None
            and entry.attr.is_regular
            and not entry.attr.is_inline
            and entry.attr.size <= LARGE_BYTES
            and self._paths.connection.capability
        ]
        read = await self._data.read_many([(Where.of(attr), attr.size) for _, attr in wanted])
        return {index: data for (index, _), data in zip(wanted, read, strict=True)}

    def _is_linked(self, attr: Attr, local: bytes) -> bool:
        """Whether this was a further name of an inode that is here already."""
        if attr.nlink < 2:
            return False
        first = self._links.setdefault(attr.ino, local)
        if first == local:
            return False
        _clear(local)
        os.link(first, local, follow_symlinks=False)
        self._progress.files += 1
        return True

    async def _file(
        self,
        entry: Entry,
        attr: Attr,
        contents: bytes | FsError | None,
        path: bytes,
        local: bytes,
    ) -> None:
        _clear(local)
        kind = stat.S_IFMT(attr.mode)
        if kind == stat.S_IFLNK:
            target = entry.inline
            os.symlink(await self._paths.readlink(path) if target is None else target, local)
        elif kind != stat.S_IFREG:
            os.mknod(local, attr.mode, attr.rdev)
        elif isinstance(contents, FsError) and contents.code is not Code.STALE_DATA:
            raise contents
        elif isinstance(contents, bytes):
            _write_small(local, contents)
        elif entry.inline is not None and attr.is_inline and attr.size <= LARGE_BYTES:
            _write_small(local, entry.inline.ljust(attr.size, b"\0"))
        elif attr.size <= LARGE_BYTES:
            _write_small(local, await read_bytes(self._paths, path))
        else:
            await self._stream(path, local)

    async def _stream(self, path: bytes, local: bytes) -> None:
        handle = await open_file(self._paths, path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fd = os.open(local, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                await self._copy_pieces(handle.inode.read, handle.inode.size, fd)
            finally:
                os.close(fd)
        finally:
            await handle.close()

    async def _copy_pieces(self, read: Read, size: int, fd: int) -> None:
        zeros = bytes(PIECE_BYTES)
        position = 0
        while position < size:
            data = await read(position, min(PIECE_BYTES, size - position))
            if not data:
                break  # it has become shorter
            if data != zeros[: len(data)]:  # holes stay holes
                os.pwrite(fd, data, position)
            position += len(data)
        os.ftruncate(fd, position)

    # ---- attributes

    def _set_attributes(self, local: bytes, attr: Attr) -> None:
        try:
            if self._keeps_owner:
                os.chown(local, attr.uid, attr.gid, follow_symlinks=False)
            if not attr.is_symlink:
                os.chmod(local, stat.S_IMODE(attr.mode))
            os.utime(local, ns=(attr.atime_ns, attr.mtime_ns), follow_symlinks=False)
        except OSError as error:
            self._progress.failed(local, error)

    async def _copy_xattrs(self, copied: list[tuple[bytes, Attr]]) -> None:
        for local, attr in copied:
            if not attr.flags & _LABELS:
                continue
            names = (await self._meta.listxattr(ref_of(attr))).data.split(b"\0")
            for name in filter(None, names):
                try:
                    value = (await self._meta.getxattr(ref_of(attr), name)).data
                    os.setxattr(local, name, value, follow_symlinks=False)
                except FsError as error:
                    if error.code is not Code.NO_XATTR:  # removed meanwhile
                        self._progress.failed(local, error)
                except OSError as error:
                    self._progress.failed(local, error)


def _clear(local: bytes) -> None:
    try:
        os.unlink(local)
    except FileNotFoundError:
        return


def _write_small(local: bytes, data: bytes) -> None:
    fd = os.open(local, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)
