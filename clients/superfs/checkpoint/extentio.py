"""What the checkpoint code asks of storage: few questions, so that others can answer them too.

`directory.DirectoryIO` answers them with any POSIX directory, the mount's included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    Buffer = memoryview


@dataclass(frozen=True, slots=True)
class Way:
    """How a file is written: "direct" past a SuperFS mount, through a "mount", or like any "file",
    on no such mount. `why`: not past the mount that it is on."""

    name: str
    why: str = ""


class Sink(Protocol):
    """A file of an attempt that one process writes."""

    way: Way

    def pwrite(self, buffers: Sequence[Buffer], offset: int) -> None:
        """All of it, or OSError."""

    def sync(self) -> None:
        """What was written is durable when this returns."""

    def close(self) -> None:
        """May be called twice."""


class Source(Protocol):
    """A file of a committed checkpoint."""

    size: int

    def pread(self, into: Sequence[Buffer], offset: int) -> None:
        """Fills all of it, or FsError DAMAGED if the file ends before."""

    def pread_one(self, into: Buffer, offset: int) -> None:
        """The same, of one buffer that is not empty: what loads do most."""

    def cached(self, offset: int, length: int) -> bool:
        """Whether reading there costs no more than a copy in memory. May guess, never blocks."""

    def close(self) -> None:
        """May be called twice."""


class ExtentIO(Protocol):
    """One checkpoint: an attempt until it is published, then unchangeable."""

    def begin(self, attempt: str) -> None:
        """The coordinator makes room for an attempt of this unique name. FsError EXISTS if there
        is a checkpoint already."""

    def create(self, attempt: str, file: str, *, durable: bool, size: int = 0) -> Sink:
        """A new file of an attempt that has begun. `durable`: it is going to be synced, so storage
        may begin with that at once. `size`: what it will have, if that is known: storage may take
        the room for it at once."""

    def location(self, attempt: str, file: str) -> tuple[str, str]:
        """Where the writer process creates a file of an attempt, a path; and how it is written
        (`direct.open_sink`)."""

    def sizes(self, attempt: str) -> dict[str, int]:
        """The files of an attempt as the coordinator sees them."""

    def publish(self, attempt: str, manifest: bytes, *, durable: bool) -> None:
        """Atomic: afterwards the checkpoint is there with all that was written, or as before.
        Never replaces a checkpoint: FsError EXISTS."""

    def abandon(self, attempt: str) -> None:
        """Removes what is left of an attempt, if anything is. Never touches another."""

    def manifest(self) -> bytes:
        """Of the published checkpoint; FsError NOT_FOUND if there is none."""

    def open(self, file: str) -> Source:
        """A file of the published checkpoint; FsError DAMAGED if it is missing."""
