"""Checkpoints in directories: `ExtentIO` over POSIX calls, on any file system.

    DIR/NAME/manifest.json, DIR/NAME/r00000.data ...     a committed checkpoint
    DIR/.NAME.superfs-attempt-ID/                        one that is being written, or was given up

An attempt becomes a checkpoint by one rename of its directory. A rename to a directory that has
anything in it fails, so nothing that was committed is ever replaced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from superfs.checkpoint import manifest as manifests
from superfs.checkpoint import steps
from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Sequence

BUFFERS_MAX = 1024  # IOV_MAX
ATTEMPT = re.compile(r"\.(?P<name>.+)\.superfs-attempt-(?P<id>[0-9a-f]{32})", re.DOTALL)


class FileSink:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def pwrite(self, buffers: Sequence[memoryview], offset: int) -> None:
        for first in range(0, len(buffers), BUFFERS_MAX):
            waiting = list(buffers[first : first + BUFFERS_MAX])
            while waiting:
                written = os.pwritev(self._fd, waiting, offset)
                offset += written
                _drop(waiting, written)

    def sync(self) -> None:
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
                try:
                    count = os.preadv(self._fd, waiting, offset)
                except OSError as error:
                    if error.errno == errno.EIO:
                        text = f"{self._path}: bytes at {offset} cannot be read"
                        raise FsError(Code.DAMAGED, text) from error
                    raise
                if count == 0:
                    raise FsError(Code.DAMAGED, f"{self._path} ends at {offset}: it was cut off")
                offset += count
                _drop(waiting, count)

    def cached(self, offset: int, length: int) -> bool:
        """Asks the kernel for single bytes without waiting; what it would have to fetch, and file
        systems that cannot tell (FUSE, NFS), count as not cached."""
        byte = bytearray(1)
        try:
            for at in range(offset, offset + length, max(1, length // 4)):
                if os.preadv(self._fd, [byte], at, os.RWF_NOWAIT) != 1:
                    return False
        except OSError:
            return False
        return True

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class DirectoryIO:
    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(path))

    def attempt_path(self, attempt: str) -> Path:
        return self.path.parent / f".{self.path.name}.superfs-attempt-{attempt}"

    def begin(self, attempt: str) -> None:
        self._refuse_taken()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.attempt_path(attempt).mkdir()

    def create(self, attempt: str, file: str) -> FileSink:
        return FileSink(self.attempt_path(attempt) / file)

    def location(self, attempt: str, file: str) -> str:
        return str(self.attempt_path(attempt) / file)

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
    found = []
    for path in Path(root).iterdir():
        if path.name.startswith(".") and ATTEMPT.fullmatch(path.name):
            continue
        with contextlib.suppress(FsError, OSError):
            manifest = manifests.decode(DirectoryIO(path).manifest(), str(path))
            found.append((manifest.created_unix_s, path))
    return [path for _, path in sorted(found)]


def _drop(waiting: list[memoryview], count: int) -> None:
    """Takes from the front what has been moved."""
    while waiting and count >= len(waiting[0]):
        count -= len(waiting.pop(0))
    if count:
        waiting[0] = waiting[0][count:]
