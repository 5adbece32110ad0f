"""What was done here and will never be: who waits for it, and who asks whether it is durable.

Whoever has a lost file open hears of it from the holder of the leases, a moment later. Who syncs in
between must not be told that all is well.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from superfs.core.errors import FsError
from superfs.rpc.pending import Pending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from superfs.client.delegation.journal import Sealed

log = logging.getLogger("superfs.client")


class Losses:
    def __init__(self) -> None:
        self._all: list[tuple[int, FsError]] = []
        """From which part on everything was lost, and why; each time that happened."""
        self._telling: Pending[None] | None = None
        self.files = 0

    def __len__(self) -> int:
        return len(self._all)

    def add(self, first: int, error: FsError) -> Callable[[], None]:
        """With the lock of the state. What is returned is called when all concerned have heard."""
        self._all.append((first, error))
        telling: Pending[None] = Pending()
        self._telling = telling

        def heard() -> None:
            if self._telling is telling:
                self._telling = None
            telling.complete(None)

        return heard

    @property
    def are_told(self) -> bool:
        return self._telling is None

    async def told(self) -> None:
        telling = self._telling
        if telling is not None:
            await telling

    def raise_since(self, count: int, part: int) -> None:
        """What was lost of the parts up to that one since there were so many losses."""
        for first, error in self._all[count:]:
            if first <= part:
                raise FsError(error.code, error.detail)

    def write_down(self, parts: Iterable[Sealed], reason: str) -> None:
        """For people."""
        for part in parts:
            for ino, (directory, name) in part.files.items():
                self.files += 1
                log.error("lost: file %r (%x) in directory %x: %s", name, ino, directory, reason)
            for place, ino in part.changed:
                if ino not in part.files:
                    log.error("lost: changes of inode %x in %x: %s", ino, place, reason)
