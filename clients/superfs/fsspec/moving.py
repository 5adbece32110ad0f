"""Many files in few operations: contents by range, and what `put`, `get` and `copy` collect.

fsspec's own methods work out which file goes where and call one method a file. Within one such
call a `Batch` collects the small ones and moves them together; large ones go by themselves, in
pieces.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from superfs.client.opening import open_file
from superfs.client.results import os_error, os_errors
from superfs.core.errors import FsError
from superfs.rpc.pending import gather, run_bounded, run_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from superfs.client import FileSystem

SMALL_BYTES = 1 << 20
BATCH_BYTES = 64 << 20
BATCH_FILES = 16_384
WIDTH = 32

Span = tuple[int | None, int | None]


def bounds(span: Span, size: int) -> tuple[int, int]:
    """(offset, length) of a slice [start:end] of so many bytes, negative numbers from the end."""
    start, end, _ = slice(*span).indices(size)
    return start, max(0, end - start)


def read_ranges(fs: FileSystem, wanted: Sequence[tuple[str, Span]]) -> list[bytes | OSError]:
    """Each file is opened once, many reads are on their way at once. Errors in their places."""
    found: list[bytes | OSError] = [b""] * len(wanted)
    places: dict[str, list[int]] = {}
    for place, (path, _) in enumerate(wanted):
        places.setdefault(path, []).append(place)

    async def read(path: str, mine: list[int]) -> None:
        try:
            handle = await open_file(fs.paths, path, os.O_RDONLY)
            try:
                spans = [bounds(wanted[place][1], handle.inode.size) for place in mine]
                parts = await gather([handle.read(*span) for span in spans])
            finally:
                await handle.close()
        except FsError as error:
            for place in mine:
                found[place] = os_error(error, path)
        else:
            for place, part in zip(mine, parts, strict=True):
                found[place] = part

    run_sync(run_bounded((read(path, mine) for path, mine in places.items()), WIDTH))
    return found


def remove_trees(fs: FileSystem, paths: Iterable[str]) -> None:
    """Files and whole directories, many on their way at once. The first error, after all."""
    from superfs.client.bulk import remove_tree

    async def remove(path: str) -> None:
        try:
            await remove_tree(fs.paths, path)
        except FsError as error:
            raise os_error(error, path) from error

    run_sync(run_bounded((remove(path) for path in paths), WIDTH))


def unlink_all(fs: FileSystem, paths: Iterable[str]) -> None:
    """As `remove_trees`, of what is not a directory."""

    async def unlink(path: str) -> None:
        with os_errors(path):
            await fs.paths.unlink(path)

    run_sync(run_bounded((unlink(path) for path in paths), WIDTH))


class PutBatch:
    """Small contents for `put_many`, which `put` writes when there are enough of them."""

    def __init__(self, put: Callable[[dict[str, bytes]], None]) -> None:
        self._put = put
        self._files: dict[str, bytes] = {}
        self._bytes = 0

    def add(self, path: str, data: bytes) -> None:
        self._files[path] = data
        self._bytes += len(data)
        if self._bytes >= BATCH_BYTES or len(self._files) >= BATCH_FILES:
            self.flush()

    def flush(self) -> None:
        files, self._files, self._bytes = self._files, {}, 0
        if files:
            self._put(files)


class GetBatch:
    """Small files that go to `put(where, contents)` as they were asked for; `alone(path, where)`
    fetches what is none."""

    def __init__(
        self,
        fs: FileSystem,
        put: Callable[[Any, bytes], None],
        alone: Callable[[str, Any], None],
    ) -> None:
        self._fs = fs
        self._put = put
        self._alone = alone
        self._wanted: list[tuple[str, Any]] = []

    def add(self, path: str, where: Any) -> None:  # noqa: ANN401 - the caller's own
        self._wanted.append((path, where))
        if len(self._wanted) >= BATCH_FILES:
            self.flush()

    def flush(self) -> None:
        wanted, self._wanted = self._wanted, []
        small: list[tuple[str, Any]] = []
        size = 0
        for (path, where), found in zip(
            wanted, self._fs.stat_many([path for path, _ in wanted]), strict=True
        ):
            if isinstance(found, OSError) or found.st_size > SMALL_BYTES:
                self._alone(path, where)
                continue
            if size + found.st_size > BATCH_BYTES:
                self._fetch(small)
                small, size = [], 0
            small.append((path, where))
            size += found.st_size
        self._fetch(small)

    def _fetch(self, wanted: list[tuple[str, Any]]) -> None:
        contents = self._fs.get_many([path for path, _ in wanted])
        for (path, where), data in zip(wanted, contents, strict=True):
            if isinstance(data, OSError):
                self._alone(path, where)  # a directory, or it says again what is wrong
            else:
                self._put(where, data)


def write_local(where: Any, data: bytes) -> None:  # noqa: ANN401 - str or PathLike
    """A local file, with its directories."""
    while True:
        try:
            with open(where, "wb") as file:
                file.write(data)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(os.path.abspath(where)), exist_ok=True)
        else:
            return


def small_contents(where: Any) -> bytes | None:  # noqa: ANN401
    """Of a small local file; None: it is a directory, or large."""
    if os.path.isdir(where) or os.path.getsize(where) > SMALL_BYTES:
        return None
    with open(where, "rb") as file:
        return file.read()
