"""What this client holds exclusively, and may change by itself right now.

`Delegations` is shared by the loop that runs the verbs, the background that ships, and the reader
of the stream that hears of grants and recalls: everything is done under `lock`, and nothing waits
there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from superfs.client.delegation.concerns import EVERYTHING
from superfs.client.delegation.journal import Part
from superfs.client.delegation.losses import Losses
from superfs.client.delegation.overlay import Group, Overlay
from superfs.client.leases import lease_clock
from superfs.core.limits import LOG_BYTES_MAX, LOG_CHANGES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from superfs.client.delegation.journal import Sealed

LEASE_MARGIN_S = 0.5
"""Nothing is done any more so long before a lease ends."""
LOG_AGE_S = 1.0
LOG_ENTRIES = LOG_CHANGES_MAX
LOG_BYTES = LOG_BYTES_MAX
"""Where whoever wants to change more waits until something is shipped."""
ENTRIES_MAX = 50_000
"""In all directories that are held; those used longest ago are let go,"""
LAST_ENTRIES_MAX = 200_000
"""and the one used last only when it has more."""
LINKED_MAX = 4096
"""Files with several names; more are let go, all together."""

log = logging.getLogger("superfs.client")


class Contents(Protocol):
    """Of new files, kept until they are told of."""

    async def send(self, inos: Iterable[int]) -> None:
        """Returns when they are at data daemons; raises what refused them."""

    def drop(self, ino: int) -> bool:
        """Nobody has heard of the file, nor will. False: a data daemon may have them."""

    def drop_all(self, inos: Iterable[int]) -> None:
        """They are lost."""


class Delegations:
    def __init__(
        self,
        chains: Callable[[], tuple[Sequence[int], int]],
        contents: Contents,
        now: Callable[[], float] = lease_clock,
    ) -> None:
        self.contents = contents
        self.lock = threading.RLock()
        self.overlay = Overlay(self._server_now_ns, chains)
        self.exclusive: set[int] = set()
        """Granted and not recalled."""
        self.busy: dict[int, int] = {}
        """What a daemon is being asked about, held or not: how often."""
        self.changing: dict[int, int] = {}
        """Likewise what it is changing for us, by the numbers of directories and inodes."""
        self.learning: dict[int, set[int]] = {}
        """Directories that are being learned: what was changed meanwhile."""
        self.leaving: set[int] = set()
        """Let go of, while an answer is on its way that may grant them as they were before."""
        self.provisional: set[int] = set()
        """Made here, under a lease that the daemon has yet to grant."""
        self.wanted: dict[int, int] = {}
        """Exclusive directories that are not known here: how often that was a pity."""
        self.part = Part(1)
        self.sealed: deque[Sealed] = deque()
        self.shipped = 0
        """The last part that is done, or lost."""
        self.suspended = True
        """No connection, or what was done before it broke is not shipped yet."""
        self._now = now
        self._until = 0.0
        self._offset_ns: int | None = None
        self.overlay.may_use = self._may_use
        # For people.
        self.local_operations = 0
        self.recalls = 0
        self.losses = Losses()

    # ---- time

    def _server_now_ns(self) -> int:
        assert self._offset_ns is not None
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self._offset_ns

    def heard_time(self, server_ns: int) -> None:
        """A daemon's clock showed this before now. The estimate is never ahead of it."""
        offset = server_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        with self.lock:
            if self._offset_ns is None or offset > self._offset_ns or self._is_far(offset):
                self._offset_ns = offset

    def _is_far(self, offset_ns: int) -> bool:
        """Somebody has set that clock back."""
        assert self._offset_ns is not None
        return self._offset_ns - offset_ns > 1_000_000_000

    def extended(self, until: float) -> None:
        with self.lock:
            self._until = until

    @property
    def is_good(self) -> bool:
        """Whether anything may be done here by oneself now."""
        if self.suspended or self._offset_ns is None:
            return False
        return self._now() < self._until - LEASE_MARGIN_S

    # ---- what is held

    def is_open(self, *directories: int) -> bool:
        """Whether these may be changed here, now."""
        groups, linked = self.overlay.groups, self.overlay.linked
        for d in directories:
            if d not in self.exclusive or d in self.busy or not (d in groups or d in linked):
                return False
        return True

    def _may_use(self, linked: int) -> bool:
        """What takes away a name does not say of which file: while a daemon does that for us, it
        may be of this one."""
        return linked in self.exclusive and linked not in self.busy and not self.changing

    # ---- what daemons are changing for us

    def begin(self, changes: Iterable[int]) -> None:
        for number in changes:
            self.changing[number] = self.changing.get(number, 0) + 1
        for seen in self.learning.values():
            seen.update(changes)

    def end(self, changes: Iterable[int]) -> None:
        for number in changes:
            self.changing[number] -= 1
            if not self.changing[number]:
                del self.changing[number]
                self.leaving.discard(number)

    def learn(self, number: int) -> bool:
        """A directory is going to be read. False: that is being done."""
        if number in self.learning:
            return False
        self.learning[number] = set(self.changing)
        return True

    def learned(self, number: int, group: Group | None) -> None:
        """Nothing that was changed while it was read is what was read."""
        seen = self.learning.pop(number, {EVERYTHING})
        if group is None or EVERYTHING in seen or number in seen:
            return
        if any(entry.ino in seen for entry in group.entries.values()):
            return
        self.adopt(number, group)

    def spoil(self, directories: Iterable[int]) -> None:
        """They were not ours all the time."""
        for number in directories:
            if number in self.learning:
                self.learning[number].add(EVERYTHING)

    def let_go(self, directories: Iterable[int]) -> None:
        """From now on they are not ours, whatever an answer says that is on its way."""
        directories = list(directories)
        self.exclusive.difference_update(directories)
        self.provisional.difference_update(directories)
        self.leaving.update(directories)
        self.spoil(directories)
        self.forget(directories)

    def let_gone(self, directories: Iterable[int]) -> None:
        """The daemon is told so before it is asked anything else."""
        self.leaving.difference_update([d for d in directories if d not in self.changing])

    def adopt(self, number: int, group: Group) -> None:
        if number in self.exclusive and not self.suspended:
            self.overlay.adopt(number, group)
            self.wanted.pop(number, None)

    def touch(self, directory: int) -> None:
        """It was used last."""
        groups = self.overlay.groups
        if directory in groups:
            groups[directory] = groups.pop(directory)

    def forget_all(self) -> None:
        self.forget([*self.overlay.groups, *self.overlay.linked])

    def forget_linked(self) -> None:
        """All files with several names."""
        self.forget(list(self.overlay.linked))

    def nameless(self, ino: int) -> None:
        """A file with several names has lost the last: nobody holds it."""
        self.exclusive.discard(ino)
        self.provisional.discard(ino)

    def forget(self, directories: Iterable[int]) -> None:
        """What is known of them is not so any more, or nobody's business. What was done in them is
        still shipped."""
        directories = list(directories)
        part = self.part
        if any(d in part.places or d in part.touched_places for d in directories):
            self.seal()
        for directory in directories:
            self.overlay.forget(directory)

    def crowded_out(self) -> list[int]:
        """Directories that are let go, those used longest ago first: too much is known here."""
        groups = self.overlay.groups
        entries = sum(len(group.entries) for group in groups.values())
        going = []
        last = next(reversed(groups), 0)
        for directory, group in groups.items():
            if entries <= (LAST_ENTRIES_MAX if directory == last else ENTRIES_MAX):
                break
            if directory not in self.busy and not self.concerns(directory):
                entries -= len(group.entries)
                going.append(directory)
        if len(self.overlay.linked) > LINKED_MAX:
            free = (ino for ino in self.overlay.linked if ino not in self.busy)
            going += [ino for ino in free if not self.concerns(ino)]
        self.let_go(going)
        return going

    # ---- the log

    @property
    def is_synced(self) -> bool:
        return not (self.part.entries or self.part.touched or self.sealed)

    def concerns(self, place: int) -> bool:
        """Whether anything of it is not shipped."""
        if place in self.part.places or place in self.part.touched_places:
            return True
        return any(place in part.places for part in self.sealed)

    @property
    def has_linked(self) -> bool:
        """Whether a file with several names is in it: any directory may have one of them."""
        return self.part.has_linked or any(part.has_linked for part in self.sealed)

    def seal(self) -> int:
        """What was done until now is on its way; the number of its last part."""
        part = self.part
        if part.entries or part.touched:
            self.sealed.append(part.seal(self.overlay))
            self.part = Part(part.number + 1)
        return self.part.number - 1

    @property
    def entries(self) -> int:
        here = len(self.part.entries)
        return here + sum(part.entries for part in self.sealed) if self.sealed else here

    @property
    def bytes(self) -> int:
        here = self.part.size + self.part.contents_size
        return here + sum(part.size for part in self.sealed) if self.sealed else here

    @property
    def age_s(self) -> float:
        """Of the oldest that is not shipped."""
        if self.sealed:
            return self._now() - self.sealed[0].since
        return self._now() - self.part.since if self.part.entries else 0.0

    @property
    def is_full(self) -> bool:
        if not (self.sealed or self.part.entries):
            return False
        return self.age_s > LOG_AGE_S or self.entries >= LOG_ENTRIES or self.bytes >= LOG_BYTES

    def now(self) -> float:
        return self._now()
