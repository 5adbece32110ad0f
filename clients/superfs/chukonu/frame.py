"""DataFrame: a plan that grows with every call and runs when rows are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from superfs.chukonu import expressions as e
from superfs.chukonu import types as t
from superfs.chukonu.column import Column, column
from superfs.chukonu.errors import AnalysisException, UnsupportedError
from superfs.chukonu.plan import building
from superfs.chukonu.plan import logical as p
from superfs.chukonu.plan.analysis import condition, lookup, resolve
from superfs.chukonu.windows import order_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from superfs.chukonu.grouped import GroupedData
    from superfs.chukonu.rows import Row
    from superfs.chukonu.session import Session

C = Column | str


class DataFrame:
    def __init__(self, session: Session, plan: p.Node, hinted: str = "") -> None:
        self.session = session
        self.plan = plan
        self._hint = hinted

    sparkSession = property(lambda self: self.session)

    def _with(self, plan: p.Node) -> DataFrame:
        return DataFrame(self.session, plan)

    # ---- what it is

    @property
    def schema(self) -> t.StructType:
        return t.StructType([t.StructField(f.name, f.dtype) for f in self.plan.output])

    @property
    def columns(self) -> list[str]:
        return [f.name for f in self.plan.output]

    @property
    def dtypes(self) -> list[tuple[str, str]]:
        return [(f.name, f.dtype.simpleString()) for f in self.plan.output]

    def __repr__(self) -> str:
        return f"DataFrame[{', '.join(f'{n}: {k}' for n, k in self.dtypes)}]"

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401
        if isinstance(key, str):
            return Column(e.Star() if key == "*" else lookup(key, self.plan.output))
        if isinstance(key, Column):
            return self.filter(key)
        if isinstance(key, (list, tuple)):
            return self.select(*key)
        return Column(self.plan.output[key])

    def __getattr__(self, name: str) -> Column:
        if name.startswith("__") or name in ("session", "plan"):
            raise AttributeError(name)
        if name.lower() not in (f.name.lower() for f in self.plan.output):
            raise UnsupportedError(f"DataFrame.{name}")
        return Column(lookup(f"`{name}`", self.plan.output))

    def printSchema(self) -> None:
        print("root")
        for f in self.plan.output:
            print(f" |-- {f.name}: {f.dtype.simpleString()} (nullable = true)")

    def explain(self, extended: bool = False) -> None:
        from superfs.chukonu.plan.explain import explained

        print(explained(self.plan))

    # ---- narrow

    def select(self, *columns: Any) -> DataFrame:  # noqa: ANN401
        flat = columns[0] if len(columns) == 1 and isinstance(columns[0], list) else columns
        return self._with(building.select(self.plan, [column(c) for c in flat]))

    def withColumn(self, name: str, value: Column) -> DataFrame:
        return self.withColumns({name: value})

    def withColumns(self, values: dict[str, Column]) -> DataFrame:
        new = {name.lower(): e.Alias(value.expr, name) for name, value in values.items()}
        old = {f.name.lower() for f in self.plan.output}
        exprs = [new.get(f.name.lower(), f) for f in self.plan.output]
        exprs += [value for name, value in new.items() if name not in old]
        return self._with(building.select(self.plan, exprs))

    def withColumnRenamed(self, existing: str, new: str) -> DataFrame:
        return self.withColumnsRenamed({existing: new})

    def withColumnsRenamed(self, names: dict[str, str]) -> DataFrame:
        low = {old.lower(): new for old, new in names.items()}
        renamed = [
            e.Alias(f, low[f.name.lower()]) if f.name.lower() in low else f
            for f in self.plan.output
        ]
        return self._with(building.select(self.plan, renamed))

    def toDF(self, *names: str) -> DataFrame:
        if len(names) != len(self.plan.output):
            raise AnalysisException("ASSIGNMENT_ARITY_MISMATCH", "toDF: one name for each column")
        pairs = zip(self.plan.output, names, strict=True)
        return self._with(building.select(self.plan, [e.Alias(f, n) for f, n in pairs]))

    def drop(self, *columns: C) -> DataFrame:
        gone: set[int] = set()
        for one in columns:
            if isinstance(one, str):
                gone |= {f.number for f in self.plan.output if f.name.lower() == one.lower()}
            elif isinstance(one.expr, (e.Ref, e.Name)):
                found = (
                    one.expr
                    if isinstance(one.expr, e.Ref)
                    else lookup(one.expr.text, self.plan.output)
                )
                gone |= {r.number for r in e.refs_of(found)}
        kept = [f for f in self.plan.output if f.number not in gone]
        return self._with(building.keep(self.plan, kept))

    def filter(self, test: Column | str) -> DataFrame:
        """An alias of the condition is what the rows that it drops are counted as."""
        if isinstance(test, str):
            raise UnsupportedError("filter by an SQL string")
        reason = test.expr.name if isinstance(test.expr, e.Alias) else ""
        return self._with(p.Filter(self.plan, condition(test.expr, self.plan.output), reason))

    def where(self, test: Column | str) -> DataFrame:
        return self.filter(test)

    def alias(self, name: str) -> DataFrame:
        columns = tuple((_qualified(f, name), f) for f in self.plan.output)
        return self._with(p.Project(self.plan, columns))

    def sample(
        self,
        withReplacement: Any = None,  # noqa: ANN401
        fraction: Any = None,  # noqa: ANN401
        seed: int | None = None,
    ) -> DataFrame:
        if isinstance(withReplacement, float):
            seed = fraction if seed is None else seed
            withReplacement, fraction = False, withReplacement
        if withReplacement:
            raise UnsupportedError("sample with replacement")
        return self._with(p.Sample(self.plan, float(fraction), 0 if seed is None else int(seed)))

    def mapInArrow(self, func: Callable[..., Any], schema: t.StructType | str) -> DataFrame:
        from superfs.chukonu.ddl import parse_schema

        output = tuple(e.new_ref(f.name, f.dataType) for f in parse_schema(schema))
        return self._with(p.MapBatches(self.plan, func, output))

    def hint(self, name: str, *_: Any) -> DataFrame:  # noqa: ANN401
        return DataFrame(self.session, self.plan, name.lower())

    # ---- wide

    def groupBy(self, *columns: C) -> GroupedData:
        from superfs.chukonu.grouped import GroupedData

        return GroupedData(self, [column(c) for c in columns])

    groupby = groupBy

    def agg(self, *exprs: Any) -> DataFrame:  # noqa: ANN401
        return self.groupBy().agg(*exprs)

    def distinct(self) -> DataFrame:
        return self.dropDuplicates()

    def dropDuplicates(self, subset: list[str] | None = None) -> DataFrame:
        output = self.plan.output
        keys = list(output)
        if subset is not None:
            low = [name.lower() for name in subset]
            for name in subset:
                lookup(f"`{name}`", output)
            keys = [f for f in output if f.name.lower() in low]
        for key in keys:
            building.comparable(key, "dropDuplicates")
        return self._with(p.Distinct(self.plan, tuple(keys)))

    drop_duplicates = dropDuplicates

    def orderBy(self, *columns: Any, ascending: Any = None) -> DataFrame:  # noqa: ANN401
        flat = columns[0] if len(columns) == 1 and isinstance(columns[0], list) else columns
        orders = [order_of(column(c)) for c in flat]
        if ascending is not None:
            ways = ascending if isinstance(ascending, list) else [ascending] * len(orders)
            orders = [
                o if up else e.Order(o.child, True, True)
                for o, up in zip(orders, ways, strict=True)
            ]
        return self._with(building.sort(self.plan, orders))

    sort = orderBy

    def limit(self, num: int) -> DataFrame:
        return self._with(p.Limit(self.plan, num))

    def union(self, other: DataFrame) -> DataFrame:
        return self._with(building.union(self.plan, other.plan))

    unionAll = union

    def unionByName(self, other: DataFrame, allowMissingColumns: bool = False) -> DataFrame:
        names = {f.name.lower() for f in other.plan.output}
        if allowMissingColumns or names != {f.name.lower() for f in self.plan.output}:
            raise UnsupportedError("unionByName of different columns")
        return self.union(other.select(*[f"`{name}`" for name in self.columns]))

    def join(
        self,
        other: DataFrame,
        on: Any = None,  # noqa: ANN401
        how: str = "inner",
    ) -> DataFrame:
        by: list[str] | e.Expr | None = None
        if isinstance(on, Column):
            by = on.expr
        elif isinstance(on, str):
            by = [on]
        elif on is not None:
            parts = list(on)
            if parts and isinstance(parts[0], Column):
                whole = parts[0]
                for part in parts[1:]:
                    whole = whole & part
                by = whole.expr
            else:
                by = parts
        hinted = other._hint or self._hint
        return self._with(building.join(self.plan, other.plan, by, how, hinted))

    def crossJoin(self, other: DataFrame) -> DataFrame:
        return self.join(other, how="cross")

    def repartition(self, count: Any, *columns: C) -> DataFrame:  # noqa: ANN401
        if not isinstance(count, int):
            columns, count = (count, *columns), self.session.threads
        node, refs = building.below(
            self.plan, [resolve(column(c), self.plan.output) for c in columns]
        )
        found = p.Repartition(node, count, tuple(refs))
        return self._with(building.keep(found, self.plan.output))

    def coalesce(self, count: int) -> DataFrame:
        return self._with(p.Repartition(self.plan, count))

    def cache(self) -> DataFrame:
        """Runs the plan once, and keeps its rows in memory."""
        if not isinstance(self.plan, p.Local):
            frame = self.session.executor.frame(self.plan)
            self.plan = p.Local(frame, self.plan.output)
        return self

    persist = cache

    def fillna(self, value: Any, subset: list[str] | None = None) -> DataFrame:  # noqa: ANN401
        raise UnsupportedError("fillna; use coalesce")

    def dropna(self, how: str = "any", subset: list[str] | None = None) -> DataFrame:
        names = [n.lower() for n in subset or self.columns]
        tests = [Column(f).isNotNull() for f in self.plan.output if f.name.lower() in names]
        if how not in ("any", "all") or not tests:
            raise UnsupportedError(f"dropna({how!r})")
        whole = tests[0]
        for test in tests[1:]:
            whole = whole & test if how == "any" else whole | test
        return self.filter(whole)

    # ---- rows

    def toArrow(self) -> Any:  # noqa: ANN401
        from superfs.chukonu.rows import arrow_table

        return arrow_table(self.session.executor.frame(self.plan), self.plan.output)

    def toLocalIterator(self) -> Iterator[Row]:
        from superfs.chukonu.rows import rows_of

        for frame in self.session.executor.frames(self.plan):
            yield from rows_of(frame, self.plan.output)

    def collect(self) -> list[Row]:
        return list(self.toLocalIterator())

    def take(self, num: int) -> list[Row]:
        return self.limit(num).collect()

    head = take

    def first(self) -> Row | None:
        return next(iter(self.take(1)), None)

    def count(self) -> int:
        counted = self.agg(Column(e.COUNT_ROWS).alias("count"))
        return int(counted.collect()[0][0])

    def isEmpty(self) -> bool:
        return not self.take(1)

    def show(self, n: int = 20, truncate: bool | int = True) -> None:
        from superfs.chukonu.rows import shown

        wide = 20 if truncate is True else int(truncate)
        print(shown(self.take(n + 1), self.columns, n, wide))

    @property
    def write(self) -> Any:  # noqa: ANN401
        from superfs.chukonu.writer import DataFrameWriter

        return DataFrameWriter(self)


def _qualified(ref: e.Ref, name: str) -> e.Ref:
    return e.Ref(ref.fresh().number, ref.name, ref.dtype, name)
