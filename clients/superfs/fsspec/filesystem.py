"""SuperFileSystem: the file system behind `superfs://`. Errors are OSError with the errno that a
mount would give.

Names are absolute paths; `superfs://a/b` and `superfs:///a/b` are both `/a/b`. Nothing is cached
here: what a call answers is what the daemons say now. An instance may be used by many threads, is
used on in children after a fork, and pickles as its options.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from fsspec.core import has_magic

from superfs.fsspec import moving
from superfs.fsspec.contents import Contents

if TYPE_CHECKING:
    from superfs.fsspec.base import Path


class SuperFileSystem(Contents):
    def mkdir(self, path: Path, create_parents: bool = True, **_: Any) -> None:  # noqa: ANN401
        name = self._strip_protocol(path)
        if create_parents:
            self.client.makedirs(self._parent(name), exist_ok=True)
        self.client.mkdir(name)

    def makedirs(self, path: Path, exist_ok: bool = False) -> None:
        self.client.makedirs(self._strip_protocol(path), exist_ok=exist_ok)

    def rmdir(self, path: Path) -> None:
        self.client.rmdir(self._strip_protocol(path))

    def mv(
        self,
        path1: Any,  # noqa: ANN401
        path2: Any,  # noqa: ANN401
        recursive: bool = False,
        maxdepth: int | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """A rename, in one step, of files and whole directories; into `path2` where that is a
        directory. Patterns and lists are copied and removed, as fsspec does."""
        if not (isinstance(path1, str) and isinstance(path2, str)) or has_magic(path1):
            super().mv(path1, path2, recursive=recursive, maxdepth=maxdepth, **kwargs)
            return
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        if source == target:
            return
        if path2.endswith("/") or self.isdir(target):
            target = f"{target.rstrip('/')}/{source.rpartition('/')[2]}"
        self._making_parents([target], lambda: self.client.rename(source, target))

    def rm_file(self, path: Path) -> None:
        self.client.unlink(self._strip_protocol(path))

    _rm = rm_file

    def rm(
        self,
        path: Path | list[str],
        recursive: bool = False,
        maxdepth: int | None = None,
    ) -> None:
        """With `recursive` whole directories, by the metadata daemon itself."""
        names = self.expand_path(path, recursive=maxdepth is not None, maxdepth=maxdepth)
        if not recursive:
            moving.unlink_all(self.client, names)
        elif maxdepth is None:
            moving.remove_trees(self.client, self.ls("/", False) if names == ["/"] else names)
        else:
            self._remove_down_to(names)

    def _remove_down_to(self, names: list[str]) -> None:
        """What a limited depth reaches; directories that are then not empty stay."""
        for name in reversed(names):
            try:
                self.rmdir(name)
            except NotADirectoryError:
                self.rm_file(name)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise

    def copy(
        self,
        path1: Any,  # noqa: ANN401
        path2: Any,  # noqa: ANN401
        recursive: bool = False,
        maxdepth: int | None = None,
        on_error: str | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Contents only, through this process."""
        puts = moving.PutBatch(self._put_many)
        ignore = on_error == "ignore" or (on_error is None and recursive)

        def alone(source: str, target: str) -> None:
            try:
                self._copy_one(source, target)
            except FileNotFoundError:
                if not ignore:
                    raise

        gets = moving.GetBatch(self.client, puts.add, alone)
        with self._collect("copy", gets.add):
            super().copy(path1, path2, recursive, maxdepth, on_error, **kwargs)
        gets.flush()
        puts.flush()

    def cp_file(self, path1: Path, path2: Path, **_: Any) -> None:  # noqa: ANN401
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        add = getattr(self._collecting, "copy", None)
        if add is not None:
            add(source, target)
        else:
            self._copy_one(source, target)

    def _copy_one(self, source: str, target: str) -> None:
        if self.isdir(source):
            self.makedirs(target, exist_ok=True)
            return
        with self.open(source, "rb") as reading, self.open(target, "wb") as writing:
            while data := reading.read(moving.SMALL_BYTES):
                writing.write(data)

    def touch(self, path: Path, truncate: bool = True, **kwargs: Any) -> None:  # noqa: ANN401
        """Makes it empty, or, without `truncate`, makes it if it is not there and sets its times
        to now."""
        if truncate:
            super().touch(path, truncate=True, **kwargs)
            return
        name = self._strip_protocol(path)
        with self.open(name, "ab", autocommit=True):
            self.client.utime(name)

    def chmod(self, path: Path, mode: int) -> None:
        self.client.chmod(self._strip_protocol(path), mode)
