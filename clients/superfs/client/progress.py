"""How far the copy of a tree has come."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from superfs.core.errors import FsError

if TYPE_CHECKING:
    from collections.abc import Callable

ERRORS_KEPT = 1000


@dataclass(slots=True)
class Progress:
    """Counts what is done. `errors`: (path, reason) of what was left out, the first thousand;
    `errors_total` counts all. A copy with errors goes on with everything else."""

    files: int = 0  # of any kind but directories
    directories: int = 0
    bytes_done: int = 0
    errors: list[tuple[str, str]] = field(default_factory=list)
    errors_total: int = 0
    current: str = ""

    def failed(self, path: bytes, error: Exception | str) -> None:
        if isinstance(error, FsError):
            reason = f"{os.strerror(error.errno)} ({error})"
        elif isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        else:
            reason = str(error)
        self.errors_total += 1
        if len(self.errors) < ERRORS_KEPT:
            self.errors.append((os.fsdecode(path), reason))


@dataclass(slots=True)
class Reporter:
    progress: Progress
    callback: Callable[[Progress], object] | None

    def report(self, current: bytes) -> None:
        self.progress.current = os.fsdecode(current)
        if self.callback is not None:
            self.callback(self.progress)
