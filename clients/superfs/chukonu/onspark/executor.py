"""Plans on Apache Spark: Spark schedules, retries and shuffles, Chukonu computes.

Every stage is one mapInArrow: what came together is finished, the fused segment runs, and what goes
to the next wide node is made ready (partial sums, first rows of equal ones). A wide edge is an
exchange of Spark, `repartitionById`, of whole frames (edges.py): by our hash, or by ranges of an
order. Where only keys matter, references go instead of rows (references.py). Splits prefer the
hosts that have their bytes.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any

from superfs.chukonu import errors
from superfs.chukonu.embedded.parts import Part, empty, together
from superfs.chukonu.errors import UnsupportedError
from superfs.chukonu.onspark.building import Builder, collected, depends_on_order
from superfs.chukonu.onspark.counting import SparkRun
from superfs.chukonu.onspark.edges import BATCH_BYTES, BATCH_OPTION
from superfs.chukonu.onspark.stagetask import RECORDS, WriteTask
from superfs.chukonu.plan.pruning import prune
from superfs.chukonu.plan.stages import cut

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
        with self._asked():
            ordered = depends_on_order(plan)
            builder = Builder(self.spark, self.partitions, run, ordered=ordered)
            pieces = collected(builder.data(builder.stage(stages)))
        run.finish()
        blank = empty(plan.output)
        for piece in pieces:
            yield piece.frame().select(blank.columns)

    def frame(self, plan: Node) -> Frame:
        return together(list(self.frames(plan)), prune(plan).output)

    def write(self, output: Output) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        stages = cut(output.plan)
        run = self.last_run = SparkRun(self.spark, stages)
        with self._asked():
            ordered = depends_on_order(output.plan)
            builder = Builder(self.spark, self.partitions, run, ordered=ordered)
            data, task = builder.stage(stages)
            count = data.rdd.getNumPartitions()
            layout = " ".join(["spark", str(count), *builder.layout])
            output.begin([Part(layout, lambda _: iter(()))])
            made = data.mapInArrow(WriteTask(task, output.for_workers()), RECORDS)
            rows = made.collect()
        found = {row["number"]: json.loads(row["record"]) for row in rows}
        records = [found[number] for number in sorted(found)]
        run.finish([record["counts"] for record in records])
        return records, run.statistics()

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        """Spark hands over as few large values at a time as we can take; a session that is not ours
        does again what it did when we are done."""
        before = self.spark.conf.get(BATCH_OPTION, None)
        self.spark.conf.set(BATCH_OPTION, str(BATCH_BYTES))
        try:
            with as_ours():
                yield
        finally:
            if before is None:
                self.spark.conf.unset(BATCH_OPTION)
            else:
                self.spark.conf.set(BATCH_OPTION, before)


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
