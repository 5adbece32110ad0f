"""What a Python worker of Spark does for one partition of a stage: what it is given is finished,
goes through the fused steps, and is made ready for the wide node that comes next. One crossing in,
one out, whatever is in between.

Rows of one partition come through Spark's shuffle in any order. So those that a wide node needs in
order carry where they were (`AT`), and are sorted by it; where they go is our own hash (`TO`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from superfs.chukonu import types as t
from superfs.chukonu.counters import Tally
from superfs.chukonu.embedded import wide
from superfs.chukonu.embedded.dividing import places
from superfs.chukonu.embedded.parts import Part
from superfs.chukonu.embedded.steps import run_steps
from superfs.chukonu.native import pa, pl
from superfs.chukonu.onspark.task import BATCH_ROWS, small
from superfs.chukonu.plan import logical as p

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from superfs.chukonu.expressions import Aggregate, Ref
    from superfs.chukonu.onspark.task import Splits
    from superfs.chukonu.sinks.commit import Output

TO, AT = "to", "at"
AT_BITS = 36
"""Of the number of a row in its partition; the number of the partition is above."""
Frame = Any


@dataclass(frozen=True)
class Ready:
    """For which wide node, among how many partitions, by which keys; `keys` None: as they are."""

    node: p.Node
    keys: tuple[Ref, ...] | None = None
    count: int = 1


@dataclass(frozen=True)
class StageTask:
    """Given to mapInArrow. `splits` reads; `finish` is the wide node whose rows come together here;
    neither: what comes are the rows of the stage."""

    columns: tuple[str, ...]
    schema: Any
    splits: Splits | None
    finish: p.Node | None
    steps: tuple[p.Node, ...]
    ready: Ready | None
    output: tuple[Ref, ...]

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        for frame in self.frames(batches):
            if frame.height:
                yield from _small_table(frame).to_batches(BATCH_ROWS)

    def frames(self, batches: Iterator[Any]) -> Iterator[Frame]:
        found = run_steps(self._root(batches), self.steps, Tally())
        return found if self.ready is None else _made_ready(found, self.ready)

    def _root(self, batches: Iterator[Any]) -> Iterator[Frame]:
        if self.splits is not None:
            yield from self.splits.frames(batches)
            return
        frames = (pl.from_arrow(batch).select(self.columns) for batch in batches)
        blank = pl.DataFrame(pl.from_arrow(self.schema.empty_table()))
        if self.finish is None:
            given = False
            for frame in frames:
                given = True
                yield frame.cast(blank.schema)
            if not given:
                yield blank.drop(AT, TO, strict=False)
            return
        whole = pl.concat([blank, *(frame.cast(blank.schema) for frame in frames)])
        if AT in whole.columns:
            whole = whole.sort(AT)
        yield finished(whole.drop(AT, TO, strict=False), self.finish)


def _is_wide_sum(value: Aggregate) -> bool:
    return value.function == "sum" and value.dtype == t.LONG


def carried(frame: Frame) -> Frame:
    """Partial sums are wider than what Spark can carry: as text they go anywhere."""
    return frame.with_columns(pl.col(pl.Int128).cast(pl.String))


def finished(frame: Frame, node: p.Node) -> Frame:
    if isinstance(node, p.Group) and wide.decomposable(node):
        sums = [ref.key for ref, value in node.values if _is_wide_sum(value)]
        return wide.merged(frame.with_columns(pl.col(sums).cast(pl.Int128)), node)
    if isinstance(node, (p.Sort, p.Repartition)):
        return frame
    return wide.run(frame, node)


def _made_ready(frames: Iterator[Frame], ready: Ready) -> Iterator[Frame]:
    node = ready.node
    row = _partition() << AT_BITS
    for frame in frames:
        if isinstance(node, p.Group) and wide.decomposable(node):
            frame = carried(wide.partial(frame, node))
        elif isinstance(node, p.Distinct):
            frame = wide.run(frame, node)
        at = pl.int_range(pl.len(), dtype=pl.Int64) + row
        made = [at.alias(AT)]
        if isinstance(node, p.Repartition) and not ready.keys:
            made.append((at % ready.count).cast(pl.Int32).alias(TO))
        elif ready.keys is not None:
            made.append(places(ready.keys, ready.count).alias(TO))
        yield frame.with_columns(made)
        row += frame.height


def _partition() -> int:
    from pyspark import TaskContext

    context = TaskContext.get()
    assert context is not None
    return context.partitionId()


def _small_table(frame: Frame) -> Any:  # noqa: ANN401
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    return table.cast(pa.schema([pa.field(f.name, small(f.type)) for f in table.schema]))


@dataclass(frozen=True)
class JoinTask:
    """What applyInArrow does with two cogrouped sides."""

    node: p.Join
    left: Any
    right: Any

    def run(self, left: Any, right: Any) -> Any:  # noqa: ANN401
        sides: list[Frame] = []
        for table, schema in ((left, self.left), (right, self.right)):
            blank = pl.DataFrame(pl.from_arrow(schema.empty_table()))
            found = blank if table.num_columns == 0 else pl.from_arrow(table)
            sides.append(found.select(blank.columns).cast(blank.schema).sort(AT).drop(AT, TO))
        return _small_table(wide.join(sides[0], sides[1], self.node))


@dataclass(frozen=True)
class WriteTask:
    """Writes the rows of a partition as a part of an output. Gives its record."""

    stage: StageTask
    output: Output

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        number = _partition()
        part = Part(str(number), lambda _: self.stage.frames(batches))
        record = self.output.task(number, part)(Tally())
        yield pa.RecordBatch.from_pydict({"number": [number], "record": [json.dumps(record)]})


def schema_of(frame: Frame) -> Any:  # noqa: ANN401
    """Of Arrow, as Spark hands it on."""
    return _small_table(frame).schema


def columns_of(output: Sequence[Ref]) -> tuple[str, ...]:
    return tuple(ref.key for ref in output)
