"""Session: where DataFrames come from, and which executor runs them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from superfs.chukonu import expressions as e
from superfs.chukonu import types as t
from superfs.chukonu.ddl import parse_schema
from superfs.chukonu.errors import AnalysisException, UnsupportedError
from superfs.chukonu.frame import DataFrame
from superfs.chukonu.plan import logical as p
from superfs.chukonu.rows import Row, frame_of_arrow, frame_of_rows, inferred

if TYPE_CHECKING:
    from collections.abc import Iterable

    from superfs.chukonu.sources.sidefile import SideFile


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Builder:
    def __init__(self) -> None:
        self._master = "embedded"
        self._options: dict[str, str] = {}

    def master(self, url: str) -> Builder:
        self._master = url
        return self

    def appName(self, name: str) -> Builder:
        return self.config("app.name", name)

    def config(self, key: str, value: Any) -> Builder:  # noqa: ANN401
        self._options[key] = str(value)
        return self

    def getOrCreate(self) -> Session:
        if self._master == "embedded":
            return Session(self._options)
        if not self._master.startswith(("local", "spark://", "yarn", "k8s://")):
            raise UnsupportedError(f"master {self._master!r}")
        return Session(self._options, self._master)


class _Building:
    def __get__(self, instance: object, owner: type) -> Builder:
        return Builder()


class Session:
    builder = _Building()

    def __init__(self, options: dict[str, str] | None = None, master: str = "embedded") -> None:
        from superfs.chukonu.embedded.executor import Executor

        self.options = options or {}
        self._spark: Any = None
        self.executor: Any
        """An Executor, or a SparkExecutor."""
        if master != "embedded":
            self._on_spark(master)
            return
        self.threads = int(self.options.get("chukonu.threads", os.cpu_count() or 1))
        budget = int(self.options.get("chukonu.memory.bytes", _memory_bytes() // 4))
        folder = self.options.get("chukonu.local.dir")
        processes = self.options.get("chukonu.python.processes")
        count = None if processes is None else int(processes)
        self.executor = Executor(self.threads, budget, folder, count)

    def _on_spark(self, master: str) -> None:
        from superfs.chukonu.onspark.executor import SparkExecutor, refuse_options
        from superfs.chukonu.onspark.starting import started

        refuse_options(self.options)
        spark, ours = started(master, self.options)
        self._spark = spark if ours else None
        count = self.options.get("chukonu.partitions")
        self.executor = SparkExecutor(spark, None if count is None else int(count))
        self.threads = self.executor.partitions
        if ours and "spark.sql.shuffle.partitions" not in self.options:
            # Spark's own 200 would be as many tiny tasks, for its sorts and cogroups.
            spark.conf.set("spark.sql.shuffle.partitions", str(self.executor.partitions))

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.executor.close()
        if self._spark is not None:
            from superfs.chukonu.onspark.starting import stop

            stop(self._spark)
            self._spark = None

    @property
    def read(self) -> Any:  # noqa: ANN401
        from superfs.chukonu.reader import DataFrameReader

        return DataFrameReader(self)

    def sideFile(self, path: str, **options: Any) -> SideFile:  # noqa: ANN401
        """A file that functions need: they open its `path`, and every node has it once. Options:
        dir, cluster, token_file. Not of PySpark, which has addFile."""
        from superfs.chukonu.sources.sidefile import side_file

        return side_file(path, options, self.options.get("chukonu.side.dir"))

    def range(self, start: int, end: int | None = None, step: int = 1) -> DataFrame:
        low, high = (0, start) if end is None else (start, end)
        column = (e.new_ref("id", t.LONG),)
        return self._local([(i,) for i in range(low, high, step)], column)

    def _local(self, rows: list[Any], output: tuple[e.Ref, ...]) -> DataFrame:
        return DataFrame(self, p.Local(frame_of_rows(rows, output), output))

    def createDataFrame(self, data: Any, schema: Any = None) -> DataFrame:  # noqa: ANN401
        if hasattr(data, "column_names") and hasattr(data, "to_batches"):
            return self._arrow(data)
        rows = list(data)
        if isinstance(schema, (str, t.StructType)):
            fields = parse_schema(schema).fields
        else:
            fields = _fields(rows, schema)
        names = [f.name for f in fields]
        found = [_values(row, names) for row in rows]
        for row in found:
            if len(row) != len(fields):
                raise AnalysisException("AXIS_LENGTH_MISMATCH", f"{len(row)} values in {row!r}")
        return self._local(found, tuple(e.new_ref(f.name, f.dataType) for f in fields))

    def _arrow(self, table: Any) -> DataFrame:  # noqa: ANN401
        from superfs.chukonu.catalog.dtypes import type_of_arrow

        output = tuple(e.new_ref(f.name, type_of_arrow(f.type, f.name)) for f in table.schema)
        return DataFrame(self, p.Local(frame_of_arrow(table, output), output))


def _values(row: Any, names: list[str]) -> Any:  # noqa: ANN401
    if isinstance(row, dict):
        return [row.get(name) for name in names]
    if isinstance(row, Row) and set(row.__fields__) == set(names):
        return [row[name] for name in names]
    return row if isinstance(row, (tuple, list)) else (row,)


def _fields(rows: list[Any], names: Iterable[str] | None) -> list[t.StructField]:
    if not rows:
        raise AnalysisException("CANNOT_INFER_EMPTY_SCHEMA", "no rows and no schema")
    if names is None:
        first = rows[0]
        keys = list(first) if isinstance(first, dict) else getattr(first, "__fields__", None)
        names = keys or [f"_{i + 1}" for i in range(len(first))]
    names = list(names)
    columns = zip(*(_values(row, names) for row in rows), strict=True)
    return [t.StructField(n, inferred(values)) for n, values in zip(names, columns, strict=True)]
