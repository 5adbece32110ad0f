"""What a Python worker of Spark does for one partition of a stage: what it is given is finished,
goes through the fused steps, and is made ready for the wide node that comes next. One crossing in,
one out, of frames as they are (edges.py), whatever is in between.

Pieces of one partition come through Spark's shuffle in any order. So they carry where they were,
and are sorted by it; where they go is our own hash, or a range of an order.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from superfs.chukonu.embedded import wide
from superfs.chukonu.embedded.parts import Part
from superfs.chukonu.embedded.steps import run_steps
from superfs.chukonu.native import pa, pl
from superfs.chukonu.onspark import edges
from superfs.chukonu.onspark.counting import Counting
from superfs.chukonu.plan import logical as p

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.chukonu.onspark.task import Splits
    from superfs.chukonu.sinks.commit import Output

Frame = Any
RECORDS = "number LONG, record STRING"


class Divides(Protocol):
    def parts(self, frame: Frame) -> Iterator[tuple[int, Frame]]:
        """(number of a partition, rows for it), in their order."""


@dataclass(frozen=True)
class Ready:
    """For which wide node, as which of its inputs, and how its rows are divided among `count`
    partitions. `division` None: all are for one."""

    node: p.Node | None = None
    side: int = 0
    count: int = 1
    division: Divides | None = None
    number: int = -1
    """By which it is counted."""

    def divided(
        self, frames: Iterator[Frame], counting: Counting, base: int
    ) -> Iterator[tuple[int, Frame]]:
        """`base`: where they are among all frames."""
        node = self.node
        left = node.count if isinstance(node, p.Limit) else 0
        for whole in frames:
            frame = whole
            if self.node is not None:
                counting.rows(self.number, frame.height, 0)
            if isinstance(node, p.Group) and wide.decomposable(node):
                frame = wide.partial(frame, node)
            elif isinstance(node, p.Distinct):
                frame = wide.run(frame, node)
            elif isinstance(node, p.Limit):
                frame = frame.head(left)
                left -= frame.height
            if self.division is None:
                yield 0, frame
            else:
                yield from self.division.parts(frame)
            if isinstance(node, p.Limit) and left <= 0:
                return


@dataclass(frozen=True)
class StageTask:
    """Given to mapInArrow. `splits` reads; `finish` is the wide node whose rows come together here;
    neither: what comes are the rows of the stage. `blanks`: of each input, a frame without rows."""

    splits: Splits | None
    blanks: tuple[Frame, ...]
    finish: p.Node | None
    steps: tuple[p.Node, ...]
    ready: Ready
    numbers: tuple[int, ...]
    """Of the root and of each of the steps, by which they are counted."""
    accumulator: Any = None
    passes: bool = False
    """What comes was not counted as what goes into the root, and comes in its order."""

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        counting = self.counting()
        for base, found in self.based(batches, counting):
            frames = self.ready.divided(found, counting, base)
            yield from edges.batches(frames, self.ready.side, base)
        if self.accumulator is not None:
            self.accumulator.add([counting.record()])

    def counting(self) -> Counting:
        known = list(zip(self.steps, self.numbers[1:], strict=True))
        if self.splits is None:
            return Counting([], known)
        return Counting([self.splits.source.store], [*known, *self.splits.known])

    def based(
        self, batches: Iterator[Any], counting: Counting
    ) -> Iterator[tuple[int, Iterator[Frame]]]:
        """Frames, and the number of what they come from: of a unit that is read, of the partition
        else."""
        tally = counting.tally
        if self.splits is None:
            yield partition(), run_steps(self._root(batches, counting), self.steps, tally)
            return
        for unit in self.splits.units(batches):
            frames = self.splits.read(unit, tally, self.numbers[0])
            yield unit.number, run_steps(frames, self.steps, tally)

    def frames(self, batches: Iterator[Any], counting: Counting) -> Iterator[Frame]:
        for _, frames in self.based(batches, counting):
            yield from frames

    def _root(self, batches: Iterator[Any], counting: Counting) -> Iterator[Frame]:
        number = self.numbers[0]
        found = edges.pieces(batches)
        if self.finish is not None:
            done = self._finished(list(found), self.finish)
            counting.rows(number, 0, done.height)
            yield done
            return
        given = False
        for piece in found if self.passes else edges.in_order(found):
            frame = piece.frame()
            given = True
            counting.rows(number, frame.height if self.passes else 0, frame.height)
            yield frame
        if not given:
            yield self.blanks[0]

    def _finished(self, found: list[edges.Piece], node: p.Node) -> Frame:
        sides = []
        for side, blank in enumerate(self.blanks):
            frames = [piece.frame() for piece in edges.in_order(found, side)]
            sides.append(pl.concat(frames) if frames else blank)
        match node:
            case p.Join():
                return wide.join(sides[0], sides[1], node)
            case p.Limit(_, count):
                return sides[0].head(count)
            case p.Group() if wide.decomposable(node):
                return wide.merged(sides[0], node)
        return wide.run(sides[0], node)


def partition() -> int:
    from pyspark import TaskContext

    context = TaskContext.get()
    assert context is not None
    return context.partitionId()


@dataclass(frozen=True)
class WriteTask:
    """Writes the rows of a partition as a part of an output. Gives its record."""

    stage: StageTask
    output: Output

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        number = partition()
        counting = self.stage.counting()
        part = Part(str(number), lambda _: self.stage.frames(batches, counting))
        record = self.output.task(number, part)(counting.tally)
        record["counts"]["cpu"] = counting.record()["cpu"]
        yield pa.RecordBatch.from_pydict({"number": [number], "record": [json.dumps(record)]})


def alone(node: p.Node) -> p.Node:
    """Without what is below it, but for its columns: workers need no more."""
    return node.over(*(p.Local(None, child.output) for child in node.children))
