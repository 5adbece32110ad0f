"""Traces of requests, as the Mooncake project publishes them: one JSON object a line.

timestamp       ms from the start
input_length    tokens of the prompt
output_length   tokens that were generated
hash_ids        one number for each 512 tokens of the prompt, chained: equal numbers mean equal
                prefixes. The last one may stand for fewer tokens.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from pathlib import Path

TRACE_BLOCK_TOKENS = 512
LINE_BYTES_MAX = 1 << 20


class Request(NamedTuple):
    time_ms: int
    tokens: int
    blocks: tuple[int, ...]


def read_trace(path: Path) -> list[Request]:
    """INVALID, with the line, for what is no such trace."""
    found: list[Request] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    found.append(_parse(line))
                except (ValueError, KeyError, TypeError, RecursionError):
                    message = f"{path}: line {number} is not a request of a trace"
                    raise FsError(Code.INVALID, message) from None
    if not found:
        raise FsError(Code.INVALID, f"{path}: there is no request in it")
    return found


def _parse(line: bytes) -> Request:
    if len(line) > LINE_BYTES_MAX:
        raise ValueError
    raw = json.loads(line)
    blocks = raw["hash_ids"]
    numbers = (raw["timestamp"], raw["input_length"], *blocks)
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError
    if len(set(blocks)) != len(blocks):
        raise ValueError
    return Request(raw["timestamp"], raw["input_length"], tuple(blocks))
