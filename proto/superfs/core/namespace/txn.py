"""What a rule may ask of its store: the `Txn` protocol and the records it deals in.

Tables, each filed by place (core/ids.py), so that a directory's group is one contiguous range:

    dentry     (directory, name)      -> Dentry
    inode      (place, ino)           -> Attr       every inode that is not a directory
    directory  (directory)            -> Directory
    xattr      (place, ino, name)     -> bytes
    inline     (place, ino)           -> bytes      contents of small files, targets of symlinks
    moved      (ino)                  -> place      at home: a single-link file left its birth place
    orphan     (ino)                  -> Orphan     no name left, but somebody has it open

A single-link file is filed under the directory that names it (place = directory). A file that
ever had a second link is filed under its own number (place = ino, MULTI) and stays there.
A directory's place is its own number.

Contract: `get_*` returns a private copy or None; `put_*` stores a copy; a missing record is never
deleted (the store asserts it). Everything a transaction wrote is visible in it at once. A slot
that this store does not own raises FsError(WRONG_OWNER), a damaged record FsError(DAMAGED).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from superfs.core.attrs import Attr
    from superfs.core.ids import ChainId, DataGeneration, Generation, InodeId, SessionId


@dataclass(slots=True)
class Dentry:
    """A name. For a directory `mode`, `uid`, `gid` and `flags` are its access metadata, and
    authoritative; for other inodes `mode` holds the type bits alone and `flags` only MULTI."""

    ino: int
    generation: int
    mode: int
    uid: int = 0
    gid: int = 0
    flags: int = 0


@dataclass(slots=True)
class Directory:
    """Content metadata of a directory. `attr` holds a copy of the access metadata too.

    `attr.size` counts entries; `attr.nlink` is 2 + sub-directories. `parent` and `name` say which
    dentry names it (ROOT: itself and b""). A removed directory has no record.
    """

    attr: Attr
    parent: int
    name: bytes
    layout: tuple[int, ...] = ()  # chains for new files; empty: the server chooses

    def copy(self) -> Directory:
        return Directory(self.attr.copy(), self.parent, self.name, self.layout)


@dataclass(slots=True)
class Orphan:
    """An inode without a name. It lives until no session in `holders` has it open."""

    attr: Attr  # place = ino
    holders: set[int] = field(default_factory=set)

    def copy(self) -> Orphan:
        return Orphan(self.attr.copy(), set(self.holders))


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf. `trusted`: the client's kernel has checked permissions (a host session);
    the rules then skip mode checks, but never ownership of what they create."""

    uid: int = 0
    gid: int = 0
    groups: frozenset[int] = frozenset()
    umask: int = 0o022
    session: int = 0
    trusted: bool = True

    def in_group(self, gid: int) -> bool:
        return gid == self.gid or gid in self.groups


class Ref(NamedTuple):
    """(number, generation) and a hint where it is filed; generation 0: whatever is there."""

    ino: int
    generation: int
    place: int = 0


class Txn(Protocol):
    @property
    def now_ns(self) -> int:
        """The time of this operation; strictly after that of the one before it, unless the clock
        had been far in the future and was set right."""

    @property
    def commit(self) -> int:
        """The number of the commit this transaction will be; goes to Attr.change."""

    # dentries
    def get_dentry(self, directory: int, name: bytes) -> Dentry | None: ...
    def put_dentry(self, directory: int, name: bytes, dentry: Dentry) -> None: ...
    def delete_dentry(self, directory: int, name: bytes) -> None: ...
    def list_dentries(
        self, directory: int, after: bytes, limit: int
    ) -> Iterable[tuple[bytes, Dentry]]:
        """In byte order of names, from the first name greater than `after`."""

    # inodes
    def get_inode(self, place: int, ino: int) -> Attr | None: ...
    def put_inode(self, attr: Attr) -> None:
        """Filed under (attr.place, attr.ino)."""

    def delete_inode(self, place: int, ino: int) -> None: ...

    # directories
    def get_directory(self, ino: int) -> Directory | None: ...
    def put_directory(self, directory: Directory) -> None: ...
    def delete_directory(self, ino: int) -> None: ...

    # xattrs and inline contents
    def get_xattr(self, place: int, ino: int, name: bytes) -> bytes | None: ...
    def put_xattr(self, place: int, ino: int, name: bytes, value: bytes) -> None: ...
    def delete_xattr(self, place: int, ino: int, name: bytes) -> None: ...
    def list_xattrs(self, place: int, ino: int) -> Sequence[bytes]: ...
    def get_inline(self, place: int, ino: int) -> bytes | None: ...
    def put_inline(self, place: int, ino: int, data: bytes) -> None: ...
    def delete_inline(self, place: int, ino: int) -> None: ...

    # where single-link files went
    def get_moved(self, ino: int) -> int | None: ...
    def put_moved(self, ino: int, place: int) -> None: ...
    def delete_moved(self, ino: int) -> None: ...

    # files without a name
    def get_orphan(self, ino: int) -> Orphan | None: ...
    def put_orphan(self, orphan: Orphan) -> None: ...
    def delete_orphan(self, ino: int) -> None: ...
    def open_sessions(self, ino: int, place: int = 0) -> Iterable[int]:
        """Sessions that may have the inode open, as far as this server knows. `place`: of one that
        loses its last name: who has a lease there may have opened it a moment ago."""

    # numbers
    def new_inode_ids(self, slot: int, count: int) -> InodeId:
        """The first of `count` consecutive numbers, never given before."""

    def new_generation(self, slot: int) -> Generation:
        """A generation never given before in this slot; never 0."""

    def new_data_generation(self, slot: int) -> DataGeneration:
        """A data generation never given before in this slot; never 0."""

    def reserve_inode_ids(self, slot: int, count: int, session: int) -> InodeId:
        """As `new_inode_ids`; from now on `reserved_by` answers `session` for each of them."""

    def reserved_by(self, ino: int) -> SessionId | None:
        """Which session owns this reserved number; None when it is not a reserved one."""

    def use_reserved(self, ino: int) -> None:
        """A reserved number becomes a file: from now on `reserved_by` answers None for it."""

    # work for the data daemons, done after the commit and retried until acknowledged
    def reap_data(self, attr: Attr) -> None:
        """Drop (ino, data_generation) on attr.chains. The one change that a rule may ask for and
        then raise FsError: data written under a generation that lost its race has no other end."""

    def truncate_data(self, attr: Attr, size: int) -> None:
        """Drop everything from `size`; the inode keeps TRUNCATING until it is done."""

    def choose_chains(self, ino: int, layout: Sequence[int]) -> tuple[ChainId, ...]: ...

    def has_room(self, bytes_wanted: int) -> bool:
        """False when the store is into its reserve: only removals and shrinking may go on."""
