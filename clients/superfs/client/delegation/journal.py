"""What was done here and is not shipped yet, in the order it was done. Pure bookkeeping.

A `Part` is what becomes one `Log` operation. As long as it is open, a file that was made in it is
one entry, whatever is done to it: the part says what it is in the end. Sealing a part fixes that,
and a part is always sealed as a whole: so it stands for one moment, and what the daemon has when it
is done is a prefix of what was done (docs/decisions/0019-exclusive-leases.md).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from superfs.client.codec import NOT_SENT, encode_ref, pack_names
from superfs.core.attrs import pack_attr
from superfs.core.ids import is_directory_id
from superfs.core.namespace.bits import INLINE
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from superfs.client.delegation.overlay import Overlay
    from superfs.core.attrs import Attr
    from superfs.core.namespace.txn import Ref

PART_ENTRIES = 512
PART_BYTES = 3 * 512 * 1024
"""A part is sealed at either. It is one message."""
PART_CONTENTS_BYTES = 32 * 1024 * 1024
"""Of its files, at data daemons. They go in messages of their own, before it."""
ENTRY_BYTES = 256
"""About what an entry takes, without contents."""


@dataclass(slots=True, eq=False)
class Birth:
    """A file that was made in this part. `attr`: what it was when it was removed again."""

    where: Ref
    name: bytes
    ino: int
    attr: Attr | None = None
    data: bytes = b""


@dataclass(slots=True, frozen=True)
class Removal:
    where: Ref
    name: bytes


@dataclass(slots=True, frozen=True)
class Step:
    """Any other operation, with who asked for it."""

    entry: meta_pb2.LogEntry
    caller: meta_pb2.Caller


@dataclass(slots=True, eq=False)
class Sealed:
    number: int
    log: meta_pb2.Log
    files: dict[int, tuple[int, bytes]]
    """By number: directory and name of what was made."""
    inline: dict[int, bytes]
    """Contents that need not be kept when it is done."""
    changed: list[tuple[int, int]]
    """(place, number) of each of `log.attrs`."""
    touched: set[int]
    """Numbers of all that was changed, removed or made."""
    made: list[int]
    """Directories, and files that have got a second name."""
    places: set[int]
    contents: list[int]
    """Files whose contents are kept here, and have to be at data daemons first."""
    has_linked: bool
    entries: int
    size: int
    since: float


@dataclass(slots=True, eq=False)
class Part:
    number: int
    since: float = 0.0  # when its first entry was made
    size: int = 0
    entries: dict[int, Birth | Removal | Step] = field(default_factory=dict)
    births: dict[int, int] = field(default_factory=dict)  # inode number -> which entry
    entered: set[int] = field(default_factory=set)  # inodes that entries besides a birth are about
    names: dict[tuple[int, bytes], int] = field(default_factory=dict)  # last entry about it
    touched: dict[tuple[int, int], None] = field(default_factory=dict)
    touched_places: set[int] = field(default_factory=set)
    places: set[int] = field(default_factory=set)
    contents: dict[int, int] = field(default_factory=dict)  # kept here, of births: how many bytes
    contents_size: int = 0
    has_linked: bool = False  # it is about a file with several names
    next: int = 0

    def touch(self, place: int, ino: int) -> None:
        """Its record was changed, made or removed."""
        self.touched[place, ino] = None
        self.touched_places.add(place)
        if place == ino and not is_directory_id(ino):
            self.has_linked = True

    def _add(self, entry: Birth | Removal | Step, size: int, now: float) -> int:
        if not self.entries:
            self.since = now
        self.next += 1
        self.entries[self.next] = entry
        self.size += ENTRY_BYTES + size
        return self.next

    @property
    def is_full(self) -> bool:
        return (
            len(self.entries) >= PART_ENTRIES
            or self.size >= PART_BYTES
            or self.contents_size >= PART_CONTENTS_BYTES
        )

    # ---- what happens

    def born(self, where: Ref, name: bytes, attr: Attr, now: float) -> None:
        """`where`: the directory as it is now. Later in the part another may have its number."""
        index = self._add(Birth(where, name, attr.ino), len(name) + attr.size, now)
        self.births[attr.ino] = index
        self.names[where.ino, name] = index
        self.places.add(where.ino)

    def grew(self, more: int) -> None:
        self.size += max(more, 0)

    def keeps(self, ino: int, size: int) -> None:
        self.contents_size += size - self.contents.get(ino, 0)
        self.contents[ino] = size

    def did(
        self,
        step: Step,
        names: Iterable[tuple[int, bytes]],
        inos: Iterable[int],
        directories: Iterable[int],
        now: float,
    ) -> None:
        index = self._add(step, step.entry.ByteSize(), now)
        for name in names:
            self.names[name] = index
        self.entered.update(inos)
        self.places.update(directories)

    def removed(self, where: Ref, name: bytes, now: float) -> None:
        self.names[where.ino, name] = self._add(Removal(where, name), len(name), now)
        self.places.add(where.ino)

    def unborn(self, ino: int) -> bool:
        """A file that was made in this part is removed again, and nobody needs to hear of it.
        False: it has to be told."""
        if ino not in self.births or ino in self.entered:
            return False
        birth = self.entries.pop(self.births.pop(ino))
        assert isinstance(birth, Birth)
        self.size -= ENTRY_BYTES
        self.contents_size -= self.contents.pop(ino, 0)
        self.places.add(birth.where.ino)
        return True

    def buried(self, ino: int, attr: Attr, data: bytes) -> None:
        """It was made in this part and is removed, or filed elsewhere, by a later entry of it."""
        index = self.births.pop(ino, None)
        if index is not None:
            birth = self.entries[index]
            assert isinstance(birth, Birth)
            birth.attr, birth.data = attr, data

    def is_ours(self, ino: int) -> bool:
        """A birth that takes up whatever happens to the inode."""
        return ino in self.births

    def renamed(self, ino: int, directory: int, name: bytes) -> bool:
        """A file that was made in this part has another name, one that was free. False: it has to
        be told, because the name was not free when the file was made."""
        index = self.births.get(ino)
        if index is None or ino in self.entered or self.names.get((directory, name), 0) > index:
            return False
        birth = self.entries[index]
        assert isinstance(birth, Birth)
        birth.name = name
        self.names[directory, name] = index
        return True

    # ---- the message

    def seal(self, overlay: Overlay) -> Sealed:
        files: dict[int, tuple[int, bytes]] = {}
        log = meta_pb2.Log()
        caller: meta_pb2.Caller | None = None
        for run in self._runs():
            first = run[0]
            if isinstance(first, Birth):
                log.entries.add(files=self._files(run, overlay, files))  # type: ignore[arg-type]
            elif isinstance(first, Removal):
                names = pack_names(entry.name for entry in run)  # type: ignore[union-attr]
                log.entries.add(now_ns=overlay.now_ns).unlinks.CopyFrom(
                    meta_pb2.LogUnlinks(dir=encode_ref(first.where), names=names)
                )
            else:
                entry = log.entries.add()
                entry.CopyFrom(first.entry)
                if first.caller is not caller:
                    entry.caller.CopyFrom(first.caller)
                    caller = first.caller
        changed: list[tuple[int, int]] = []
        packed: list[bytes] = []
        for place, ino in self.touched:
            if ino in self.births and ino not in self.entered:
                continue
            attr = overlay.attr_of(place, ino)
            if attr is not None:
                changed.append((place, ino))
                packed.append(pack_attr(attr))
        log.attrs = b"".join(packed)
        made = [entry.ino for entry in log.entries if entry.WhichOneof("verb") == "mkdir"]
        made += [e.link.inode.ino for e in log.entries if e.WhichOneof("verb") == "link"]
        return Sealed(
            self.number, log, files, overlay.inline.copy(), changed,
            {ino for _, ino in self.touched} | files.keys(), made,
            self.places | self.touched_places, list(self.contents), self.has_linked,
            len(self.entries), self.size + self.contents_size, self.since,
        )  # fmt: skip

    def _runs(self) -> Iterator[list[Birth | Removal | Step]]:
        """Neighbours that go into one entry of the message."""
        run: list[Birth | Removal | Step] = []
        for entry in self.entries.values():
            last = run[-1] if run else None
            joins = (
                last is not None
                and type(last) is type(entry)
                and not isinstance(entry, Step)
                and not isinstance(last, Step)
                and last.where == entry.where
            )
            if run and not joins:
                yield run
                run = []
            run.append(entry)
        if run:
            yield run

    def _files(
        self,
        births: list[Birth],
        overlay: Overlay,
        files: dict[int, tuple[int, bytes]],
    ) -> meta_pb2.LogFiles:
        where = births[0].where
        attrs: list[bytes] = []
        inline: list[bytes] = []
        lengths: list[int] = []
        inodes = overlay.groups[where.ino].inodes if where.ino in overlay.groups else {}
        for birth in births:
            attr, data = birth.attr, birth.data
            if attr is None:
                attr = inodes[birth.ino]
                data = overlay.inline.get(birth.ino, b"")
            if attr.flags & INLINE:
                lengths.append(len(data))
                inline.append(data)
            else:
                lengths.append(NOT_SENT)
            files[birth.ino] = where.ino, birth.name
            attrs.append(pack_attr(attr))
        return meta_pb2.LogFiles(
            dir=encode_ref(where),
            count=len(births),
            names=pack_names(birth.name for birth in births),
            attrs=b"".join(attrs),
            inline=b"".join(inline),
            inline_lengths=struct.pack(f"<{len(lengths)}I", *lengths),
        )
