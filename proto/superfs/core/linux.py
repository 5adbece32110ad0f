"""What the running kernel can do, where only its version tells."""

from __future__ import annotations

import os
import re


def is_since(version: tuple[int, int], release: str = "") -> bool:
    """Whether this kernel, or that of such a release, is of that version or later."""
    found = re.match(r"(\d+)\.(\d+)", release or os.uname().release)
    return found is not None and (int(found[1]), int(found[2])) >= version
