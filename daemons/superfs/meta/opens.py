"""Who has which inode open. In memory only: after a restart every client says it again (Hello).

Until a recorded session has said so, it may have anything open: `sessions` names it for every
inode. What is unlinked meanwhile stays as an orphan of it, and is let go when it comes back
without that inode, or has expired.

Used by the event loop and by the writer thread. `Open` registers *before* it reads the inode: a
transaction that asks later sees the registration, one that is running is waited for (node.py).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.limits import OPEN_PER_SESSION_MAX

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


class Opens:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_inode: dict[int, set[int]] = {}
        self._by_session: dict[int, set[int]] = {}
        self._unclaimed: set[int] = set()
        self._writers: dict[int, set[int]] = {}
        """Of those who have it open, who may write to it: who has come back may, too."""

    def __len__(self) -> int:
        return len(self._by_inode)

    def expect(self, sessions: Iterable[int]) -> None:
        """Recorded sessions that have not said yet what they have open."""
        with self._lock:
            self._unclaimed.update(sessions)

    def open(self, session: int, ino: int, *, write: bool = False) -> None:
        with self._lock:
            mine = self._by_session.setdefault(session, set())
            if ino not in mine:
                _check_room(mine)
            mine.add(ino)
            self._by_inode.setdefault(ino, set()).add(session)
            if write:
                self._writers.setdefault(ino, set()).add(session)

    def check_room(self, session: int) -> None:
        """For one more, before it is made: an operation must not fail half-way."""
        _check_room(self._by_session.get(session, ()))

    def release(self, session: int, ino: int) -> None:
        with self._lock:
            self._by_session.get(session, set()).discard(ino)
            self._drop(session, ino)

    def take_back(self, session: int, fresh: set[int]) -> None:
        """What was registered for opens that were never run."""
        for ino in fresh:
            self.release(session, ino)
        fresh.clear()

    def claim(self, session: int, inos: Iterable[int]) -> None:
        """What the session says it has open replaces what was known."""
        with self._lock:
            self._forget(session)
            mine = self._by_session[session] = set(inos)
            for ino in mine:
                self._by_inode.setdefault(ino, set()).add(session)
                self._writers.setdefault(ino, set()).add(session)

    def end(self, session: int) -> None:
        with self._lock:
            self._forget(session)

    def is_open(self, session: int, ino: int) -> bool:
        return ino in self._by_session.get(session, ())

    def is_written(self, ino: int) -> bool:
        """As far as is known."""
        return bool(self._unclaimed) or ino in self._writers

    def sessions(self, ino: int) -> set[int]:
        with self._lock:
            return self._by_inode.get(ino, set()) | self._unclaimed

    def _forget(self, session: int) -> None:
        self._unclaimed.discard(session)
        for ino in self._by_session.pop(session, ()):
            self._drop(session, ino)

    def _drop(self, session: int, ino: int) -> None:
        holders = self._by_inode.get(ino)
        if holders is not None:
            holders.discard(session)
            if not holders:
                del self._by_inode[ino]
        writers = self._writers.get(ino)
        if writers is not None:
            writers.discard(session)
            if not writers:
                del self._writers[ino]


def _check_room(mine: Collection[int]) -> None:
    if len(mine) >= OPEN_PER_SESSION_MAX:
        raise FsError(Code.TOO_LARGE, f"a session opens at most {OPEN_PER_SESSION_MAX}")
