"""How old what is known about a file may be for who has it open (close-to-open)."""

from __future__ import annotations

import time

ATTR_AGE_S = 1.0
"""Believed so long, unless it is known that it has changed. Questions about the file itself are
always asked."""


class Age:
    """`recalls`: how often somebody else has changed it. `seen`: so many of these before the last
    question that was answered."""

    __slots__ = ("_told_s", "recalls", "seen")

    def __init__(self) -> None:
        self.recalls = self.seen = 0
        self.told()

    def told(self) -> None:
        self._told_s = time.monotonic()

    @property
    def is_over(self) -> bool:
        return self.seen != self.recalls or time.monotonic() - self._told_s > ATTR_AGE_S
