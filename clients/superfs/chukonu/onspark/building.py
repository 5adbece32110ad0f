"""Stages as DataFrames of Spark: every one is one mapInArrow, between them are exchanges of frames
(edges.py). Nothing runs here but samples of an order, and keys of which only hashes are needed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from superfs.chukonu.embedded import wide
from superfs.chukonu.embedded.dividing import InTurn, Ranges, Sampled
from superfs.chukonu.embedded.parts import empty
from superfs.chukonu.expressions import Ref
from superfs.chukonu.native import pa
from superfs.chukonu.onspark import edges, references
from superfs.chukonu.onspark.reader import located, specs_of
from superfs.chukonu.onspark.stagetask import Ready, StageTask, alone
from superfs.chukonu.onspark.task import Splits
from superfs.chukonu.plan import logical as p
from superfs.chukonu.plan.pruning import prune
from superfs.chukonu.plan.stages import Stage, cut
from superfs.chukonu.sources.grouping import identity
from superfs.chukonu.sources.grouping import plain as whole
from superfs.chukonu.sources.splits import SAMPLE_SPLIT_BYTES, packed_together

if TYPE_CHECKING:
    from superfs.chukonu.onspark.counting import SparkRun
    from superfs.chukonu.sources.files import Source

Frame = Any
SAMPLE_BYTES = 16 << 20
"""Of files, that are read to find ranges of an order."""
LOCAL_ROWS = 1 << 16
"""Rows of the program that are one partition."""


class Builder:
    """`counts` False: of what it builds only bytes and CPU seconds are counted. `ordered`: the
    answer depends on the order of what is read."""

    def __init__(
        self,
        spark: Any,  # noqa: ANN401
        partitions: int,
        run: SparkRun,
        *,
        counts: bool = True,
        ordered: bool = True,
    ) -> None:
        self.spark = spark
        self.partitions = partitions
        self.run = run
        self._counts = counts
        self._ordered = ordered
        self._samples = False
        self.layout: list[str] = []
        """What the partitions depend on, besides the plan and their number."""

    def uncounted(self) -> Builder:
        """Another one for the same job, which does a part of it beforehand."""
        return Builder(self.spark, self.partitions, self.run, counts=False, ordered=self._ordered)

    def data(self, task: tuple[Any, StageTask]) -> Any:  # noqa: ANN401
        """What the task makes, as a DataFrame of Spark."""
        given, made = task
        return given.mapInArrow(made, edges.DDL)

    def stage(self, stage: Stage, ready: Ready = Ready()) -> tuple[Any, StageTask]:  # noqa: B008
        """What the task of a stage is given, and the task."""
        node = stage.root
        numbers = self.numbers(node, *stage.steps)
        steps = tuple(alone(step) for step in stage.steps)
        blank = (empty(node.output),)
        plain = StageTask(None, blank, None, steps, ready, numbers, self.run.accumulator)
        match node:
            case p.Scan():
                return self._scanned(node, plain)
            case p.Local(frame):
                return self._given(frame), replace(plain, passes=True)
            case p.Union():
                return self._united(stage, node), replace(plain, passes=True)
            case p.Distinct() if references.suffice(stage.inputs[0], node):
                return references.distinct(self, stage, node, plain)
        return self._exchanged(stage, node, plain)

    def numbers(self, *nodes: p.Node) -> tuple[int, ...]:
        return tuple(self.run.number(node) if self._counts else -1 for node in nodes)

    def _scanned(self, node: p.Scan, plain: StageTask) -> tuple[Any, StageTask]:
        source: Source = node.source
        source.planned()
        policy = replace(source.policy, fraction_max=1.0)  # what of all is bad is known at the end
        groups = source.groups(ordered=self._ordered)
        if self._samples:
            source = replace(source, split_bytes=SAMPLE_SPLIT_BYTES, sample_bytes=SAMPLE_BYTES)
            policy = replace(policy, keeps=False)
            groups = whole(packed_together(source.splits, self.partitions))
        self.layout.append(identity(groups))
        splits = Splits(replace(source, files=[], policy=policy), node.columns)
        return located(self.spark, specs_of(groups)), replace(plain, splits=splits)

    def _given(self, frame: Frame) -> Any:  # noqa: ANN401
        """Rows of the program. Few of them are one partition."""
        step = max(1, LOCAL_ROWS, -(-frame.height // self.partitions))
        found = [(0, part) for part in frame.iter_slices(step)] if frame.height else []
        made = list(edges.batches(found, 0, 0))
        table = pa.Table.from_batches(made, edges.SCHEMA)
        data = self.spark.createDataFrame(table, edges.DDL)
        return data.coalesce(1) if len(made) <= 1 else data

    def _united(self, stage: Stage, node: p.Union) -> Any:  # noqa: ANN401
        made = []
        for side in stage.inputs:
            given, task = self.stage(side)
            pairs = tuple(zip(node.columns, side.output, strict=True))
            step = p.Project(p.Local(None, side.output), pairs)
            task = replace(task, steps=(*task.steps, step), numbers=(*task.numbers, -1))
            made.append(self.data((given, task)))
        return _together(made)

    def _exchanged(self, stage: Stage, node: p.Node, plain: StageTask) -> tuple[Any, StageTask]:
        sides = []
        blanks = []
        count = 1
        for side, inner in enumerate(stage.inputs):
            ready = self._ready(node, side)
            count = ready.count
            sides.append(self.data(self.stage(inner, ready)))
            blank = empty(inner.output)
            if isinstance(node, p.Group) and wide.decomposable(node):
                blank = wide.partial(blank, node).clear()
            blanks.append(blank)
        data = _together(sides).repartitionById(count, edges.TO)
        finish = None if isinstance(node, p.Repartition) else alone(node)
        return data, replace(plain, blanks=tuple(blanks), finish=finish)

    def _ready(self, node: p.Node, side: int) -> Ready:
        """How the rows of a side are divided."""
        number = self.numbers(node)[0]
        ready = Ready(alone(node), side, number=number)
        match node:
            case p.Limit():
                return ready
            case p.Sort():
                ranges = self._ranges(node)
                if ranges is None:
                    return ready
                self.layout.append(ranges.name)
                return replace(ready, count=ranges.count, division=ranges)
            case p.Repartition(_, count, given):
                count, keys = max(1, count), [k for k in given if isinstance(k, Ref)]
                return replace(ready, count=count, division=InTurn(count, keys))
            case p.Group() if wide.decomposable(node):
                keys = [ref for ref, _ in node.keys]
            case p.Join(_, _, _, left, right):
                keys = [key for key in (left, right)[side] if isinstance(key, Ref)]
            case _:
                keys = wide.keys_of(node)
        if not keys:
            return ready
        return replace(ready, count=self.partitions, division=InTurn(self.partitions, keys))

    def _ranges(self, node: p.Sort) -> Ranges | None:
        """Of a sample, for which the stages below are run with what the order looks at, or with a
        part of the files if they read."""
        if self.partitions < 2:
            return None
        keys = tuple(dict.fromkeys(order.child for order in node.orders))
        refs = [key for key in keys if isinstance(key, Ref)]
        plan = prune(p.Project(node.child, tuple((ref, ref) for ref in refs)))
        builder = self.uncounted()
        stage = cut(plan)
        builder._samples = isinstance(stage.root, p.Scan)
        sample = Ready(division=Sampled())
        found = collected(builder.data(builder.stage(stage, sample)))
        frames = [piece.frame() for piece in found] or [empty(plan.output)]
        return Ranges(node.orders, frames, self.partitions)


def collected(data: Any) -> list[edges.Piece]:  # noqa: ANN401
    """Runs it."""
    return edges.in_order(edges.pieces(data.toArrow().to_batches()))


def _together(sides: list[Any]) -> Any:  # noqa: ANN401
    found = sides[0]
    for side in sides[1:]:
        found = found.unionAll(side)
    return found


def depends_on_order(node: p.Node) -> bool:
    """Whether another order of the same rows could make another answer, up to its order."""
    match node:
        case p.Distinct() | p.Limit() | p.Windowed() | p.Sort():
            return True
        case p.Group() if not wide.decomposable(node):
            return True
    return any(depends_on_order(child) for child in node.children)
