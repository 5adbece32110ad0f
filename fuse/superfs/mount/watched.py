"""Directories whose attributes the kernel believes for longer than one lease.

A directory is used without its name, by whoever has it open or works in it, so making every name
be looked up again does not end what the kernel believes of it. The guard is told its number, as
that of an open file, for as long as the kernel knows it (docs/decisions/0016-guard.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.mount.guard import SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from superfs.mount.guard import Unguarded

WATCHED_MAX = SLOTS // 2
"""The rest is for open files. Directories beyond are told of for one lease only."""
NEW_PER_SWEEP = 1024


class Watched:
    def __init__(self, guard: Unguarded, is_alive: Callable[[int], bool]) -> None:
        """`is_alive`: whether there is a node of this number: one may have been watched for an
        answer that found no room."""
        self._guard = guard
        self._is_alive = is_alive
        self._slots: dict[int, int] = {}
        self._new = 0

    def __contains__(self, number: int) -> bool:
        return number in self._slots

    def __iter__(self) -> Iterator[int]:
        return iter(self._slots)

    def watch(self, number: int) -> bool:
        """False: it cannot be."""
        if number in self._slots:
            return True
        self._new += 1
        if self._new >= NEW_PER_SWEEP:
            self._new = 0
            for known in [known for known in self._slots if not self._is_alive(known)]:
                self.forget(known)
        if len(self._slots) >= WATCHED_MAX:
            return False
        slot = self._guard.opened(number)
        if slot < 0:
            return False
        self._slots[number] = slot
        return True

    def forget(self, number: int) -> None:
        """The kernel does not know it any more."""
        slot = self._slots.pop(number, None)
        if slot is not None:
            self._guard.closed(slot)
