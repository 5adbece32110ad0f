"""Plans on Apache Spark: Spark schedules, retries and shuffles, Chukonu computes.

Every stage is one mapInArrow: what came together is finished, the fused segment runs, and what goes
to the next wide node is made ready (partial sums, first rows of equal ones, a place by our hash). A
wide edge is an exchange of Spark: `repartitionById` by our places, its own sort for an order, a
cogroup for a join. Splits prefer the hosts that have their bytes.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from superfs.chukonu import errors
from superfs.chukonu.embedded import wide
from superfs.chukonu.embedded.parts import Part, empty, together
from superfs.chukonu.errors import UnsupportedError
from superfs.chukonu.expressions import Ref
from superfs.chukonu.native import pl
from superfs.chukonu.onspark.counting import SparkRun
from superfs.chukonu.onspark.reader import located
from superfs.chukonu.onspark.stagetask import (
    AT,
    TO,
    JoinTask,
    Ready,
    StageTask,
    WriteTask,
    carried,
    columns_of,
    schema_of,
)
from superfs.chukonu.onspark.task import Splits, ddl_of_arrow
from superfs.chukonu.plan import logical as p
from superfs.chukonu.plan.pruning import prune
from superfs.chukonu.plan.stages import Stage, cut

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.chukonu.plan.logical import Node
    from superfs.chukonu.sinks.commit import Output

Frame = Any
_ERROR = re.compile(r"superfs\.chukonu\.errors\.(\w+): \[(\w+)\] ([^\n]*)")


class SparkExecutor:
    last_run: SparkRun | None = None
    """Of the job that was begun last."""

    def __init__(self, spark: Any, partitions: int | None = None) -> None:  # noqa: ANN401
        """`partitions`: of an exchange."""
        self.spark = spark
        self.partitions = partitions or 2 * spark.sparkContext.defaultParallelism

    def close(self) -> None:
        """Whoever made the Spark session stops it (starting.py)."""

    def frames(self, plan: Node) -> Iterator[Frame]:
        plan = prune(plan)
        stages = cut(plan)
        run = self.last_run = SparkRun(self.spark, stages)
        data, task = self._stage(stages, None)
        with as_ours():
            table = self._run(data, task).toArrow()
        run.finish()
        blank = empty(plan.output)
        if table.num_rows:
            plain = table.select(blank.columns).cast(schema_of(blank))
            yield pl.from_arrow(plain).cast(blank.schema)

    def frame(self, plan: Node) -> Frame:
        return together(list(self.frames(plan)), prune(plan).output)

    def write(self, output: Output) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        stages = cut(output.plan)
        run = self.last_run = SparkRun(self.spark, stages)
        data, task = self._stage(stages, None)
        count = data.rdd.getNumPartitions()
        layout = uuid.uuid4().hex if _sorts(stages) else f"spark {count}"
        output.begin([Part(layout, lambda _: iter(()))])
        with as_ours():
            rows = data.mapInArrow(WriteTask(task, output), "number LONG, record STRING").collect()
        found = {row["number"]: json.loads(row["record"]) for row in rows}
        records = [found[number] for number in sorted(found)]
        run.finish([record["counts"] for record in records])
        return records, run.statistics()

    # ---- stages

    def _run(self, data: Any, task: StageTask) -> Any:  # noqa: ANN401
        """The DataFrame of Spark that the task makes of `data`."""
        blank = _blank(task.output, task.ready)
        return data.mapInArrow(task, ddl_of_arrow(schema_of(blank)))

    def _stage(self, stage: Stage, ready: Ready | None) -> tuple[Any, StageTask]:
        """What the task of a stage is given, and the task."""
        node = stage.root
        run = self.last_run
        assert run is not None
        numbers = run.numbered((node, *stage.steps))
        plain = StageTask(
            (), None, None, None, stage.steps, ready, stage.output, numbers, run.accumulator
        )
        match node:
            case p.Scan():
                source = node.source
                if source.policy.fraction_max < 1:
                    why = "would be of each split by itself"
                    raise UnsupportedError("maxBadFraction on Spark", why)
                splits = Splits(replace(source, files=[]), node.columns)
                return located(self.spark, source), replace(plain, splits=splits)
            case p.Local(frame):
                schema = schema_of(frame)
                table = frame.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)
                data = self.spark.createDataFrame(table, ddl_of_arrow(schema))
                data = data.coalesce(1) if frame.height < (1 << 16) else data
                columns = tuple(frame.columns)
                return data, replace(plain, columns=columns, schema=schema, passes=True)
            case p.Union():
                data = self._united(stage, node)
            case p.Join():
                data = self._joined(stage, node)
            case _:
                return self._exchanged(stage, node, plain)
        schema, columns = schema_of(empty(node.output)), columns_of(node.output)
        passes = isinstance(node, p.Union)
        if isinstance(node, p.Join):  # which has counted what it gives
            plain = replace(plain, numbers=(-1, *plain.numbers[1:]))
        return data, replace(plain, columns=columns, schema=schema, passes=passes)

    def _exchanged(self, stage: Stage, node: Node, plain: StageTask) -> tuple[Any, StageTask]:
        inner = stage.inputs[0]
        ready = self._ready(node)
        data, task = self._stage(inner, ready)
        blank = _blank(inner.output, ready)
        data = self._run(data, task)
        finish: Node | None = node
        if isinstance(node, p.Sort):
            data = data.orderBy(*(_ordered(order) for order in node.orders), AT)
            finish = None
        elif isinstance(node, p.Limit):
            data = data.orderBy(AT).limit(node.count).coalesce(1)
            finish = None
        else:
            data = data.repartitionById(ready.count, TO)
            finish = None if isinstance(node, p.Repartition) else node
        columns = tuple(blank.columns) if finish is not None else columns_of(inner.output)
        schema = schema_of(blank.select(columns))
        return data, replace(plain, columns=columns, schema=schema, finish=finish)

    def _ready(self, node: Node) -> Ready:
        assert self.last_run is not None
        return replace(self._divided(node), number=self.last_run.number(node))

    def _divided(self, node: Node) -> Ready:
        match node:
            case p.Group() if wide.decomposable(node):
                keys = tuple(ref for ref, _ in node.keys)
            case p.Repartition(_, count, given):
                return Ready(node, tuple(k for k in given if isinstance(k, Ref)), max(1, count))
            case p.Sort() | p.Limit():
                return Ready(node)
            case _:
                keys = tuple(wide.keys_of(node))
        return Ready(node, keys, self.partitions if keys else 1)

    def _united(self, stage: Stage, node: p.Union) -> Any:  # noqa: ANN401
        found = None
        for side in stage.inputs:
            data, task = self._stage(side, None)
            made = self._run(data, task).toDF(*columns_of(node.columns))
            found = made if found is None else found.unionAll(made)
        return found

    def _joined(self, stage: Stage, node: p.Join) -> Any:  # noqa: ANN401
        run = self.last_run
        assert run is not None
        number = run.number(node)
        sides, schemas = [], []
        for inner, keys in zip(stage.inputs, (node.left_keys, node.right_keys), strict=True):
            known = tuple(key for key in keys if isinstance(key, Ref))
            ready = Ready(node, known, self.partitions if known else 1, number)
            data, inside = self._stage(inner, ready)
            schemas.append(schema_of(_blank(inner.output, ready)))
            sides.append(self._run(data, inside).groupBy(TO))
        task = JoinTask(node, schemas[0], schemas[1], number, run.accumulator)
        schema = ddl_of_arrow(schema_of(empty(node.output)))
        pairs = sides[0].cogroup(sides[1])
        return pairs.applyInArrow(lambda left, right: task.run(left, right), schema)


def _blank(output: Any, ready: Ready | None) -> Frame:  # noqa: ANN401
    """Without rows, what a task gives."""
    blank = empty(output)
    if ready is None:
        return blank
    if isinstance(ready.node, p.Group) and wide.decomposable(ready.node):
        blank = carried(wide.partial(blank, ready.node).clear())
    added = {AT: pl.Int64} if ready.keys is None else {AT: pl.Int64, TO: pl.Int32}
    return blank.with_columns([pl.lit(None, kind).alias(name) for name, kind in added.items()])


def _ordered(order: Any) -> Any:  # noqa: ANN401
    from pyspark.sql import functions

    column = functions.col(order.child.key)
    if order.descending:
        return column.desc_nulls_last() if order.nulls_last else column.desc_nulls_first()
    return column.asc_nulls_last() if order.nulls_last else column.asc_nulls_first()


def _sorts(stage: Stage) -> bool:
    """Spark chooses ranges by a sample: another run may cut an order elsewhere."""
    return isinstance(stage.root, p.Sort) or any(_sorts(inner) for inner in stage.inputs)


@contextlib.contextmanager
def as_ours() -> Iterator[None]:
    """What a worker raised as our error, under its class."""
    try:
        yield
    except Exception as error:
        found = _ERROR.findall(str(error))
        if not found:
            raise
        name, condition, detail = found[-1]
        made = errors.RuntimeException(condition, detail)
        made.__class__ = getattr(errors, name, errors.RuntimeException)
        raise made from None


def refuse_options(options: dict[str, str]) -> None:
    for key in options:
        if key.startswith("chukonu.memory") or key == "chukonu.threads":
            raise UnsupportedError(f"{key} on Spark", "is Spark's to say: spark.executor.memory")
