"""What `superfs bench` can measure: shapes of work, and the phases of each.

Standard library only, and nothing but descriptions: the acts are in `smallfiles`, `transfers` and
`shuffled`, the processes that do them in `workers`.

easy      as IO500's mdtest-easy: a private directory per process, empty files
hard      as IO500's mdtest-hard: one directory for all processes, files of 3,901 bytes
4k, 64k   a private directory per process, files of that size
seq       a big file per process, in pieces of 1 MiB
rand      4 KiB at random places of such a file
shuffle   a training job: epochs over a data set of small files, each in an order of its own

A phase is timed; what stands in `before` is done first and is not. Warm phases warm up by doing
the same once before, so that each phase means the same whatever came before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

KIB, MIB = 1 << 10, 1 << 20
HARD_BYTES = 3901
PIECE_BYTES, RANDOM_BYTES = MIB, 4 * KIB

DROP = "drop"
"""The kernel forgets dentries, inodes and pages; where that may not be done, no such phase."""
DROP_IF = "drop-if"
"""The same, but without it the phase still means something."""


@dataclass(frozen=True, slots=True)
class Phase:
    name: str
    act: str
    before: tuple[str, ...] = ()
    op_bytes: int = 0  # where the rate is of bytes: how many one operation moves

    @property
    def needs_drop(self) -> bool:
        return DROP in self.before


@dataclass(frozen=True, slots=True)
class Shape:
    name: str
    text: str
    phases: tuple[Phase, ...]
    file_bytes: int = 0
    shared: bool = False

    @property
    def big(self) -> bool:
        """A big file instead of many small ones."""
        return not any(phase.act in ("create", "epoch") for phase in self.phases)

    def phase(self, name: str) -> Phase:
        return next(phase for phase in self.phases if phase.name == name)


@dataclass(frozen=True, slots=True)
class Job:
    """One shape on one directory by so many processes. `files` and `io_bytes` are per process."""

    top: Path
    shape: Shape
    procs: int
    files: int
    file_bytes: int
    io_bytes: int
    io_ops: int
    fsync: bool = False
    seed: int = 1


_NAMES = (
    Phase("create", "create"),
    Phase("stat", "stat", before=("stat",)),
    Phase("stat-cold", "stat", before=("ls", DROP)),
)
_READS = (
    Phase("read", "read", before=("read",)),
    Phase("read-cold", "read", before=(DROP, "ls")),
)
_REST = (
    Phase("ls", "ls", before=("ls",)),
    Phase("ls-l", "ls-l", before=("ls-l",)),
    Phase("ls-l-cold", "ls-l", before=(DROP,)),
    Phase("rename", "rename"),
    Phase("unlink", "unlink"),
)
FILE_PHASES = _NAMES + _READS + _REST
SEQ_PHASES = (
    Phase("write", "seq-write", op_bytes=PIECE_BYTES),
    Phase("read-cold", "seq-read", before=(DROP_IF,), op_bytes=PIECE_BYTES),
)
RAND_PHASES = (
    Phase("read-cold", "rand-read", before=("seq-write", DROP_IF)),
    Phase("write", "rand-write"),
)
SHUFFLE_PHASES = (
    Phase("epoch-cold", "epoch", before=("dataset", DROP)),
    Phase("epoch", "epoch", before=("dataset", "epoch")),
)

SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape("easy", "empty files, a directory per process", _NAMES + _READS[:1] + _REST),
        Shape("hard", "3,901-byte files, one directory", FILE_PHASES, HARD_BYTES, shared=True),
        Shape("4k", "4 KiB files, a directory per process", FILE_PHASES, 4 * KIB),
        Shape("64k", "64 KiB files, a directory per process", FILE_PHASES, 64 * KIB),
        Shape("seq", "a file per process, pieces of 1 MiB, fsync at the end", SEQ_PHASES),
        Shape("rand", "4 KiB at random places, fsync at the end", RAND_PHASES),
        Shape("shuffle", "epochs over a shuffled data set of small files", SHUFFLE_PHASES, 4 * KIB),
    )
}
