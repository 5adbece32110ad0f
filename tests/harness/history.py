"""What several processes did and were told, on one clock: the input of the checker.

A worker writes a line before every operation and one after it, so that what it was doing when it
was killed is known too. CLOCK_MONOTONIC is the same in all processes of a machine.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from typing import Any

FOREVER = 1 << 62
Answer = tuple["Any", ...]
UNKNOWN: Answer = ("?",)
"""Of what was never answered, or answered with an error that does not say whether it was done."""
UNSURE = frozenset({"EIO", "ENOTCONN", "ECONNABORTED", "ETIMEDOUT", "EAGAIN", "EINTR"})


@dataclass(slots=True)
class Op:
    """`answer`: ("ok", …) or the errno's name. Times in ns."""

    client: str
    verb: str
    args: tuple[Any, ...]
    invoked: int
    answered: int = FOREVER
    answer: Answer = UNKNOWN

    @property
    def ok(self) -> bool:
        return bool(self.answer[0] == "ok")

    @property
    def unsure(self) -> bool:
        return self.answered == FOREVER or self.answer[0] in UNSURE

    def __str__(self) -> str:
        end = "" if self.answered == FOREVER else f"{self.answered / 1e9:.6f}"
        what = f"{self.verb}{self.args!r} -> {self.answer!r}"
        return f"[{self.invoked / 1e9:.6f} {end}] {self.client}: {what}"[:300]


class Recorder:
    """A worker's history as a file; every line is written at once."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self._number = 0

    def invoked(self, verb: str, args: Sequence[object]) -> int:
        self._number += 1
        self._line(["i", self._number, time.monotonic_ns(), verb, args])
        return self._number

    def answered(self, number: int, answer: Sequence[object]) -> None:
        self._line(["r", number, time.monotonic_ns(), answer])

    def _line(self, what: list[object]) -> None:
        os.write(self._fd, json.dumps(what).encode() + b"\n")


def load(path: Path) -> list[Op]:
    """A worker that was killed may have left half a line."""
    ops: dict[int, Op] = {}
    for line in path.read_bytes().split(b"\n"):
        try:
            kind, number, when, *rest = json.loads(line)
        except ValueError:
            continue
        if kind == "i":
            ops[number] = Op(path.stem, rest[0], tuple(rest[1]), when)
        else:
            ops[number].answered, ops[number].answer = when, tuple(rest[0])
    return list(ops.values())


@dataclass
class Latencies:
    """In ms, of the operations that were answered."""

    values: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, ops: Iterable[Op]) -> Latencies:
        return cls(sorted((op.answered - op.invoked) / 1e6 for op in ops if op.answered != FOREVER))

    def at(self, share: float) -> float:
        return self.values[min(len(self.values) - 1, int(share * len(self.values)))]

    def __str__(self) -> str:
        p50, p99, most = self.at(0.5), self.at(0.99), self.values[-1]
        return f"{len(self.values)} operations, ms: p50 {p50:.1f} p99 {p99:.1f} max {most:.1f}"
