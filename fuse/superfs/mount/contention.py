"""Directories that this mount and others change at the same time.

The kernel drops a name under the lock of its directory, which a local process may hold while it
waits for us, and we for another mount that waits for the like of us. So of a contended directory
the kernel is given no names to keep: it asks at every use, and nothing has to be dropped. What it
was given before is dropped when it changes, once.

Pure; times are of the lease clock, in seconds.
"""

from __future__ import annotations

CONTENDED_S = 10.0
"""After the last sign of it."""
DROPPED_MAX = 4096


class Contention:
    """Of one directory. `until`: no names are given before."""

    __slots__ = ("_believed", "_dropped", "until")

    def __init__(self, now: float, believed: float) -> None:
        """`believed`: until when the kernel may believe what it was given before."""
        self.until = now + CONTENDED_S
        self._believed = believed
        self._dropped: set[bytes] = set()

    def goes_on(self, now: float) -> None:
        self.until = now + CONTENDED_S

    def may_be_believed(self, name: bytes, now: float) -> bool:
        return now < self._believed and name not in self._dropped

    def dropped(self, name: bytes) -> None:
        """By the kernel."""
        if len(self._dropped) < DROPPED_MAX:
            self._dropped.add(name)

    def moved_in(self, name: bytes, believed: float) -> None:
        """The kernel has renamed to this what it may have been given under another name."""
        self._believed = max(self._believed, believed)
        self._dropped.discard(name)
