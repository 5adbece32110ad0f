"""The `Txn` of the rules on what this client holds exclusively: whole directories, in memory.

A `Group` is everything about one directory: its record, its entries, the inodes of its single-link
files. What lies elsewhere is `Away`: the rule ends there, nothing of it is kept, and the daemon is
asked instead. Contents are here only as long as they are not shipped.

Pure but for the clock that it is given. Not for several threads at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from superfs.core.ids import (
    DELEGATED_GENERATION,
    RANGE_FILES_MAX,
    ChainId,
    DataGeneration,
    Generation,
    InodeId,
    SessionId,
    delegated_file_id,
)
from superfs.core.layout import assign_chains
from superfs.core.namespace.txn import Dentry, Directory, Orphan, Ref, Txn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from superfs.core.attrs import Attr
    from superfs.core.namespace.outcome import Outcome

P = ParamSpec("P")
TAKEN_MAX = 1024
"""Of one directory; where there are more, the daemon is asked for every new one."""


class Away(Exception):
    """Not in the overlay, or nothing that a log can tell."""


@dataclass(slots=True, eq=False)
class Group:
    """`born`: made by this client, under an exclusive lease from its first moment on, so that every
    directory that was ever born in it is known here. `name` of the record is b"" where it is not
    known. `taken`: names whose predicted number a directory may have that is not here any more: it
    was moved away, or removed while somebody has it open."""

    directory: Directory
    born: bool
    entries: dict[bytes, Dentry] = field(default_factory=dict)
    inodes: dict[int, Attr] = field(default_factory=dict)
    taken: set[bytes] = field(default_factory=set)

    def predicts(self, name: bytes) -> bool:
        """Whether the number of a new directory is known."""
        return self.born and name not in self.taken

    def take(self, name: bytes) -> None:
        self.taken.add(name)
        if len(self.taken) > TAKEN_MAX:
            self.born = False
            self.taken.clear()


class Overlay:
    """`numbers`: the range of this session, once it has one. `chains`: what new data may go to, and
    over how many of them a file is spread."""

    def __init__(
        self, clock: Callable[[], int], chains: Callable[[], tuple[Sequence[int], int]]
    ) -> None:
        self._clock = clock
        self._chains = chains
        self.groups: dict[int, Group] = {}
        self.learned: set[int] = set()
        """Those of `groups` that a file may have come to from elsewhere: there it may be asked for
        by where it was before. Those that were not made here are among them."""
        self.linked: dict[int, Attr] = {}
        """Files with several names that are held. They are filed under their own number."""
        self.may_use: Callable[[int], bool] = lambda _: True
        """Whether one of `linked` may be looked at and changed here, now."""
        self.inline: dict[int, bytes] = {}
        """Contents by inode number, of what is not shipped yet."""
        self.range = 0
        self.generations: list[int] = []
        """Reserved ones for directories, the last is used first."""
        self.commit = 0
        """The last that this client has heard of."""
        self.touched: set[tuple[int, int]] = set()
        """(place, inode number) of all that the last rule has written or removed; directories under
        their own number."""
        self._counter = 0
        self._now_ns = 0
        self._undo: list[tuple[dict[Any, Any] | Group, Any, Any]] = []
        self._making_directory = False
        self._reaps = False

    def use_range(self, number: int) -> None:
        """From now on files get numbers of this one."""
        if number != self.range:
            self.range, self._counter = number, 0

    # ---- running rules

    def run(
        self,
        rule: Callable[Concatenate[Txn, P], Outcome],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Outcome:
        """One operation. Whatever is raised, nothing of it is left."""
        self._now_ns = max(self._clock(), self._now_ns + 1)
        self.touched = set()
        self._undo = []
        try:
            return rule(self, *args, **kwargs)
        except BaseException:
            self._take_back()
            raise

    def run_mkdir(
        self, rule: Callable[Concatenate[Txn, P], Outcome], *args: P.args, **kwargs: P.kwargs
    ) -> Outcome:
        """As `run`, of a rule that may look for numbers that are nowhere."""
        self._making_directory = True
        try:
            return self.run(rule, *args, **kwargs)
        finally:
            self._making_directory = False

    def run_reaping(
        self, rule: Callable[Concatenate[Txn, P], Outcome], *args: P.args, **kwargs: P.kwargs
    ) -> Outcome:
        """As `run`, of what the daemon will do again by itself: it sees to the data."""
        self._reaps = True
        try:
            return self.run(rule, *args, **kwargs)
        finally:
            self._reaps = False

    def _take_back(self) -> None:
        for table, key, value in reversed(self._undo):
            if isinstance(table, Group):
                table.directory = value
            elif value is None:
                table.pop(key, None)
            else:
                table[key] = value
        self._undo = []

    def _set(self, table: dict[Any, Any], key: Any, value: Any) -> None:  # noqa: ANN401
        self._undo.append((table, key, table.get(key)))
        if value is None:
            del table[key]
        else:
            table[key] = value

    def _group(self, directory: int) -> Group:
        group = self.groups.get(directory)
        if group is None:
            raise Away
        return group

    @property
    def now_ns(self) -> int:
        return self._now_ns

    # ---- where things are

    def adopt(self, directory: int, group: Group) -> None:
        self.groups[directory] = group
        if not group.born:
            self.learned.add(directory)

    def forget(self, directory: int) -> None:
        group = self.groups.pop(directory, None)
        self.learned.discard(directory)
        if self.linked.pop(directory, None) is not None:
            self.inline.pop(directory, None)
        for ino in group.inodes if group is not None else ():
            self.inline.pop(ino, None)

    def ref_of(self, directory: int) -> Ref:
        """Of one that is here, as it is now."""
        attr = self.groups[directory].directory.attr
        return Ref(attr.ino, attr.generation, attr.ino)

    def attr_of(self, place: int, ino: int) -> Attr | None:
        """As it is now, if it is here. Not a copy."""
        group = self.groups.get(place)
        if group is None:
            return self.linked.get(ino) if place == ino else None
        return group.directory.attr if place == ino else group.inodes.get(ino)

    def place_of(self, ino: int, hint: int) -> int:
        """Of a file that was last seen at `hint`."""
        return ino if ino in self.linked else hint or ino

    def places_of(self, ino: int, hint: int) -> set[int]:
        """Directories here that have an inode which was last seen at `hint`; or the inode."""
        if ino in self.linked:
            return {ino}
        group = self.groups.get(hint)
        if ino == hint or (group is not None and ino in group.inodes):
            return {hint}
        learned = ((place, self.groups.get(place)) for place in self.learned)
        return {place for place, group in learned if group is not None and ino in group.inodes}

    def parents_of(self, directory: int) -> set[int]:
        """Directories here that a directory has its name in: one at most."""
        group = self.groups.get(directory)
        if group is not None and group.directory.name:
            parent = group.directory.parent
            return {parent} if parent in self.groups else set()
        for place, above in self.groups.items():
            has_any = above.directory.attr.nlink > 2
            if has_any and any(entry.ino == directory for entry in above.entries.values()):
                return {place}
        return set()

    # ---- dentries

    def get_dentry(self, directory: int, name: bytes) -> Dentry | None:
        d = self._group(directory).entries.get(name)
        return None if d is None else Dentry(d.ino, d.generation, d.mode, d.uid, d.gid, d.flags)

    def put_dentry(self, directory: int, name: bytes, dentry: Dentry) -> None:
        d = dentry
        copy = Dentry(d.ino, d.generation, d.mode, d.uid, d.gid, d.flags)
        self._set(self._group(directory).entries, name, copy)

    def delete_dentry(self, directory: int, name: bytes) -> None:
        self._set(self._group(directory).entries, name, None)

    def list_dentries(
        self, directory: int, after: bytes, limit: int
    ) -> Iterable[tuple[bytes, Dentry]]:
        raise Away

    # ---- inodes and directories

    def _filed_at(self, place: int, ino: int) -> dict[int, Attr]:
        return self.linked if place == ino else self._group(place).inodes

    def get_inode(self, place: int, ino: int) -> Attr | None:
        attr = self._filed_at(place, ino).get(ino)
        if place == ino and (attr is None or not self.may_use(ino)):
            raise Away
        return None if attr is None else attr.copy()

    def put_inode(self, attr: Attr) -> None:
        self._set(self._filed_at(attr.place, attr.ino), attr.ino, attr.copy())
        self.touched.add((attr.place, attr.ino))

    def delete_inode(self, place: int, ino: int) -> None:
        self._set(self._filed_at(place, ino), ino, None)
        self.touched.add((place, ino))

    def get_directory(self, ino: int) -> Directory | None:
        group = self.groups.get(ino)
        if group is None:
            if self._making_directory:
                return None
            raise Away
        return group.directory.copy()

    def put_directory(self, directory: Directory) -> None:
        ino = directory.attr.ino
        group = self.groups.get(ino)
        if group is None:
            if not self._making_directory:
                raise Away
            self._set(self.groups, ino, Group(directory.copy(), born=True))
        else:
            self._undo.append((group, ino, group.directory))
            group.directory = directory.copy()
        self.touched.add((ino, ino))

    def delete_directory(self, ino: int) -> None:
        self._set(self.groups, ino, None)
        self.touched.add((ino, ino))

    # ---- xattrs and inline contents

    def get_xattr(self, place: int, ino: int, name: bytes) -> bytes | None:
        raise Away

    def put_xattr(self, place: int, ino: int, name: bytes, value: bytes) -> None:
        raise Away

    def delete_xattr(self, place: int, ino: int, name: bytes) -> None:
        raise Away

    def list_xattrs(self, place: int, ino: int) -> Sequence[bytes]:
        """Asked for only to remove them with their inode, which the daemon does by itself."""
        if not self._reaps:
            raise Away
        return ()

    def get_inline(self, place: int, ino: int) -> bytes | None:
        found = self.inline.get(ino)
        if found is None and not self._reaps:
            raise Away
        return found

    def put_inline(self, place: int, ino: int, data: bytes) -> None:
        self._set(self.inline, ino, bytes(data))

    def delete_inline(self, place: int, ino: int) -> None:
        self._set(self.inline, ino, None)

    # ---- what a log does not tell

    def get_moved(self, ino: int) -> int | None:
        return None  # where a file went is the daemon's to know

    def put_moved(self, ino: int, place: int) -> None:
        """The daemon notes it."""

    def delete_moved(self, ino: int) -> None:
        raise Away

    def get_orphan(self, ino: int) -> Orphan | None:
        return None

    def put_orphan(self, orphan: Orphan) -> None:
        """The daemon keeps it; here it is asked for no more."""
        if not self._reaps:
            raise Away

    def delete_orphan(self, ino: int) -> None:
        raise Away

    def open_sessions(self, ino: int, place: int = 0) -> Iterable[int]:
        return ()

    # ---- numbers

    def new_inode_ids(self, slot: int, count: int) -> InodeId:
        if not self.range or count != 1 or self._counter >= RANGE_FILES_MAX:
            raise Away
        self._counter += 1
        return delegated_file_id(slot, self.range, self._counter)

    def new_generation(self, slot: int) -> Generation:
        if not self._making_directory:
            return DELEGATED_GENERATION
        if not self.generations:
            raise Away
        return Generation(self.generations.pop())

    def new_data_generation(self, slot: int) -> DataGeneration:
        raise Away

    def reserve_inode_ids(self, slot: int, count: int, session: int) -> InodeId:
        raise Away

    def reserved_by(self, ino: int) -> SessionId | None:
        raise Away

    def use_reserved(self, ino: int) -> None:
        raise Away

    # ---- data

    def reap_data(self, attr: Attr) -> None:
        if not self._reaps:
            raise Away

    def truncate_data(self, attr: Attr, size: int) -> None:
        raise Away

    def choose_chains(self, ino: int, layout: Sequence[int]) -> tuple[ChainId, ...]:
        available, width = self._chains()
        return tuple(ChainId(c) for c in assign_chains(layout or available, ino, width))

    def has_room(self, bytes_wanted: int) -> bool:
        return True
