"""Which descriptors of segments were passed to whom: pure bookkeeping.

A segment that is unlinked keeps its space for as long as anybody holds a descriptor of it. Whoever
does is told, and has `CLOSE_WITHIN_S` to close it; who keeps it for longer gets no more descriptors
until it is closed, and goes on getting copies. Only the peer's end takes back what was passed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Iterable

CLOSE_WITHIN_S = 30.0


@dataclass(slots=True, eq=False)
class Holder:
    held: set[int] = field(default_factory=set)
    told: dict[int, float] = field(default_factory=dict)  # unlinked and still held -> since when


class Passed:
    def __init__(self, descriptors_max: int) -> None:
        self._max = descriptors_max
        self._holders: set[Holder] = set()
        self._unlinked: dict[int, int] = {}  # segments that somebody still holds -> bytes on disk

    @property
    def descriptors(self) -> int:
        return sum(len(holder.held) for holder in self._holders)

    @property
    def pinned_bytes(self) -> int:
        return sum(self._unlinked.values())

    def join(self) -> Holder:
        holder = Holder()
        self._holders.add(holder)
        return holder

    def leave(self, holder: Holder) -> None:
        """Its end has closed everything that it held."""
        self._holders.discard(holder)
        self.close(holder, list(holder.held))

    def check(self, holder: Holder, now_s: float) -> None:
        """Whether one more may be passed: TOO_LARGE or BUSY."""
        if len(holder.held) >= self._max:
            raise FsError(Code.TOO_LARGE, f"{self._max} descriptors of segments are held already")
        if self.is_late(holder, now_s):
            raise FsError(Code.BUSY, "descriptors of removed segments are still held")

    def is_late(self, holder: Holder, now_s: float) -> bool:
        return any(now_s - since >= CLOSE_WITHIN_S for since in holder.told.values())

    def hold(self, holder: Holder, number: int) -> None:
        holder.held.add(number)

    def close(self, holder: Holder, numbers: Iterable[int]) -> None:
        for number in numbers:
            holder.held.discard(number)
            if holder.told.pop(number, None) is None:
                continue
            if not any(number in other.told for other in self._holders):
                self._unlinked.pop(number, None)

    def unlink(self, number: int, size: int, now_s: float) -> list[Holder]:
        """Who has to be told."""
        holders = [holder for holder in self._holders if number in holder.held]
        for holder in holders:
            holder.told[number] = now_s
            self._unlinked[number] = size
        return holders
