"""What an operation answers: made by a rule, carried by the wire, returned by the SDK."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from superfs.core.errors import Code

if TYPE_CHECKING:
    from superfs.core.attrs import Attr


@dataclass(slots=True)
class Entry:
    """One line of a listing or of a bulk operation. `attr` is None where only the name and the
    type were asked for, `inline` where no contents were sent; `code` is its own fate."""

    name: bytes
    ino: int = 0
    type: int = 0  # mode >> 12
    attr: Attr | None = None
    inline: bytes | None = None
    code: Code = Code.OK


@dataclass(slots=True)
class FsStat:
    bytes_total: int
    bytes_free: int
    inodes_used: int
    inodes_free: int


@dataclass(slots=True)
class Outcome:
    """`attr`: the inode the operation is about, after it; `dirs`: every directory it touched, after
    it; `other`: the replaced or exchanged inode (rename), what is left of an unlinked one.
    `leases`: under which a client may repeat it; rules know nothing of them."""

    attr: Attr | None = None
    dirs: tuple[Attr, ...] = ()
    other: Attr | None = None
    data: bytes = b""
    number: int = 0
    more: bool = False
    capability: bytes = b""
    entries: list[Entry] = field(default_factory=list)
    fs_stat: FsStat | None = None
    leases: frozenset[int] = frozenset()
    listing: Any = None
    """`entries` as the columns that go over the wire, where a daemon has made them outright."""
    places: frozenset[int] = frozenset()
    """Of the inodes whose attributes are in `listing`."""
