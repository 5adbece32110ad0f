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
from superfs.chukonu.catalog.dtypes import dtype, small, type_of_arrow
from superfs.chukonu.embedded import wide
from superfs.chukonu.embedded.dividing import places
from superfs.chukonu.embedded.parts import Part
from superfs.chukonu.embedded.steps import run_steps
from superfs.chukonu.native import pa, pl
from superfs.chukonu.onspark.counting import Counting, counted
from superfs.chukonu.onspark.task import BATCH_ROWS
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
    number: int = -1
    """By which it is counted."""


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
    numbers: tuple[int, ...] = ()
    """Of the root and of each of the steps, by which they are counted."""
    accumulator: Any = None
    passes: bool = False
    """What comes has not been counted as what goes into the root."""

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        counting = self.counting()
        for frame in counted(self.frames(batches, counting), counting, self.accumulator):
            if frame.height:
                yield from _small_table(frame).to_batches(BATCH_ROWS)

    def counting(self) -> Counting:
        stores = [] if self.splits is None else [self.splits.source.store]
        return Counting(stores, list(zip(self.steps, self.numbers[1:], strict=True)))

    def frames(self, batches: Iterator[Any], counting: Counting) -> Iterator[Frame]:
        found = run_steps(self._root(batches, counting), self.steps, counting.tally)
        return found if self.ready is None else _made_ready(found, self.ready, counting)

    def _root(self, batches: Iterator[Any], counting: Counting) -> Iterator[Frame]:
        number = self.numbers[0]
        if self.splits is not None:
            yield from self.splits.frames(batches, counting.tally, number)
            return
        # Moments come in the zone of the session.
        tables = (pa.Table.from_batches([batch]).select(self.columns) for batch in batches)
        frames = (pl.from_arrow(table.cast(self.schema)) for table in tables)
        blank = blank_of(self.schema)
        if self.finish is None:
            given = False
            for frame in frames:
                given = True
                counting.rows(number, frame.height if self.passes else 0, frame.height)
                yield frame.cast(blank.schema)
            if not given:
                yield blank.drop(AT, TO, strict=False)
            return
        whole = pl.concat([blank, *(frame.cast(blank.schema) for frame in frames)])
        if AT in whole.columns:
            whole = whole.sort(AT)
        done = finished(whole.drop(AT, TO, strict=False), self.finish)
        counting.rows(number, 0, done.height)
        yield done


def _is_wide_sum(value: Aggregate) -> bool:
    return value.function == "sum" and (
        value.dtype == t.LONG or isinstance(value.dtype, t.DecimalType)
    )


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


def _made_ready(frames: Iterator[Frame], ready: Ready, counting: Counting) -> Iterator[Frame]:
    node = ready.node
    row = _partition() << AT_BITS
    for frame in frames:
        counting.rows(ready.number, frame.height, 0)
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
    number: int
    accumulator: Any

    def run(self, left: Any, right: Any) -> Any:  # noqa: ANN401
        sides: list[Frame] = []
        for table, schema in ((left, self.left), (right, self.right)):
            blank = blank_of(schema)
            found = blank if table.num_columns == 0 else pl.from_arrow(table.cast(schema))
            sides.append(found.select(blank.columns).cast(blank.schema).sort(AT).drop(AT, TO))
        counting = Counting([], [])
        joined = wide.join(sides[0], sides[1], self.node)
        counting.rows(self.number, 0, joined.height)
        self.accumulator.add([counting.record()])
        return _small_table(joined)


@dataclass(frozen=True)
class WriteTask:
    """Writes the rows of a partition as a part of an output. Gives its record."""

    stage: StageTask
    output: Output

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        number = _partition()
        counting = self.stage.counting()
        part = Part(str(number), lambda _: self.stage.frames(batches, counting))
        record = self.output.task(number, part)(counting.tally)
        record["counts"]["cpu"] = counting.record()["cpu"]
        yield pa.RecordBatch.from_pydict({"number": [number], "record": [json.dumps(record)]})


def blank_of(schema: Any) -> Frame:  # noqa: ANN401
    """A frame without rows: of what Spark carries under this schema."""
    return pl.DataFrame(schema={f.name: dtype(type_of_arrow(f.type)) for f in schema})


def schema_of(frame: Frame) -> Any:  # noqa: ANN401
    """Of Arrow, as Spark hands it on."""
    return _small_table(frame).schema


def columns_of(output: Sequence[Ref]) -> tuple[str, ...]:
    return tuple(ref.key for ref in output)
