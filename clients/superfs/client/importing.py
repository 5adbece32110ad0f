"""A local tree into the file system: modes, times, owners, links, special files, xattrs, ACLs.

Each directory is one coroutine: it reads its files in portions, makes them with their contents in
few operations, makes its subdirectories, and sets its own attributes last. Several directories
are on their way at once; memory is bounded by their number times a portion.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from superfs.client import ops
from superfs.client.creating import FileSpec, create_files, fill, new_attr, place_data
from superfs.client.data import Where
from superfs.client.localfiles import SMALL_BYTES_MAX, data_pieces, data_ranges, read_small, xattrs
from superfs.client.resolve import ref_of, resolve
from superfs.client.started import check
from superfs.core.attrs import Flag, Set
from superfs.core.errors import Code, FsError
from superfs.core.limits import MESSAGE_DATA_BYTES_MAX
from superfs.core.namespace.acl import ACCESS_XATTR, DEFAULT_XATTR
from superfs.rpc.pending import Crew

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.client.paths import Paths
    from superfs.client.progress import Reporter
    from superfs.client.resolve import AnyPath
    from superfs.client.wire import Reply
    from superfs.core.attrs import Attr
    from superfs.core.namespace.outcome import Entry
    from superfs.core.namespace.txn import Ref
    from superfs.rpc.pending import Pending

DIRECTORIES_AT_ONCE = 16
PORTION_FILES = 512
PORTION_BYTES = 4 * MESSAGE_DATA_BYTES_MAX
PIECES_AT_ONCE = 8
ACLS = ((ACCESS_XATTR, Flag.HAS_ACL), (DEFAULT_XATTR, Flag.HAS_DEFAULT_ACL))
OF_ONE_DIRECTORY = frozenset(
    {Code.ACCESS, Code.NOT_PERMITTED, Code.NOT_FOUND, Code.NOT_DIRECTORY, Code.STALE}
)
"""What goes wrong with a directory that is not ours to write, or that somebody has removed
meanwhile. The others are copied all the same."""


@dataclass(slots=True)
class _Local:
    """One entry of a local directory that is to be made."""

    path: bytes
    stat: os.stat_result
    spec: FileSpec


@dataclass(slots=True)
class _Links:
    """A local inode with several names: the one that was made, and where the others go."""

    first: Ref | None = None
    others: list[tuple[Ref, bytes, bytes]] = field(default_factory=list)  # parent, name, path


class Import:
    def __init__(
        self, paths: Paths, reporter: Reporter, exclude: frozenset[bytes] = frozenset()
    ) -> None:
        """`exclude`: names that are left out, with what is below them, wherever they are."""
        self._exclude = exclude
        self._paths = paths
        self._meta = paths.meta
        self._connection = paths.connection
        self._reporter = reporter
        self._progress = reporter.progress
        self._keeps_owner = paths.connection.caller.uid == 0
        self._queue: deque[tuple[bytes, Ref]] = deque()
        self._links: dict[tuple[int, int], _Links] = {}
        self._touched: dict[Ref, bytes] = {}  # directories that deferred links will change

    async def run(self, source: bytes, target: AnyPath) -> None:
        if not stat.S_ISDIR(os.lstat(source).st_mode):
            await self._one_file(source, target)
            return
        await self._paths.makedirs(target, exist_ok=True)
        found = await self._paths.find(target)
        self._queue.append((source, found.ref))
        crew: Crew[None] = Crew()
        try:
            while self._queue or len(crew):
                while self._queue and len(crew) < DIRECTORIES_AT_ONCE:
                    # Newest first: the queue stays as short as the tree is deep, nearly.
                    crew.start(self._directory(*self._queue.pop()))
                _, _, error = await crew.next_done()
                if error is not None:
                    raise error
        finally:
            crew.close()
        await self._deferred_links()

    async def _one_file(self, source: bytes, target: AnyPath) -> None:
        """`target` is its name, or the directory that it goes to."""
        found = await resolve(self._meta, target, missing_ok=True)
        parent, name = found.parent, found.name
        if found.attr is not None and found.attr.is_dir:
            parent, name = found.ref, os.path.basename(source)
        await self._portion(parent, [(name, source, os.lstat(source))])

    # ---- one directory

    async def _directory(self, path: bytes, directory: Ref) -> None:
        self._reporter.report(path)
        subdirectories: list[tuple[bytes, bytes]] = []
        try:
            for portion in self._portions(path, subdirectories):
                await self._portion(directory, portion)
            if subdirectories:
                await self._make_directories(directory, subdirectories)
            await self._finish_directory(path, directory)
        except OSError as error:
            self._progress.failed(path, error)
        except FsError as error:
            if error.code not in OF_ONE_DIRECTORY:
                raise
            self._progress.failed(path, error)
        self._progress.directories += 1
        self._reporter.report(path)

    def _portions(
        self, path: bytes, subdirectories: list[tuple[bytes, bytes]]
    ) -> Iterator[list[tuple[bytes, bytes, os.stat_result]]]:
        portion: list[tuple[bytes, bytes, os.stat_result]] = []
        size = 0
        with os.scandir(path) as listing:
            for entry in listing:
                if entry.name in self._exclude:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    subdirectories.append((entry.name, entry.path))
                    continue
                try:
                    found = entry.stat(follow_symlinks=False)
                except OSError as error:
                    self._progress.failed(entry.path, error)
                    continue
                portion.append((entry.name, entry.path, found))
                size += min(found.st_size, SMALL_BYTES_MAX)
                if len(portion) >= PORTION_FILES or size >= PORTION_BYTES:
                    yield portion
                    portion, size = [], 0
        if portion:
            yield portion

    async def _make_directories(
        self, parent: Ref, subdirectories: list[tuple[bytes, bytes]]
    ) -> None:
        """All in one message. Modes and owners come when they are filled."""
        calls = [ops.mkdir(parent, name, stat.S_IFDIR | 0o700) for name, _ in subdirectories]
        for start in range(0, len(calls), PORTION_FILES):
            part = subdirectories[start : start + PORTION_FILES]
            made = await self._meta.run_many(calls[start : start + PORTION_FILES])
            for (name, path), outcome in zip(part, made, strict=True):
                try:
                    attr = await self._existing(parent, name, outcome)
                except FsError as error:
                    self._progress.failed(path, error)
                    continue
                self._queue.append((path, ref_of(attr)))

    async def _existing(self, parent: Ref, name: bytes, outcome: object) -> Attr:
        """The directory that was made, or that was there."""
        if isinstance(outcome, FsError):
            if outcome.code is not Code.EXISTS:
                raise outcome
            outcome = await self._meta.lookup(parent, name)
        attr: Attr = outcome.attr  # type: ignore[attr-defined]
        if not attr.is_dir:
            raise FsError(Code.NOT_DIRECTORY)
        return attr

    async def _finish_directory(self, path: bytes, directory: Ref) -> None:
        found = os.stat(path, follow_symlinks=False)
        mask = Set.MODE | Set.ATIME | Set.MTIME
        if self._keeps_owner:
            mask |= Set.UID | Set.GID
        outcome = await self._meta.setattr(
            directory,
            mask,
            mode=stat.S_IMODE(found.st_mode),
            uid=found.st_uid,
            gid=found.st_gid,
            atime_ns=found.st_atime_ns,
            mtime_ns=found.st_mtime_ns,
        )
        assert outcome.attr is not None
        await self._copy_xattrs([(path, found, outcome.attr)])

    # ---- its files

    async def _portion(
        self, parent: Ref, portion: list[tuple[bytes, bytes, os.stat_result]]
    ) -> None:
        made: list[_Local] = []
        large: list[_Local] = []
        for name, path, found in portion:
            if found.st_nlink > 1 and self._later_link(parent, name, path, found):
                continue
            local = _Local(path, found, FileSpec(name, self._attr(found)))
            try:
                if stat.S_ISLNK(found.st_mode):
                    local.spec.data = os.readlink(path)
                elif stat.S_ISREG(found.st_mode) and found.st_size > SMALL_BYTES_MAX:
                    large.append(local)
                    continue
                elif stat.S_ISREG(found.st_mode):
                    local.spec.data = read_small(path)
                    local.spec.attr.size = len(local.spec.data)
            except OSError as error:
                self._progress.failed(path, error)
                self._forget_link(found)
                continue
            made.append(local)
        if large and self._connection.capability:
            made += await self._write_large(parent, large)
            large = []
        specs = [local.spec for local in made]
        entries = await create_files(self._connection, parent, specs, replace=True)
        await self._made(made, entries)
        for local in large:
            await self._one_large(parent, local)

    def _attr(self, found: os.stat_result) -> Attr:
        caller = self._connection.caller
        uid, gid = (found.st_uid, found.st_gid) if self._keeps_owner else (caller.uid, caller.gid)
        attr = new_attr(found.st_mode, uid, gid)
        attr.size = found.st_size if stat.S_ISREG(found.st_mode) else 0
        attr.atime_ns, attr.mtime_ns = found.st_atime_ns, found.st_mtime_ns
        if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
            attr.rdev = found.st_rdev
        return attr

    async def _made(self, made: list[_Local], entries: list[Entry]) -> None:
        labelled: list[tuple[bytes, os.stat_result, Attr]] = []
        for local, entry in zip(made, entries, strict=True):
            if entry.code is not Code.OK or entry.attr is None:
                self._progress.failed(local.path, FsError(entry.code))
                self._forget_link(local.stat)
                continue
            ref = ref_of(entry.attr)
            self._progress.files += 1
            self._progress.bytes_done += local.spec.attr.size
            if local.stat.st_nlink > 1:
                self._links[_identity(local.stat)].first = ref
            labelled.append((local.path, local.stat, entry.attr))
        await self._copy_xattrs(labelled)
        if made:
            self._reporter.report(made[-1].path)

    # ---- large files

    async def _write_large(self, parent: Ref, large: list[_Local]) -> list[_Local]:
        """Those that could be read, their data at the data daemons."""
        await place_data(self._connection, parent, [local.spec for local in large])
        written = []
        for local in large:
            try:
                await self._stream(local)
                written.append(local)
            except OSError as error:
                self._progress.failed(local.path, error)
                self._forget_link(local.stat)
        return written

    async def _one_large(self, parent: Ref, local: _Local) -> None:
        """Of a user's session, which may write only what it has opened."""
        empty = FileSpec(local.spec.name, local.spec.attr.copy())
        empty.attr.size = 0
        empty.attr.mode |= stat.S_IWUSR
        entries = await create_files(self._connection, parent, [empty], replace=True)
        try:
            if entries[0].code is Code.OK:
                await fill(self._connection, entries[0], local.spec.attr, data_pieces(local.path))
        except (OSError, FsError) as error:
            self._progress.failed(local.path, error)
            return
        await self._made([local], entries)

    async def _stream(self, local: _Local) -> None:
        where = Where.of(local.spec.attr)
        answers: deque[Pending[Reply]] = deque()
        with open(local.path, "rb", buffering=0) as file:  # noqa: ASYNC230 - driven by a thread
            size = os.fstat(file.fileno()).st_size
            for offset, end in data_ranges(file.fileno(), size):
                position = offset
                while position < end:
                    length = min(MESSAGE_DATA_BYTES_MAX, end - position)
                    data = os.pread(file.fileno(), length, position)
                    if not data:
                        break
                    placed = self._connection.data.placed(where, position, data)
                    part = data if placed is None else placed
                    answers.extend(await self._connection.data.start_write(where, position, part))
                    position += len(data)
                    while len(answers) > PIECES_AT_ONCE:
                        check(await answers.popleft())
        for answer in answers:
            check(await answer)
        local.spec.attr.size = size

    # ---- hard links

    def _later_link(self, parent: Ref, name: bytes, path: bytes, found: os.stat_result) -> bool:
        """Whether another name of this inode is made already, or about to be."""
        key = _identity(found)
        known = self._links.get(key)
        if known is None:
            self._links[key] = _Links()
            return False
        known.others.append((parent, name, path))
        self._touched[parent] = os.path.dirname(path)
        return True

    def _forget_link(self, found: os.stat_result) -> None:
        if found.st_nlink > 1:
            self._links[_identity(found)].first = None

    async def _deferred_links(self) -> None:
        for links in self._links.values():
            for parent, name, path in links.others:
                try:
                    await self._link(links.first, parent, name)
                    self._progress.files += 1
                except FsError as error:
                    self._progress.failed(path, error)
        for directory, path in self._touched.items():
            # Gone meanwhile, or told already: its times do not matter.
            with contextlib.suppress(OSError, FsError):
                await self._finish_directory(path, directory)

    async def _link(self, first: Ref | None, parent: Ref, name: bytes) -> None:
        if first is None:
            raise FsError(Code.NOT_FOUND, "its first name could not be copied")
        try:
            await self._meta.link(first, parent, name)
        except FsError as error:
            if error.code is not Code.EXISTS:
                raise
            there = await self._meta.lookup(parent, name)
            if there.attr is not None and there.attr.ino == first.ino:
                return
            await self._meta.unlink(parent, name)
            await self._meta.link(first, parent, name)

    # ---- extended attributes and ACLs

    async def _copy_xattrs(self, made: list[tuple[bytes, os.stat_result, Attr]]) -> None:
        """And undoes what a default ACL of the directory has made of mode and ACLs: the copy is
        what the source is."""
        calls: list[ops.Call] = []
        owners: list[bytes] = []
        for path, found, attr in made:
            ref, wanted, mode = ref_of(attr), dict(xattrs(path)), stat.S_IMODE(found.st_mode)
            inherited = [n for n, flag in ACLS if attr.flags & flag and n not in wanted]
            new = [ops.removexattr(ref, name) for name in inherited]
            if stat.S_IMODE(attr.mode) != mode and not attr.is_symlink:
                new.append(ops.setattr(ref, Set.MODE, mode=mode))
            new += [ops.setxattr(ref, name, value) for name, value in wanted.items()]
            calls += new
            owners += [path] * len(new)
        for start in range(0, len(calls), PORTION_FILES):
            outcomes = await self._meta.run_many(calls[start : start + PORTION_FILES])
            for path, outcome in zip(owners[start:], outcomes, strict=False):
                if isinstance(outcome, FsError):
                    self._progress.failed(path, outcome)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
