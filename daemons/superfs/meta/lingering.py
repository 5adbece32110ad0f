"""Files that lose their last name while other clients have leases that cover them.

A client opens what it knows under a lease without asking, and says so only of what is still open a
moment later (superfs.mount.opens). So each of these clients is taken to have the file open for as
long as that may take; and every client, where leases have just been recalled or are refused. Who
has said by then that he has it open keeps it, as ever; for the others it is gone. A client that
comes back after a restart says what it has open, and is taken at its word.

`sessions` is called in the writer's thread, the rest in the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.namespace.release_orphan import release_orphan

if TYPE_CHECKING:
    from superfs.daemon.world import World
    from superfs.meta.commit import Committer
    from superfs.meta.lessor import Lessor
    from superfs.meta.opens import Opens
    from superfs.meta.store import LmdbTxn

LINGER_S = 1.0
"""Several times what a client takes to say that it has a file open."""
TICK_S = 0.25
FILES_MAX = 512
"""Of one transaction."""
CLIENTS_MAX = 64
"""Among more only holders of leases are taken into account."""
Guess = tuple[float, int, set[int]]
"""When it is over, the inode, and the sessions that may have it open."""


class Lingering:
    def __init__(self, lessor: Lessor, opens: Opens, committer: Committer, world: World) -> None:
        self._lessor = lessor
        self._opens = opens
        self._committer = committer
        self._now = world.clock.monotonic
        self._waiting: deque[Guess] = deque()

    def sessions(self, ino: int, place: int, txn: LmdbTxn, known: set[int]) -> set[int]:
        """Besides those that are known to have it open, and who removes it."""
        lessor = self._lessor
        guessed = set(lessor.leases.holders(place))
        if place in lessor.heat:
            wanting = lessor.wanting()
            guessed |= wanting if len(wanting) <= CLIENTS_MAX else set()
        guessed -= known | {txn.session or 0}
        if guessed:
            guess = self._now() + LINGER_S, ino, guessed
            txn.after_commit.append(partial(self._waiting.append, guess))
        return guessed

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            while await self.settle():
                pass

    async def settle(self) -> bool:
        """The oldest, as many as are over; whether there may be more."""
        now = self._now()
        guesses: list[Guess] = []
        while self._waiting and self._waiting[0][0] <= now and len(guesses) < FILES_MAX:
            guesses.append(self._waiting.popleft())
        if not guesses:
            return False
        try:
            await self._committer.run(partial(self._release, guesses=guesses), weight=len(guesses))
        except FsError as error:
            if error.code not in (Code.NO_SPACE, Code.BUSY):
                raise
            self._waiting.extendleft(reversed(guesses))  # another time
            return False
        return True

    def _release(self, txn: LmdbTxn, *, guesses: list[Guess]) -> None:
        for _, ino, guessed in guesses:
            release_orphan(txn, ino, *(guessed - self._opens.sessions(ino)))
