"""How the byte budget of a session is shared out.

A quarter is for rows that wide operations keep in memory instead of files, all of them together.
The rest is for what tasks work on: each thread has one part in hand, with the copies that sorting
or joining it makes, and a few frames that wait to be taken.
"""

from __future__ import annotations

import threading

FRAME_BYTES = 16 << 20
"""As much as a frame is meant to have at most, where memory is no concern."""
PART_BYTES_MIN = 1 << 20


class Budget:
    def __init__(self, total_bytes: int, threads: int) -> None:
        self.total_bytes = total_bytes
        self.held_max = total_bytes // 4
        self.part_bytes = max(PART_BYTES_MIN, total_bytes // (16 * threads))
        """Of what was divided into files, what one task brings back at once."""
        self.frame_bytes = min(FRAME_BYTES, self.part_bytes)
        self._held = 0
        self._lock = threading.Lock()

    def hold(self, size: int) -> bool:
        """Whether so much more may be kept in memory; then it is counted until `release`."""
        with self._lock:
            if self._held + size > self.held_max:
                return False
            self._held += size
            return True

    def release(self, size: int) -> None:
        with self._lock:
            self._held -= size
