"""Lines of a block, with their offsets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")


def lines_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(offset in the block, line without its end)."""
    if b"\r" in data:
        for match in _LINE.finditer(data):
            line = match.group()
            end = 2 if line.endswith(b"\r\n") else 1 if line.endswith((b"\r", b"\n")) else 0
            yield match.start(), line[: len(line) - end]
        return
    place = 0
    for line in data.split(b"\n"):
        if place + len(line) < len(data) or line:
            yield place, line
        place += len(line) + 1
