"""`spark.chukonu`: readers that give ordinary DataFrames of Spark.

Spark takes places of splits only from an RDD, so splits are one: an element for each, with the
hosts that have its bytes. A DataFrame of it keeps them, and mapInArrow on that is the task
(task.py).
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from superfs.chukonu.errors import UnsupportedError
from superfs.chukonu.onspark.task import SPEC, SegmentTask, ddl
from superfs.chukonu.plan import logical as p
from superfs.chukonu.plan.pruning import prune
from superfs.chukonu.plan.stages import cut
from superfs.chukonu.reader import DataFrameReader
from superfs.chukonu.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from superfs.chukonu.frame import DataFrame
    from superfs.chukonu.sources.files import Source
    from superfs.chukonu.sources.grouping import Group


def enable(spark: Any) -> Any:  # noqa: ANN401
    """`spark.chukonu`, of a classic session (not Spark Connect); gives the session back."""
    if not hasattr(spark, "_jsparkSession"):
        raise UnsupportedError("Spark Connect", "has no RDDs: enable() takes a classic session")
    # Spark runs as many tasks as there are cores: each computes with one thread.
    spark.sparkContext.environment.setdefault("POLARS_MAX_THREADS", "1")
    spark.chukonu = SparkChukonu(spark)
    return spark


class SparkChukonu:
    def __init__(self, spark: Any) -> None:  # noqa: ANN401
        self._spark = spark

    @property
    def read(self) -> SegmentReader:
        return SegmentReader(self._spark)


class SegmentReader(DataFrameReader):
    def __init__(self, spark: Any) -> None:  # noqa: ANN401
        super().__init__(Session())
        self._spark = spark
        self._segment: Callable[[DataFrame], DataFrame] | None = None

    def segment(self, make: Callable[[DataFrame], DataFrame]) -> SegmentReader:
        """`make` is given what is read, as a DataFrame of Chukonu; what it does to it must be
        narrow: select, filter, withColumn, explode, sample, mapInArrow."""
        self._segment = make
        return self

    def _load(self, kind: str, paths: str | list[str]) -> Any:  # noqa: ANN401
        if "maxbadfraction" in self._options:
            raise UnsupportedError("maxBadFraction on Spark", "would be of each split by itself")
        frame = super()._load(kind, paths)
        if self._segment is not None:
            frame = self._segment(frame)
        return spark_frame(self._spark, frame.plan)


def spark_frame(spark: Any, plan: p.Node) -> Any:  # noqa: ANN401
    stage = cut(prune(plan))
    scan = stage.root
    if not isinstance(scan, p.Scan):
        name = type(scan).__name__
        raise UnsupportedError(f"{name} in a segment", "is wide: do it with Spark's DataFrame")
    source: Source = scan.source
    task = SegmentTask(replace(source, files=[]), scan.columns, stage.steps, stage.output)
    source.planned()
    data = located(spark, specs_of(source.groups(ordered=False)))
    return data.mapInArrow(task, ddl(stage.output))


def located(spark: Any, specs: Sequence[tuple[bytes, Sequence[str]]]) -> Any:  # noqa: ANN401
    """A DataFrame of one row a partition, (what is to be read, where preferably), which Spark makes
    without Python."""
    from pyspark.sql import DataFrame

    schema = f"{SPEC} BINARY"
    if not specs:
        return spark.createDataFrame([], schema)
    context = spark.sparkContext
    jvm, array = context._jvm, context._gateway.new_array
    pairs = jvm.java.util.ArrayList()
    for spec, hosts in specs:
        names = jvm.java.util.ArrayList()
        for host in hosts:
            names.add(host)
        values = array(jvm.java.lang.Object, 1)
        values[0] = spec
        row = jvm.org.apache.spark.sql.RowFactory.create(values)
        pairs.add(jvm.scala.Tuple2(row, jvm.PythonUtils.toSeq(names)))
    tag = getattr(getattr(jvm.scala.reflect, "ClassTag$"), "MODULE$").AnyRef()
    rdd = context._jsc.sc().makeRDD(jvm.PythonUtils.toSeq(pairs), tag)
    kind = jvm.org.apache.spark.sql.types.StructType.fromDDL(schema)
    return DataFrame(spark._jsparkSession.createDataFrame(rdd.toJavaRDD(), kind), spark)


def specs_of(groups: Iterable[Group]) -> list[tuple[bytes, Sequence[str]]]:
    return [(pickle.dumps(group.units), group.hosts) for group in groups]
