"""Checkpoints in directories: `ExtentIO` over POSIX calls, on any file system.

    DIR/NAME/manifest.json, DIR/NAME/r00000.data ...     a committed checkpoint
    DIR/.NAME.superfs-attempt-ID/                        one that is being written, or was given up

An attempt becomes a checkpoint by one rename of its directory. A rename to a directory that has
anything in it fails, so nothing that was committed is ever replaced.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from superfs.checkpoint import manifest as manifests
from superfs.checkpoint import steps
from superfs.checkpoint.extentio import Way
from superfs.checkpoint.limits import MIB
from superfs.checkpoint.residency import resident
from superfs.core.errors import Code, FsError
from superfs.core.pagecache import DropBehind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from superfs.checkpoint.extentio import Sink
    from superfs.checkpoint.manifest import Manifest

_libc = ctypes.CDLL(None, use_errno=True)
_sync_file_range = getattr(_libc, "sync_file_range", None)  # Linux only
if _sync_file_range is not None:
    _sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
_SYNC_FILE_RANGE_WRITE = 2
_fallocate = getattr(_libc, "fallocate", None)
if _fallocate is not None:
    _fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_FALLOC_FL_KEEP_SIZE = 1

BUFFERS_MAX = 1024  # IOV_MAX
ATTEMPT = re.compile(r"\.(?P<name>.+)\.superfs-attempt-(?P<id>[0-9a-f]{32})", re.DOTALL)


class FileSink:
    def __init__(
        self, path: Path, *, new: bool = True, durable: bool = False, size: int = 0
    ) -> None:
        """`size`: what a new file is going to have. Its room is taken at once: writing into it then
        costs a third less, and a full disk says so before anything was written."""
        self._path, self._durable = path, durable
        self._drop_behind = DropBehind(wanted=durable)
        self.way = Way("file")
        with told_of(path):
            flags = os.O_WRONLY | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if new else 0)
            self._fd = os.open(path, flags, 0o644)
        if new and size:
            try:
                with told_of(path, made_here=True):
                    _take_room(self._fd, size)
            except BaseException:
                self.close()
                raise

    @property
    def number(self) -> int:
        """The file's inode number."""
        return os.fstat(self._fd).st_ino

    def pwrite(self, buffers: Sequence[memoryview], offset: int) -> None:
        with told_of(self._path, made_here=True):
            for first in range(0, len(buffers), BUFFERS_MAX):
                waiting = list(buffers[first : first + BUFFERS_MAX])
                while waiting:
                    written = self._pwritev(waiting, offset)
                    if self._durable and not self._drop_behind.works:
                        _start_writing(self._fd, offset, written)
                    offset += written
                    _drop(waiting, written)

    def _pwritev(self, buffers: list[memoryview], offset: int) -> int:
        """What has to be on the disk leaves the page cache when it is: it is in the memory that it
        comes from, and finding memory for it once more costs as much as writing it."""
        flags = self._drop_behind.flags(sum(map(len, buffers)))
        try:
            return os.pwritev(self._fd, buffers, offset, flags)
        except OSError as error:
            if not flags or not self._drop_behind.refused(error):
                raise
            return os.pwritev(self._fd, buffers, offset)

    def sync(self) -> None:
        with told_of(self._path, made_here=True):
            os.fsync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FileSource:
    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise FsError(Code.DAMAGED, f"{path} is missing") from None
        self.size = os.fstat(self._fd).st_size

    def pread(self, into: Sequence[memoryview], offset: int) -> None:
        for first in range(0, len(into), BUFFERS_MAX):
            waiting = list(into[first : first + BUFFERS_MAX])
            while waiting:
                count = self._read(waiting, offset)
                offset += count
                _drop(waiting, count)

    def pread_one(self, into: memoryview, offset: int) -> None:
        count = self._read([into], offset)
        if count < len(into):
            self.pread([into[count:]], offset + count)

    def _read(self, into: list[memoryview], offset: int) -> int:
        try:
            count = os.preadv(self._fd, into, offset)
        except OSError as error:
            if error.errno == errno.EIO:
                text = f"{self._path}: bytes at {offset} cannot be read"
                raise FsError(Code.DAMAGED, text) from error
            raise
        if count == 0:
            raise FsError(Code.DAMAGED, f"{self._path} ends at {offset}: it was cut off")
        return count

    def cached(self, offset: int, length: int) -> bool:
        """Asks the kernel for single bytes without waiting, or which pages it has, of file systems
        that do not know how not to wait (FUSE, NFS)."""
        byte = bytearray(1)
        try:
            for at in range(offset, offset + length, max(1, length // 4)):
                if os.preadv(self._fd, [byte], at, os.RWF_NOWAIT) != 1:
                    return False
        except OSError as error:
            return error.errno == errno.EOPNOTSUPP and resident(self._fd, offset, length)
        return True

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class DirectoryIO:
    def __init__(self, path: str | os.PathLike[str], io: str = "auto") -> None:
        """`io`: how files of attempts are written (`direct.open_sink`)."""
        self.path = Path(os.path.abspath(path))
        self.io = io

    def attempt_path(self, attempt: str) -> Path:
        return self.path.parent / f".{self.path.name}.superfs-attempt-{attempt}"

    def begin(self, attempt: str) -> None:
        self._refuse_taken()
        with told_of(self.attempt_path(attempt)):
            parent = self.path.parent
            made = [one for one in (parent, *parent.parents) if not one.exists()]
            parent.mkdir(parents=True, exist_ok=True)
            for one in made:  # a commit is no good below a directory that a power failure takes
                sync_directory(one.parent)
            self.attempt_path(attempt).mkdir()

    def create(self, attempt: str, file: str, *, durable: bool, size: int = 0) -> Sink:
        path = self.attempt_path(attempt) / file
        return open_sink(path, io=self.io, new=True, durable=durable, size=size)

    def location(self, attempt: str, file: str) -> tuple[str, str]:
        return str(self.attempt_path(attempt) / file), self.io

    def sizes(self, attempt: str) -> dict[str, int]:
        with os.scandir(self.attempt_path(attempt)) as entries:
            return {entry.name: entry.stat().st_size for entry in entries}

    def publish(self, attempt: str, manifest: bytes, *, durable: bool) -> None:
        source = self.attempt_path(attempt)
        sink = FileSink(source / manifests.FILE_NAME)
        try:
            sink.pwrite([memoryview(manifest)], 0)
            steps.reached("manifest-written")
            if durable:
                sink.sync()
        finally:
            sink.close()
        with told_of(self.path):
            if durable:
                sync_directory(source)
            steps.reached("before-rename")
            try:
                source.rename(self.path)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    self._refuse_taken()
                raise
            steps.reached("after-rename")
            if durable:
                sync_directory(self.path.parent)

    def abandon(self, attempt: str) -> None:
        with contextlib.suppress(OSError):  # what stays is found by `attempts`
            shutil.rmtree(self.attempt_path(attempt))

    def manifest(self) -> bytes:
        file = self.path / manifests.FILE_NAME
        try:
            return file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise FsError(Code.NOT_FOUND, self._why_not()) from None

    def open(self, file: str) -> FileSource:
        if os.path.basename(file) != file or file in ("", ".", ".."):
            raise FsError(Code.DAMAGED, f"{self.path}: the manifest names {file!r} as a file")
        return FileSource(self.path / file)

    def _refuse_taken(self) -> None:
        """An empty directory at the place is no obstacle: the rename replaces it."""
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return
        except NotADirectoryError:
            raise FsError(Code.EXISTS, f"{self.path} is there and is no directory") from None
        if manifests.FILE_NAME in names:
            raise FsError(
                Code.EXISTS,
                f"{self.path} is a committed checkpoint, which is never overwritten: "
                "write to another path (one for each step), or remove it first",
            )
        if names:
            raise FsError(
                Code.EXISTS, f"{self.path} is there and is not empty: write to a path of its own"
            )

    def _why_not(self) -> str:
        text = f"{self.path} is no committed checkpoint"
        if not self.path.exists():
            text = f"there is no checkpoint at {self.path}"
        with contextlib.suppress(OSError):
            if (self.path / ".metadata").exists():
                return f"{self.path} is a stock DCP checkpoint: load it with FileSystemReader"
            if any(name == self.path.name for name, _, _ in attempts(self.path.parent)):
                return f"{text}, only an attempt at one that was never committed"
        return text


def open_sink(path: Path, *, io: str, new: bool, durable: bool, size: int) -> Sink:
    """A file to write: as any, or past the SuperFS mount that it is on (`direct.past`)."""
    sink = FileSink(path, new=new, durable=durable, size=size)
    try:
        if io != "direct" and b" - fuse" not in Path("/proc/self/mountinfo").read_bytes():
            return sink
        from superfs.checkpoint.direct import past  # half a second, where there is no such mount

        found = past(path, sink, io)
    except BaseException:
        sink.close()
        raise
    if found is None:
        return sink
    sink.close()
    return found


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def attempts(root: str | os.PathLike[str]) -> list[tuple[str, str, Path]]:
    """(name of the checkpoint, id of the attempt, where) of all begun and not committed."""
    found = []
    for path in Path(root).iterdir():
        match = ATTEMPT.fullmatch(path.name)
        if match is not None and path.is_dir() and not path.is_symlink():
            found.append((match["name"], match["id"], path))
    return sorted(found)


def committed(root: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints directly below, the newest last."""
    found = [(m.created_unix_s, path) for path, m in listed(root) if not isinstance(m, FsError)]
    return [path for _, path in sorted(found)]


def listed(root: str | os.PathLike[str]) -> list[tuple[Path, Manifest | FsError]]:
    """Directories directly below with a manifest: what it says, or why it cannot be read."""
    found: list[tuple[Path, Manifest | FsError]] = []
    for path in sorted(Path(root).iterdir()):
        if path.name.startswith(".") and ATTEMPT.fullmatch(path.name):
            continue
        try:
            where = f"{path}/{manifests.FILE_NAME}"
            found.append((path, manifests.decode(DirectoryIO(path).manifest(), where)))
        except FsError as error:
            if error.code is not Code.NOT_FOUND:
                found.append((path, error))
        except OSError as error:
            found.append((path, FsError(Code.IO, str(error))))
    return found


def _start_writing(fd: int, offset: int, size: int) -> None:
    """The disk gets to work while the rest is still being hashed and copied. Where that is not to
    be had it is left: `sync` does all of it."""
    if _sync_file_range is not None:
        _sync_file_range(fd, offset, size, _SYNC_FILE_RANGE_WRITE)


def _take_room(fd: int, size: int) -> None:
    """Blocks for a file that is going to have that size; the size itself comes with the writes,
    which is how the coordinator sees that they were made. Not through the C library's emulation,
    which writes to every block where the file system cannot do it (FUSE, NFS)."""
    if _fallocate is None or _fallocate(fd, _FALLOC_FL_KEEP_SIZE, 0, size) == 0:
        return
    found = ctypes.get_errno()
    if found in (errno.ENOSPC, errno.EDQUOT):
        raise OSError(found, os.strerror(found))


@contextlib.contextmanager
def told_of(path: Path, *, made_here: bool = False) -> Iterator[None]:
    """What the system refuses while a save writes, with where. What a full disk took of a file is
    given back at once: others need the room."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            if error.errno is None or error.filename is not None:
                raise
            raise OSError(error.errno, error.strerror, str(path)) from error
        if made_here:
            with contextlib.suppress(OSError):
                os.truncate(path, 0)
        why = "No space left" if error.errno == errno.ENOSPC else "No quota left"
        raise FsError(
            Code.NO_SPACE,
            f"{path}: {why} on the file system{_free(path.parent)}. This save is given up; what "
            "was committed before is as it was. Make room (`superfs ckpt gc` removes what saves "
            "left that never ended; old checkpoints are directories to remove), or save elsewhere",
        ) from error


def _free(path: Path) -> str:
    with contextlib.suppress(OSError):
        found = os.statvfs(path)
        free, size = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
        return f", {free / MIB:.1f} of {size / MIB:.1f} MiB are free"
    return ""


def _drop(waiting: list[memoryview], count: int) -> None:
    """Takes from the front what has been moved."""
    while waiting and count >= len(waiting[0]):
        count -= len(waiting.pop(0))
    if count:
        waiting[0] = waiting[0][count:]
