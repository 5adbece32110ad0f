"""What is in files: opening, reading and writing them one by one and many together."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from fsspec.callbacks import DEFAULT_CALLBACK

from superfs.client.fileobj import parse_mode
from superfs.fsspec import moving
from superfs.fsspec.files import DeferredFile, OpenFile, wrap
from superfs.fsspec.listing import Listings

if TYPE_CHECKING:
    from superfs.fsspec.base import Path

FILE_MODE = 0o666


class Contents(Listings):
    # ---- reading

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        **_: Any,  # noqa: ANN401
    ) -> OpenFile:
        """rb, wb, ab, xb and r+b. `block_size`: bytes of the buffer."""
        flags, _text = parse_mode(mode)
        size = block_size if isinstance(block_size, int) else None
        if flags & os.O_ACCMODE == os.O_RDONLY or autocommit:
            opened = self._making_parents([path], lambda: self.client.open_raw(path, flags))
            return wrap(self, path, opened, size)
        if not flags & os.O_CREAT:
            raise ValueError(f"mode {mode!r} has no place in a transaction")
        if flags & os.O_EXCL and self.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        return self._making_parents([path], lambda: DeferredFile(self, path, flags, size))

    def cat_file(
        self,
        path: Path,
        start: int | None = None,
        end: int | None = None,
        **_: Any,  # noqa: ANN401
    ) -> bytes:
        name = self._strip_protocol(path)
        if start is None and end is None:
            return self.client.read_bytes(name)
        (found,) = moving.read_ranges(self.client, [(name, (start, end))])
        if isinstance(found, OSError):
            raise found
        return found

    def cat(
        self,
        path: Path | list[str],
        recursive: bool = False,
        on_error: str = "raise",
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """One path: its contents. Else a dict, read together; directories that a pattern or
        `recursive` matched are left out."""
        names = self.expand_path(path, recursive=recursive)
        if not isinstance(path, list) and names == [self._strip_protocol(path)]:
            return self.cat_file(names[0], **kwargs)
        if kwargs:
            spans = (kwargs.get("start"), kwargs.get("end"))
            found = moving.read_ranges(self.client, [(name, spans) for name in names])
        else:
            found = self.client.get_many(names)
        matched = recursive or not isinstance(path, list)
        out: dict[str, bytes | OSError] = {}
        for name, data in zip(names, found, strict=True):
            if isinstance(data, OSError):
                if on_error == "omit" or (matched and isinstance(data, IsADirectoryError)):
                    continue
                if on_error == "raise":
                    raise data
            out[name] = data
        return out

    def cat_ranges(
        self,
        paths: list[str],
        starts: list[int | None] | int | None,
        ends: list[int | None] | int | None,
        max_gap: int | None = None,
        on_error: str = "return",
        **_: Any,  # noqa: ANN401
    ) -> list[bytes | OSError]:
        """`max_gap` changes nothing: a read costs little."""
        if not isinstance(paths, list):
            raise TypeError("paths must be a list")
        first = starts if isinstance(starts, list) else [starts] * len(paths)
        last = ends if isinstance(ends, list) else [ends] * len(paths)
        names = [self._strip_protocol(path) for path in paths]
        spans = zip(first, last, strict=True)
        found = moving.read_ranges(self.client, list(zip(names, spans, strict=True)))
        for data in found:
            if isinstance(data, OSError) and on_error == "raise":
                raise data
        return found

    def get(
        self,
        rpath: Any,  # noqa: ANN401
        lpath: Any,  # noqa: ANN401
        recursive: bool = False,
        callback: Any = DEFAULT_CALLBACK,  # noqa: ANN401
        maxdepth: int | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        batch = moving.GetBatch(self.client, moving.write_local, super().get_file)
        with self._collect("get", batch.add):
            super().get(rpath, lpath, recursive, callback, maxdepth, **kwargs)
        batch.flush()

    def get_file(self, rpath: Path, lpath: Any, **kwargs: Any) -> None:  # noqa: ANN401
        add = getattr(self._collecting, "get", None)
        if add is not None and isinstance(lpath, (str, os.PathLike)) and "outfile" not in kwargs:
            add(self._strip_protocol(rpath), lpath)
        else:
            super().get_file(rpath, lpath, **kwargs)

    # ---- writing

    def pipe(
        self,
        path: Path | dict[str, bytes],
        value: bytes | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        if isinstance(path, dict) and not kwargs and not self._intrans:
            self._put_many({self._strip_protocol(name): bytes(v) for name, v in path.items()})
        else:
            super().pipe(path, value, **kwargs)

    def pipe_file(
        self,
        path: Path,
        value: bytes,
        mode: str = "overwrite",
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Seen whole or not at all; what was there is replaced in one step."""
        name = self._strip_protocol(path)
        if mode == "create":
            with self.open(name, "xb", **kwargs) as file:
                file.write(value)
        elif kwargs or self._intrans:
            super().pipe_file(name, value, **kwargs)
        else:
            self._put_many({name: bytes(value)})

    def _put_many(self, files: dict[str, bytes]) -> None:
        self._making_parents(files, lambda: self.client.put_many(files, FILE_MODE))

    def put(
        self,
        lpath: Any,  # noqa: ANN401
        rpath: Any,  # noqa: ANN401
        recursive: bool = False,
        callback: Any = DEFAULT_CALLBACK,  # noqa: ANN401
        maxdepth: int | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        batch = moving.PutBatch(self._put_many)
        with self._collect("put", None if kwargs or self._intrans else batch.add):
            super().put(lpath, rpath, recursive, callback, maxdepth, **kwargs)
        batch.flush()

    def put_file(
        self,
        lpath: Any,  # noqa: ANN401
        rpath: Path,
        callback: Any = DEFAULT_CALLBACK,  # noqa: ANN401
        mode: str = "overwrite",
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        add = getattr(self._collecting, "put", None)
        data = moving.small_contents(lpath) if add is not None else None
        if add is None or data is None:
            super().put_file(lpath, self._strip_protocol(rpath), callback, mode, **kwargs)
            return
        callback.set_size(len(data))
        add(self._strip_protocol(rpath), data)
        callback.relative_update(len(data))
