"""Room that sessions were promised: what they write into it finds it, however full the disk gets.

All other writes leave as much free as is promised in all. A promised write may go into what nobody
else may; its answer says `scarce` when there is not as much left as is promised. Then the client
writes no more that way but what it holds already, which is within the promise.

Kept in memory: a daemon that starts anew has promised nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.limits import PROMISE_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

KEEP_S = 30.0
"""For a session whose stream is gone."""


class Promises:
    def __init__(self, room: Callable[[], int]) -> None:
        """`room`: what clients may still write."""
        self._room = room
        self._by_session: dict[int, int] = {}
        self.total = 0

    def make(self, session: int, size: int) -> None:
        """NO_SPACE: it is as it was."""
        if size > PROMISE_BYTES_MAX:
            raise FsError(Code.TOO_LARGE, f"at most {PROMISE_BYTES_MAX} bytes are promised")
        more = size - self._by_session.get(session, 0)
        if size and self._room() < self.total + more:
            raise FsError(Code.NO_SPACE, "too little room to promise any of it")
        self._set(session, size)

    def drop(self, session: int) -> None:
        self._set(session, 0)

    def _set(self, session: int, size: int) -> None:
        self.total += size - self._by_session.pop(session, 0)
        if size:
            self._by_session[session] = size

    def use(self, session: int, size: int) -> None:
        """Where there is no other room. NO_SPACE when so much is not promised any more."""
        left = self._by_session.get(session, 0) - size
        if left < 0:
            raise FsError(Code.NO_SPACE, "the disk of this data daemon is full, and what is not "
                                         "was not promised")  # fmt: skip
        self._set(session, left)

    def leaves_room(self, size: int) -> bool:
        """Whether a write of so many bytes, not promised, may go in."""
        return not self.total or self._room() - size >= self.total

    @property
    def scarce(self) -> bool:
        return self._room() < self.total
