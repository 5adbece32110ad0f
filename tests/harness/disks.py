"""Disks that are soon full. Root only."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness import leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def small_disk(path: Path, mib: int) -> Iterator[Path]:
    path.mkdir(parents=True)
    leftovers.directories.add(path)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "tmpfs", path], check=True
    )
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)
        path.rmdir()
        leftovers.directories.discard(path)
