"""Counters of jobs on Spark: tasks count as they do in one process (counters.py), and what they
have counted comes to the driver with an accumulator of Spark, which has it of those that succeeded.

A node is known by its number, for its copies in workers are other objects. A wide node counts what
goes in where it is made ready and what comes out where it is finished.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from superfs.chukonu.counters import Run, Tally, filtered
from superfs.chukonu.embedded.parts import LOST
from superfs.chukonu.plan.explain import operators
from superfs.chukonu.plan.logical import Scan
from superfs.chukonu.sources.ways import Ways

if TYPE_CHECKING:
    from superfs.chukonu.plan.logical import Node
    from superfs.chukonu.plan.stages import Stage
    from superfs.chukonu.sources.store import Store

Record = dict[str, Any]


class Added:
    """Of Spark's AccumulatorParam: records, one after the other."""

    def zero(self, value: list[Record]) -> list[Record]:
        return []

    def addInPlace(self, one: list[Record], other: list[Record]) -> list[Record]:
        one += other
        return one


class Counting:
    """Of one task. Nodes are given with their numbers."""

    def __init__(self, stores: list[Store], known: list[tuple[Node, int]]) -> None:
        self.tally = Tally()
        self.tally.numbers = {id(node): number for node, number in known}
        self._ways = Ways(stores)
        self._cpu_began = time.process_time()

    def rows(self, number: int, rows_in: int, rows_out: int) -> None:
        counts = self.tally.numbered(number)
        counts.rows_in += rows_in
        counts.rows_out += rows_out

    def record(self) -> Record:
        self.tally.bytes_read = self._ways.split(self.tally.bytes_read)
        return {**self.tally.record(), "cpu": time.process_time() - self._cpu_began}


class SparkRun(Run):
    """What the tasks of a job have counted. CPU seconds are those of Python workers: Spark's JVM is
    not counted."""

    def __init__(self, spark: Any, stages: Stage) -> None:  # noqa: ANN401
        self._cpu_seconds = 0.0
        known = operators(stages)
        super().__init__(known, cpu=self._workers)
        self._wide = [
            (number, node) for number, (node, _) in enumerate(known) if type(node) in LOST
        ]
        self._scans = [(n, node) for n, (node, _) in enumerate(known) if isinstance(node, Scan)]
        self._accumulator = spark.sparkContext.accumulator([], Added())

    def _workers(self) -> float:
        return self._cpu_seconds

    @property
    def accumulator(self) -> Any:  # noqa: ANN401
        return self._accumulator

    def number(self, node: Node) -> int:
        return self.numbers[id(node)]

    def finish(self, records: list[Record] | None = None) -> None:
        """`records`: those that came otherwise. BadRecordException: too many are bad."""
        for record in [*self._accumulator.value, *(records or [])]:
            tally = Tally()
            tally.recall(record)
            self.merge(tally)
            self._cpu_seconds += record.get("cpu", 0.0)
        for number, node in self._wide:
            counts = self._tally.numbered(number)
            lost = counts.rows_in - counts.rows_out - sum(counts.dropped.values())
            filtered(counts, lost, 0, LOST[type(node)])
            counts.rows_in -= lost
        self.end(_as_they_are)
        for number, node in self._scans:
            counts = self._tally.numbered(number)
            node.source.policy.judge(counts.rows_in, sum(counts.dropped.values()))


def _as_they_are(ways: dict[str, int]) -> dict[str, int]:
    return {way: size for way, size in ways.items() if size}
