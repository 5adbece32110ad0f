"""Open files and directories of processes: what a file handle number stands for."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Generic, TypeVar

from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from superfs.core.namespace.txn import Caller
    from superfs.mount.files import OpenFile
    from superfs.mount.listings import Snapshot
    from superfs.mount.nodes import Node

H = TypeVar("H")


@dataclass(slots=True)
class Told:
    losses: int = 0  # of the contents' lost bytes


@dataclass(slots=True, eq=False)
class FileHandle:
    node: Node
    file: OpenFile
    append: bool
    sync: bool
    caller: Caller  # who opened it: writes of any but root clear setuid and its like
    touches: bool  # its first read counts as an access
    wrote: bool = False  # since its last flush or fsync
    direct: bool = False
    """Who only writes leaves nothing in the page cache: each of his writes comes here anyway, and
    what he leaves there is dropped when the file is opened next, for its times have changed. But
    who appends: there one write is to be one request, of whatever memory it is."""
    losses: int = 0  # of the contents' lost bytes, how often a write has been told
    synced: Told = field(default_factory=Told)
    """How often fsync or close: of a write that comes in two parts the kernel says that it was
    short, when it was the second that has told."""


@dataclass(slots=True, eq=False)
class DirHandle:
    node: Node
    snapshot: Snapshot | None = None


class Handles(Generic[H]):
    def __init__(self) -> None:
        self.table: dict[int, H] = {}
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self.table)

    def add(self, handle: H) -> int:
        number = next(self._numbers)
        self.table[number] = handle
        return number

    def get(self, number: int) -> H:
        try:
            return self.table[number]
        except KeyError:
            raise FsError(Code.BAD_REQUEST, f"file handle {number} is not open") from None

    def pop(self, number: int) -> H:
        handle = self.get(number)
        del self.table[number]
        return handle
