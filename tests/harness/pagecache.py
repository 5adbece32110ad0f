"""What is in the kernel's page cache."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def resident(files: Sequence[Path]) -> int:
    """Bytes of them that are in the page cache."""
    if not files:
        return 0
    command = ["fincore", "--bytes", "--noheadings", "--output", "RES", *map(str, files)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return sum(map(int, found.stdout.split()))
