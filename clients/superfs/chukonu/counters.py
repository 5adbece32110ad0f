"""What a run has done so far, counted where it is done.

A `Tally` belongs to one task (a partition, once): rows in and out of each operator, rows dropped by
reason, bytes read. It is merged into the `Run` when the task is done, so that what failed or was
begun twice is not counted; with the record of a part it outlives the process. CPU seconds of a
process cannot be told apart by operator when several of its threads work for several of them: what
the process used in all is exact, and divided among the operators by the time that each was at work.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


@dataclass(slots=True)
class Counts:
    """Of one operator."""

    rows_in: int = 0
    rows_out: int = 0
    seconds: float = 0.0
    dropped: dict[str, int] = field(default_factory=dict)

    def merge(self, other: Counts) -> None:
        self.rows_in += other.rows_in
        self.rows_out += other.rows_out
        self.seconds += other.seconds
        for reason, rows in other.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + rows


class Tally:
    """`live`: is told of bytes at once, for those who watch."""

    def __init__(self, live: Run | None = None) -> None:
        self.operators: dict[int, Counts] = {}
        self.bytes_read: dict[str, int] = {}
        self._owned = 0
        self._live = live
        self.numbers = live.numbers if live is not None else {}

    def of(self, node: object) -> Counts:
        return self.operators.setdefault(self.numbers.get(id(node), -1), Counts())

    def numbered(self, number: int) -> Counts:
        return self.operators.setdefault(number, Counts())

    def read(self, owned: int, fetched: int, way: str) -> None:
        """`owned`: of what there is to read; `fetched`: how many bytes that took."""
        self._owned += owned
        self.bytes_read[way] = self.bytes_read.get(way, 0) + fetched
        if self._live is not None:
            self._live.advance(owned)

    @contextlib.contextmanager
    def at(self, node: object) -> Iterator[Counts]:
        """The time inside is the operator's."""
        counts = self.of(node)
        started = time.perf_counter()
        try:
            yield counts
        finally:
            counts.seconds += time.perf_counter() - started

    def record(self) -> dict[str, Any]:
        return {
            "bytes_owned": self._owned,
            "bytes_read": self.bytes_read,
            "operators": {
                str(number): [c.rows_in, c.rows_out, round(c.seconds, 6), c.dropped]
                for number, c in sorted(self.operators.items())
            },
        }

    def recall(self, record: dict[str, Any]) -> None:
        """Counts what an earlier process has counted when it did the same."""
        self.read(record["bytes_owned"], 0, "")
        self.bytes_read = dict(record["bytes_read"])
        for number, values in record["operators"].items():
            self.operators.setdefault(int(number), Counts()).merge(Counts(*values))


def filtered(counts: Counts, rows_in: int, rows_out: int, reason: str) -> None:
    counts.rows_in += rows_in
    counts.rows_out += rows_out
    if rows_in > rows_out:
        counts.dropped[reason] = counts.dropped.get(reason, 0) + rows_in - rows_out


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: in the bytes of all that is to be read, then in parts of what comes out."""

    title: str
    done: int
    total: int
    seconds: float
    """Since the run, or this half of it, began."""

    @property
    def eta_seconds(self) -> float | None:
        """None while nothing is done that it could be told from."""
        if not self.done:
            return None
        return self.seconds * max(0, self.total - self.done) / self.done


class Run:
    """One action: `operators` are (node, label) in the order in which rows meet them."""

    def __init__(
        self,
        operators: Iterable[tuple[object, str]],
        bytes_total: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        known = list(operators)
        self._nodes = [node for node, _ in known]  # their ids are theirs while they live
        self.labels = [label for _, label in known]
        self.numbers = {id(node): number for number, node in enumerate(self._nodes)}
        self.bytes_total = bytes_total
        self.tasks_total = 0
        self._tally = Tally()
        self._bytes_done = self._tasks_done = 0
        self._lock = threading.Lock()
        self._clock, self._cpu = clock, cpu
        self._began = self._half_began = clock()
        self._cpu_began = cpu()
        self._ended: tuple[float, float] | None = None
        self._ways: dict[str, int] | None = None

    def tally(self) -> Tally:
        return Tally(self)

    def advance(self, size: int) -> None:
        with self._lock:
            before = self._bytes_done < self.bytes_total
            self._bytes_done += size
            if before and self._bytes_done >= self.bytes_total:
                self._half_began = self._clock()

    def merge(self, tally: Tally, *, last: bool = False) -> None:
        """`last`: of the stage whose rows the caller gets."""
        with self._lock:
            self._tasks_done += last
            for way, size in tally.bytes_read.items():
                self._tally.bytes_read[way] = self._tally.bytes_read.get(way, 0) + size
            for number, counts in tally.operators.items():
                self._tally.operators.setdefault(number, Counts()).merge(counts)

    def end(self, split: Callable[[dict[str, int]], dict[str, int]]) -> None:
        """`split`: ways of bytes to finer ones, as far as they are known."""
        if self._ended is None:
            self._ended = self._clock(), self._cpu()
            self._ways = split(self._tally.bytes_read)

    def progress(self) -> Progress:
        with self._lock:
            seconds = self._clock() - self._half_began
            if self._bytes_done < self.bytes_total:
                return Progress("reading", self._bytes_done, self.bytes_total, seconds)
            return Progress("finishing", self._tasks_done, self.tasks_total, seconds)

    def statistics(self) -> dict[str, Any]:
        """What was counted until now, for JSON."""
        with self._lock:
            wall, cpu = self._ended or (self._clock(), self._cpu())
            cpu_seconds = cpu - self._cpu_began
            counts = [self._tally.operators.get(n, Counts()) for n in range(len(self.labels))]
            busy = sum(c.seconds for c in counts) or 1.0
            return {
                "seconds": round(wall - self._began, 3),
                "cpu_seconds": round(cpu_seconds, 3),
                "bytes_read": sum(self._tally.bytes_read.values()),
                "bytes_by_way": dict(sorted((self._ways or self._tally.bytes_read).items())),
                "operators": [
                    {
                        "operator": label,
                        "rows_in": c.rows_in,
                        "rows_out": c.rows_out,
                        "dropped": dict(sorted(c.dropped.items())),
                        "cpu_seconds": round(cpu_seconds * c.seconds / busy, 3),
                    }
                    for label, c in zip(self.labels, counts, strict=True)
                ],
            }
