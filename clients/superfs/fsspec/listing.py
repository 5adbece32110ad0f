"""What is there: attributes, listings, whole trees."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from superfs.client.bulk import stat_many
from superfs.client.results import os_errors
from superfs.core.errors import Code, FsError
from superfs.fsspec.base import Base, Path
from superfs.fsspec.infos import info_of, link_info
from superfs.rpc.pending import gather, run_sync

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from superfs.client import FileSystem
    from superfs.core.attrs import Attr
    from superfs.core.namespace.outcome import Entry
    from superfs.fsspec.infos import Info

LIST_WIDTH = 64
"""Directories listed at once."""


class Listings(Base):
    def info(self, path: Path, **_: Any) -> Info:  # noqa: ANN401
        """What infos.py names. A symlink is followed; `islink` says that it is one."""
        return info_at(self.client, self._strip_protocol(path))

    def ls(self, path: Path, detail: bool = True, **_: Any) -> list[Any]:  # noqa: ANN401
        name = self._strip_protocol(path)
        (infos,) = infos_in(self.client, [name], raises=True)
        if infos is None:
            infos = [self.info(name)]
        return infos if detail else [info["name"] for info in infos]

    def find(
        self,
        path: Path,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **_: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Many directories are listed at once. What may not be listed is left out."""
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        name = self._strip_protocol(path)
        out: dict[str, Info] = {}
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            top = self.info(name)
            if withdirs or top["type"] != "directory":
                out[name] = top
            if top["type"] == "directory":
                for info in self._below(name, maxdepth):
                    if withdirs or info["type"] != "directory":
                        out[info["name"]] = info
        names = sorted(out)
        return {name: out[name] for name in names} if detail else names

    def _below(self, top: str, maxdepth: int | None) -> Iterator[Info]:
        level, depth = [top], 0
        while level and (maxdepth is None or depth < maxdepth):
            depth += 1
            deeper: list[str] = []
            for start in range(0, len(level), LIST_WIDTH):
                for infos in infos_in(self.client, level[start : start + LIST_WIDTH]):
                    yield from infos or ()
                    deeper += [i["name"] for i in infos or () if i["type"] == "directory"]
            level = deeper

    def exists(self, path: Path, **_: Any) -> bool:  # noqa: ANN401
        return self.client.exists(self._strip_protocol(path))

    def lexists(self, path: Path, **_: Any) -> bool:  # noqa: ANN401
        try:
            self.client.lstat(self._strip_protocol(path))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def created(self, path: Path) -> datetime:
        return datetime.fromtimestamp(self.info(path)["created"], tz=UTC)

    def modified(self, path: Path) -> datetime:
        return datetime.fromtimestamp(self.info(path)["mtime"], tz=UTC)

    def ukey(self, path: Path) -> str:
        """The same as long as the file is: its inode, and the commit that last changed it."""
        return str(self.info(path)["version"])

    def checksum(self, path: Path) -> int:
        """`ukey` as a number of 128 bits."""
        return int.from_bytes(blake2b(self.ukey(path).encode(), digest_size=16).digest(), "big")


def info_at(fs: FileSystem, path: str) -> Info:
    async def look() -> Info:
        found = await fs.paths.find(path, follow=False)
        attr = found.attr
        assert attr is not None
        if not attr.is_symlink:
            return info_of(path, attr)
        try:
            info = info_of(path, await fs.paths.stat(path))
        except FsError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            info = info_of(path, attr)  # it leads nowhere: still there
        info["islink"] = True
        return info

    with os_errors(path):
        return run_sync(look())


def infos_in(
    fs: FileSystem, folders: Sequence[str], *, raises: bool = False
) -> list[list[Info] | None]:
    """What is in each directory; None of what is none, or, unless `raises`, may not be listed."""

    async def entries(folder: str) -> list[Entry] | None:
        try:
            return await fs.paths.entries(folder, plus=True)
        except FsError as error:
            if error.code is Code.NOT_DIRECTORY or not raises:
                return None
            raise

    with os_errors(*folders[:1]):
        listings = run_sync(gather([entries(folder) for folder in folders]))
    found: list[list[Info] | None] = []
    links: list[tuple[list[Info], int]] = []
    for folder, listing in zip(folders, listings, strict=True):
        prefix = folder if folder.endswith("/") else folder + "/"
        infos = None if listing is None else [_info_in(fs, prefix, entry) for entry in listing]
        found.append(infos)
        links += [(infos, i) for i, info in enumerate(infos or ()) if info["islink"] and infos]
    if links:
        _follow(fs, links)
    return found


def _info_in(fs: FileSystem, prefix: str, entry: Entry) -> Info:
    attr = entry.attr
    assert attr is not None, "a listing with attributes"
    info = info_of(prefix + os.fsdecode(entry.name), fs.paths.files.view(attr))
    info["islink"] = attr.is_symlink
    return info


def _follow(fs: FileSystem, links: list[tuple[list[Info], int]]) -> None:
    names = [infos[place]["name"] for infos, place in links]
    targets: list[Attr | FsError] = run_sync(
        stat_many(fs.paths, names, lambda attr: attr, follow=True)
    )
    for (infos, place), name, target in zip(links, names, targets, strict=True):
        if not isinstance(target, FsError):
            infos[place] = link_info(name, target)
