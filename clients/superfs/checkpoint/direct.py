"""Files on a SuperFS mount, written past it: their names through the mount, their bytes not.

The file is made and opened through the mount, so that the kernel decides who may, as ever. Then the
same file is opened at the daemons of the mount's cluster, and its bytes go there: on their host
straight to where they stay. What is written is seen through the mount when the file is closed, and
durable when it is synced, as if it had been written there.

No torch: the writer process uses it too.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from superfs.checkpoint.directory import FileSink, told_of
from superfs.checkpoint.extentio import Way
from superfs.client.fs import FileSystem
from superfs.client.lent import Placing
from superfs.client.mounted import behind, mount_of
from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from superfs.client.config import ClientConfig
    from superfs.client.fileobj import RawFile
    from superfs.client.mounted import Mounted

log = logging.getLogger("superfs.checkpoint")

_lock = threading.Lock()
_connected: dict[tuple[int, ClientConfig], FileSystem] = {}
"""By process: a connection is not inherited."""
UNREACHABLE_S = 60.0
"""So long it is not tried again: an attempt takes until the client gives up."""
_unreachable: dict[ClientConfig, tuple[float, OSError | FsError]] = {}
"""Until when, and why."""
_told: set[str] = set()


class DirectSink:
    def __init__(self, file: RawFile, path: Path) -> None:
        self._file, self._path = file, path
        self._failed = False
        self.way = Way("direct")

    def pwrite(self, buffers: Sequence[memoryview], offset: int) -> None:
        with self._noting(), told_of(self._path, made_here=True):
            self._file.seek(offset)
            for buffer in buffers:
                self._file.write(buffer)

    def sync(self) -> None:
        with self._noting(), told_of(self._path, made_here=True):
            self._file.sync()

    def close(self) -> None:
        """Who was told of an error is not told again."""
        if self._file.closed:
            return
        try:
            with told_of(self._path, made_here=True):
                self._file.close()
        except (OSError, FsError):
            if not self._failed:
                raise

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._failed = True
            raise


def past(path: Path, made: FileSink, io: str) -> DirectSink | None:
    """The file that was opened through the mount, past it. None: it is written as it was opened,
    and `made.way` says why. `io`: "mount" like any file, "direct" or FsError NOT_SUPPORTED says
    why not; "auto": if that can be had, and else a line in the log says why not."""
    directory = Path(os.path.realpath(path.parent))
    mounted = mount_of(directory)
    if mounted is None:
        if io == "direct":
            raise FsError(Code.NOT_SUPPORTED, f'io="direct": {directory} is on no SuperFS mount')
        return None
    if io == "mount":
        made.way = Way("mount", 'io="mount"')
        return None
    try:
        file = _open(mounted, directory / path.name, made.number)
        return DirectSink(file, path)
    except (OSError, FsError) as error:
        why = error.detail if isinstance(error, FsError) else f"{mounted.path}: {error}"
        if io == "direct":
            raise FsError(Code.NOT_SUPPORTED, f'io="direct": {why}') from error
    made.way = Way("mount", why)
    if why not in _told:
        _told.add(why)
        log.warning("checkpoints are written through the mount: %s", why)
    return None


def _open(mounted: Mounted, path: Path, number: int) -> RawFile:
    if os.statvfs(path).f_flag & os.ST_SYNCHRONOUS:
        raise FsError(Code.NOT_SUPPORTED, f"{mounted.path} is mounted with -o sync")
    found = behind(mounted)
    # Bytes that change while they are saved would not match their own hashes. They only pass
    # through the page cache, as what is written through the mount.
    placing = Placing(still=True, drop_behind=found.config.drop_behind)
    file = _connection(found.config).open_raw(found.path_of(path), os.O_WRONLY, placing=placing)
    if file.number != number:
        file.close()
        raise FsError(Code.NOT_SUPPORTED, f"{path} is another file past the mount")
    return file


def _connection(config: ClientConfig) -> FileSystem:
    key = os.getpid(), config
    with _lock:
        fs = _connected.get(key)
        if fs is None:
            again_s, error = _unreachable.get(config, (0.0, None))
            if error is not None and time.monotonic() < again_s:
                raise error
            try:
                fs = _connected[key] = FileSystem.connect(config)
            except (OSError, FsError) as failed:
                _unreachable[config] = time.monotonic() + UNREACHABLE_S, failed
                raise
    return fs


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)


@atexit.register
def close_all() -> None:
    """Ends the sessions of this process."""
    with _lock:
        for key in [key for key in _connected if key[0] == os.getpid()]:
            with contextlib.suppress(OSError):
                _connected.pop(key).close()
