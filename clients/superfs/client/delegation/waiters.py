"""Who waits for the log to be shipped, and for how long. One timer serves all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.rpc.pending import Pending

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.client.connection import Connection
    from superfs.client.delegation.state import Delegations


class Waiters:
    def __init__(self, connection: Connection, state: Delegations) -> None:
        self._connection = connection
        self._state = state
        self._waiting: list[tuple[float, Pending[None]]] = []
        """Until when, and what is completed when something has changed."""
        self._watched = False

    def __len__(self) -> int:
        return len(self._waiting)

    async def until(self, enough: Callable[[], bool]) -> None:
        """UNAVAILABLE when nothing changes for longer than anything is waited for: a daemon that is
        slow, or away again and again, gets its time for every part."""
        state, timeout_s = self._state, self._connection.retry_timeout_s
        while True:
            with state.lock:
                if enough():
                    return
                waiter: Pending[None] = Pending()
                self._waiting.append((state.now() + timeout_s, waiter))
                if not self._watched:
                    self._watched = True
                    self._connection.background.call_later(timeout_s, self._fail_late)
            await waiter

    def tell(self, error: FsError | None = None) -> None:
        """Something has changed, or what they wait for never will. With the lock of the state."""
        waiting, self._waiting = self._waiting, []
        for _, waiter in waiting:
            if error is None:
                waiter.complete(None)
            else:
                waiter.fail(error)

    def _fail_late(self) -> None:
        state, timeout_s = self._state, self._connection.retry_timeout_s
        late = FsError(Code.UNAVAILABLE, f"nothing of what was done is shipped in {timeout_s} s")
        with state.lock:
            now = state.now()
            doomed = [waiter for deadline, waiter in self._waiting if deadline <= now]
            self._waiting = [entry for entry in self._waiting if entry[0] > now]
            self._watched = bool(self._waiting)
            if self._watched:
                first = min(deadline for deadline, _ in self._waiting)
                self._connection.background.call_later(first - now, self._fail_late)
        for waiter in doomed:
            waiter.fail(late)
