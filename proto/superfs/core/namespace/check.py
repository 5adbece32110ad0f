"""check: whether the tables of a store agree with each other. Reads every record once, changes
nothing. The metadata daemon's fsck and the tests run it; a sound store has no findings.

It needs a consistent view of the whole store (one read transaction). Kinds of findings are stable
words; `object` names the record.
"""

from __future__ import annotations

import stat
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from superfs.core.ids import DIRECTORY_BIT, ROOT, slot_of
from superfs.core.limits import INLINE_BYTES_MAX
from superfs.core.namespace.bits import (
    ACL_FLAGS,
    HAS_ACL,
    HAS_CAPABILITY,
    HAS_DEFAULT_ACL,
    HAS_XATTR,
    INLINE,
    MULTI,
    TRUNCATING,
)
from superfs.core.namespace.xattrs import flag_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Dentry, Directory, Orphan

_XATTR_FLAGS = HAS_XATTR | HAS_ACL | HAS_DEFAULT_ACL | HAS_CAPABILITY


@dataclass(frozen=True, slots=True)
class Finding:
    kind: str
    object: str
    detail: str = ""


class Walker(Protocol):
    """Every record of a store, table by table, in any order."""

    def dentries(self) -> Iterable[tuple[int, bytes, Dentry]]: ...
    def inodes(self) -> Iterable[tuple[int, int, Attr]]:
        """(place, ino) of the key, and the record."""

    def directories(self) -> Iterable[tuple[int, Directory]]: ...
    def xattrs(self) -> Iterable[tuple[int, int, bytes]]: ...
    def inlines(self) -> Iterable[tuple[int, int, int]]:
        """(place, ino, length)."""

    def moved(self) -> Iterable[tuple[int, int]]: ...
    def orphans(self) -> Iterable[tuple[int, Orphan]]: ...


@dataclass(slots=True)
class _Inode:
    """What the check keeps of an inode, a directory or an orphan while it goes on."""

    place: int
    generation: int
    mode: int
    nlink: int
    size: int
    flags: int
    links: int = 0  # names seen
    xattr_flags: int = 0  # flags that the xattrs seen ask for


def _keep(attr: Attr) -> _Inode:
    return _Inode(attr.place, attr.generation, attr.mode, attr.nlink, attr.size, attr.flags)


def check(walker: Walker) -> Iterator[Finding]:
    return _Check(walker).run()


class _Check:
    def __init__(self, walker: Walker) -> None:
        self.walker = walker
        self.inodes: dict[int, _Inode] = {}
        self.directories: dict[int, Directory] = {}
        self.entries: Counter[int] = Counter()
        self.subdirectories: Counter[int] = Counter()

    def run(self) -> Iterator[Finding]:
        yield from self._load()
        yield from self._dentries()
        yield from self._links()
        yield from self._reachable()
        yield from self._xattrs()
        yield from self._inlines()
        yield from self._moved()

    # ---- one record at a time

    def _load(self) -> Iterator[Finding]:
        for ino, directory in self.walker.directories():
            yield from self._attr(ino, ino, directory.attr)
            if not directory.attr.is_dir or not ino & DIRECTORY_BIT:
                yield Finding(
                    "wrong-type", _name(ino), f"a directory of mode {directory.attr.mode:o}"
                )
            self.directories[ino] = directory
            self.inodes[ino] = _keep(directory.attr)
        for place, ino, attr in self.walker.inodes():
            yield from self._attr(place, ino, attr)
            if attr.is_dir or ino & DIRECTORY_BIT:
                yield Finding("wrong-type", _name(ino), f"an inode of mode {attr.mode:o}")
            if ino in self.inodes:
                yield Finding("number-twice", _name(ino), f"also filed under {place:#x}")
            if (place == ino) != bool(attr.flags & MULTI):
                yield Finding("wrong-place", _name(ino), f"under {place:#x}, flags {attr.flags:#x}")
            self.inodes[ino] = _keep(attr)
        for ino, orphan in self.walker.orphans():
            yield from self._attr(ino, ino, orphan.attr)
            if ino in self.inodes:
                yield Finding("number-twice", _name(ino), "an orphan and not")
            if orphan.attr.nlink or not orphan.holders:
                yield Finding("bad-orphan", _name(ino), f"nlink {orphan.attr.nlink}")
            self.inodes[ino] = _keep(orphan.attr)
        if ROOT not in self.directories:
            yield Finding("no-root", _name(ROOT))

    def _attr(self, place: int, ino: int, attr: Attr) -> Iterator[Finding]:
        if attr.ino != ino or attr.place != place:
            yield Finding("wrong-key", _name(ino), f"says {attr.ino:#x} under {attr.place:#x}")
        if not attr.generation or not attr.change:
            yield Finding("no-generation", _name(ino), f"{attr.generation}, {attr.change}")
        inline = bool(attr.flags & INLINE)
        if attr.is_regular:
            if not inline and not (attr.data_generation and attr.chains):
                yield Finding("data-nowhere", _name(ino), f"{attr.size} bytes")
            if inline and attr.flags & TRUNCATING:
                yield Finding("truncating-inline", _name(ino))
        elif inline != attr.is_symlink or attr.data_generation or attr.chains:
            yield Finding("wrong-contents", _name(ino), f"mode {attr.mode:o} with data")

    def _dentries(self) -> Iterator[Finding]:
        for parent, name, dentry in self.walker.dentries():
            label = f"{name!r} in {parent:#x}"
            self.entries[parent] += 1
            if parent not in self.directories:
                yield Finding("dentry-without-directory", label)
            if stat.S_ISDIR(dentry.mode):
                self.subdirectories[parent] += 1
                yield from self._directory_dentry(parent, name, dentry, label)
            else:
                yield from self._file_dentry(parent, dentry, label)

    def _directory_dentry(
        self, parent: int, name: bytes, dentry: Dentry, label: str
    ) -> Iterator[Finding]:
        directory = self.directories.get(dentry.ino)
        if directory is None or directory.attr.generation != dentry.generation:
            yield Finding("dentry-without-inode", label, _name(dentry.ino))
            return
        self.inodes[dentry.ino].links += 1
        if (directory.parent, directory.name) != (parent, name):
            detail = f"points to {directory.name!r} in {directory.parent:#x}"
            yield Finding("wrong-parent", label, detail)
        attr = directory.attr
        copy = (attr.mode, attr.uid, attr.gid, attr.flags & ACL_FLAGS)
        if copy != (dentry.mode, dentry.uid, dentry.gid, dentry.flags):
            yield Finding("access-differs", label, f"the directory says {copy}")

    def _file_dentry(self, parent: int, dentry: Dentry, label: str) -> Iterator[Finding]:
        inode = self.inodes.get(dentry.ino)
        if inode is None or inode.generation != dentry.generation or not inode.nlink:
            yield Finding("dentry-without-inode", label, _name(dentry.ino))
            return
        inode.links += 1
        if inode.place not in (parent, dentry.ino):
            yield Finding("wrong-place", label, f"the inode is under {inode.place:#x}")
        if dentry.mode != stat.S_IFMT(inode.mode) or dentry.flags & ~inode.flags:
            yield Finding("dentry-differs", label, f"mode {dentry.mode:o} flags {dentry.flags:#x}")

    # ---- all records together

    def _links(self) -> Iterator[Finding]:
        for ino, inode in self.inodes.items():
            directory = self.directories.get(ino)
            if directory is None:
                if inode.links != inode.nlink:
                    detail = f"{inode.links} names, nlink {inode.nlink}"
                    yield Finding("wrong-nlink", _name(ino), detail)
                if inode.nlink > 1 and not inode.flags & MULTI:
                    yield Finding("wrong-nlink", _name(ino), f"single-link with {inode.nlink}")
                continue
            if inode.links != (ino != ROOT):
                yield Finding("wrong-nlink", _name(ino), f"a directory with {inode.links} names")
            if inode.nlink != 2 + self.subdirectories[ino]:
                detail = f"nlink {inode.nlink}, {self.subdirectories[ino]} subdirectories"
                yield Finding("wrong-nlink", _name(ino), detail)
            if inode.size != self.entries[ino]:
                detail = f"counts {inode.size}, has {self.entries[ino]}"
                yield Finding("wrong-count", _name(ino), detail)

    def _reachable(self) -> Iterator[Finding]:
        """Every directory hangs below the root: parents in a loop agree with their entries too."""
        sound = {int(ROOT)}
        for ino in self.directories:
            path: list[int] = []
            here = ino
            while here not in sound and here in self.directories:
                path.append(here)
                sound.add(here)  # for now; also ends a loop
                here = self.directories[here].parent
            if here not in self.directories or here in path:
                yield Finding("unreachable", _name(ino), f"no way up beyond {here:#x}")

    def _xattrs(self) -> Iterator[Finding]:
        for place, ino, name in self.walker.xattrs():
            inode = self.inodes.get(ino)
            if inode is None or inode.place != place:
                yield Finding("xattr-without-inode", f"{name!r} of {ino:#x}", f"under {place:#x}")
                continue
            inode.xattr_flags |= HAS_XATTR | flag_of(name)
        for ino, inode in self.inodes.items():
            if inode.xattr_flags != inode.flags & _XATTR_FLAGS:
                detail = f"flags {inode.flags:#x}, xattrs ask for {inode.xattr_flags:#x}"
                yield Finding("xattr-flags", _name(ino), detail)

    def _inlines(self) -> Iterator[Finding]:
        targets = {i for i, n in self.inodes.items() if stat.S_ISLNK(n.mode)}
        for place, ino, length in self.walker.inlines():
            inode = self.inodes.get(ino)
            if inode is None or inode.place != place or not inode.flags & INLINE:
                yield Finding("inline-without-inode", _name(ino), f"under {place:#x}")
                continue
            link = stat.S_ISLNK(inode.mode)
            targets.discard(ino)
            fits = length == inode.size if link else length <= min(inode.size, INLINE_BYTES_MAX)
            if not fits:
                yield Finding("inline-length", _name(ino), f"{length} bytes of {inode.size}")
        for ino in sorted(targets):
            yield Finding("symlink-without-target", _name(ino))

    def _moved(self) -> Iterator[Finding]:
        moved: set[int] = set()
        for ino, place in self.walker.moved():
            moved.add(ino)
            inode = self.inodes.get(ino)
            if inode is None or inode.place != place or place == ino:
                yield Finding("wrong-moved", _name(ino), f"to {place:#x}")
        for ino, inode in self.inodes.items():
            if slot_of(inode.place) != slot_of(ino) and ino not in moved:
                yield Finding("not-moved", _name(ino), f"is under {inode.place:#x}")


def _name(ino: int) -> str:
    return f"inode {ino:#x}"
