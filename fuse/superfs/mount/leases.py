"""How long an answer of a metadata daemon may be repeated: under a lease, or for a time.

Pure. The rules are in docs/decisions/0012-shared-leases.md; `clock` counts what was recalled. Names
in an answer come under a lease only when nothing of that lease was recalled since it was asked for,
attributes when theirs were not: where others make files beside us, those of our own are still ours.

What is remembered points to a `Lease` and is good while that is: one that is recalled whole takes
everything along that was ever remembered under it. What is recalled singly is pointed to `NEVER`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from superfs.core.attrs import Attr

TABLE_MAX = 2 * 65_536
"""Twice what a daemon grants."""
ENDED_MAX = 8192
"""So many that are over are remembered one by one."""


INODES_MAX = 256
"""Of one lease, that were recalled singly and are remembered; then what was asked before comes
under none."""


class Lease:
    """`until`: by the lease clock, 0 once it is over. `recalled`: when something of it last was;
    `inodes`: when the attributes of these were; `floor`: or of any, it may be, until then."""

    __slots__ = ("floor", "id", "inodes", "recalled", "until")

    def __init__(
        self,
        id: int = 0,  # noqa: A002
        until: float = 0.0,
        recalled: int = 0,
        floor: int = 0,
    ) -> None:
        self.id = id
        self.until = until
        self.recalled = recalled
        self.floor = floor
        self.inodes: dict[int, int] | None = None

    def recall(self, clock: int, inos: Iterable[int]) -> None:
        self.recalled = clock
        inodes = self.inodes = self.inodes or {}
        inodes.update(dict.fromkeys(inos, clock))
        if len(inodes) > INODES_MAX:
            self.floor = clock
            inodes.clear()

    def was_recalled(self, ino: int, asked: int) -> bool:
        """Attributes of this inode, since then."""
        if self.recalled <= asked:
            return False
        return asked < self.floor or self.inodes is None or self.inodes.get(ino, 0) > asked


NEVER = Lease()


class Leases:
    def __init__(self) -> None:
        self.clock = 0
        self.until = 0.0
        self.latest = 0.0
        """Nothing that was ever granted is good for longer."""
        self._table: dict[int, Lease] = {}
        self._floor = 0
        self._ended = 0

    def __len__(self) -> int:
        """Held or over."""
        return len(self._table)

    def held(self) -> list[int]:
        return [lease.id for lease in self._table.values() if lease.until]

    def extend(self, until: float) -> None:
        """The daemon has heard of us."""
        self.until = max(self.until, until)
        self.latest = max(self.latest, until)
        for lease in self._table.values():
            if lease.until:
                lease.until = self.until

    def granted(self, lease_id: int, asked: int, ino: int = 0) -> Lease | None:
        """By an answer to what was asked when the clock stood at `asked`; None: too late. `ino`:
        for the attributes of that inode only."""
        if asked < self._floor or not self.until:
            return None
        lease = self._table.get(lease_id)
        if lease is None:
            if len(self._table) >= TABLE_MAX:
                self._prune()
            lease = self._table[lease_id] = Lease(lease_id)
        elif lease.was_recalled(ino, asked) if ino else lease.recalled > asked:
            return None
        lease.until = self.until
        return lease

    def recall(self, lease_id: int, *, whole: bool, inos: Iterable[int] = ()) -> None:
        """`inos`: if not `whole`, whose attributes are."""
        self.clock += 1
        lease = self._table.get(lease_id)
        if whole:
            if lease is not None:
                lease.until = 0.0
            self._table[lease_id] = Lease(lease_id, 0.0, self.clock, self.clock)
            return
        if lease is None:
            lease = self._table[lease_id] = Lease(lease_id)
        lease.recall(self.clock, inos)

    def give_back(self, lease_ids: Iterable[int]) -> list[int]:
        """Those of them that were held. An answer that was asked for before comes under none: the
        daemon may have given it before it hears of this."""
        given = []
        for lease_id in lease_ids:
            lease = self._table.get(lease_id)
            if lease is not None and lease.until:
                self.recall(lease_id, whole=True)
                given.append(lease_id)
        self._ended += len(given)
        if self._ended > ENDED_MAX:
            self._prune()
        return given

    def lapse(self) -> None:
        """All are over, and what was asked before comes under none."""
        for lease in self._table.values():
            lease.until = 0.0
        self._table.clear()
        self.clock += 1
        self._floor = self.clock
        self.until = 0.0

    def _prune(self) -> None:
        """What is not held is remembered for questions that are under way; those come too late."""
        self._table = {key: lease for key, lease in self._table.items() if lease.until}
        self._ended = 0
        self.clock += 1
        self._floor = self.clock


class Grant:
    """What one answer may be repeated under. `attr_until` and `entry_until`: what no lease covers
    may be repeated for a time."""

    __slots__ = ("_asked", "_attr", "_entry", "_given", "_last", "_leases")

    def __init__(
        self,
        leases: Leases,
        given: frozenset[int],
        asked: int,
        attr_until: float = 0.0,
        entry_until: float = 0.0,
    ) -> None:
        self._leases = leases
        self._given = given
        self._asked = asked
        self._attr = Lease(until=attr_until) if attr_until else NEVER
        self._entry = Lease(until=entry_until) if entry_until else NEVER
        self._last: tuple[int, Lease | None] = (0, None)

    def attr(self, attr: Attr) -> Lease:
        """For the attributes of an inode."""
        lease = self._under(attr.place)
        if lease is None and attr.place in self._given:
            lease = self._leases.granted(attr.place, self._asked, attr.ino)
        return lease or self._attr

    def names(self, directory: int) -> Lease:
        """For names of a directory, there or not."""
        return self._under(directory) or self._entry

    def _under(self, lease_id: int) -> Lease | None:
        if self._last[0] != lease_id:
            given = lease_id in self._given
            lease = self._leases.granted(lease_id, self._asked) if given else None
            self._last = (lease_id, lease)
        return self._last[1]
