"""How much a mount may remember, so that its process stays under `memory_max`.

Pure. What is promised is resident memory, what can be counted is what is remembered. The sum of
what that costs each is only nearly right, and freed memory is not always given back: so what is
remembered has a ceiling, which comes down when the process has grown all the same, and goes up
again when it has shrunk.
"""

from __future__ import annotations

from superfs.core.limits import MIB

ROOM_PART = 8
ROOM_BYTES_MIN = 12 * MIB
"""What is free for the moment between two looks, and for requests under way."""
FLOOR_BYTES = 2 * MIB
"""So much is remembered in any case: what is in use just now."""
SLACK_PART = 10
"""When it is too much, a tenth more than that is forgotten: it is not done for every file."""


class Budget:
    def __init__(self, max_bytes: int, base_bytes: int) -> None:
        """`base_bytes`: resident before anything was remembered."""
        self.max_bytes = max_bytes
        self._soft = max_bytes - max(max_bytes // ROOM_PART, ROOM_BYTES_MIN)
        self._base = base_bytes
        self._worst = 0
        self.ceiling = self._most()

    def _most(self) -> int:
        return max(FLOOR_BYTES, self._soft - self._base)

    def is_tight(self, resident: int) -> bool:
        return resident > self._soft

    def excess(self, resident: int, remembered: int) -> int:
        """How much of what is remembered is to be forgotten; both in bytes."""
        if resident <= self._soft - self._soft // SLACK_PART:
            self._worst = 0
            self.ceiling = self._most()
        elif resident > max(self._soft, self._worst):
            # It has grown further: each time by more than what was forgotten has made room for.
            over = resident - max(self._soft, self._worst)
            self._worst = resident
            self.ceiling = max(FLOOR_BYTES, min(self.ceiling, remembered) - over)
        if remembered <= self.ceiling:
            return 0
        return remembered - self.ceiling + self.ceiling // SLACK_PART
