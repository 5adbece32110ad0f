"""What saves that were never committed have left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from superfs.checkpoint.directory import attempts

if TYPE_CHECKING:
    from pathlib import Path

IDLE_S = 3600.0
"""An attempt that nobody has written to for so long is not being written any more."""


@dataclass(frozen=True, slots=True)
class Leftover:
    path: Path
    checkpoint: str
    bytes: int
    idle_s: float


def leftovers(root: Path, *, idle_s: float = IDLE_S, now: float | None = None) -> list[Leftover]:
    found = []
    for name, _, path in attempts(root):
        size, last = 0, 0.0
        for where in (path, *path.iterdir()):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(where)
                last = max(last, status.st_mtime)
                size += status.st_size if where != path else 0
        idle = (time.time() if now is None else now) - last
        if idle >= idle_s:
            found.append(Leftover(path, name, size, idle))
    return found


def remove(leftover: Leftover) -> None:
    shutil.rmtree(leftover.path)
