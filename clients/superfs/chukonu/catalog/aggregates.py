"""Functions of groups of rows. Nulls are skipped; no values at all give null, or 0 to a count.

A kernel gets its argument as a column of the group (nulls included) and returns one value. For
sums of integers it returns a wide sum: what does not fit is a fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from superfs.chukonu import expressions as e
from superfs.chukonu import types as t
from superfs.chukonu.catalog import decimals
from superfs.chukonu.catalog.base import Param, cast_to
from superfs.chukonu.catalog.faults import Fault, fault_where
from superfs.chukonu.errors import AnalysisException, UnsupportedError
from superfs.chukonu.native import pl

if TYPE_CHECKING:
    from collections.abc import Callable

Px = Any


@dataclass(frozen=True)
class AggregateFunction:
    name: str
    params: tuple[Param, ...]
    result: t.DataType | Callable[..., t.DataType]
    kernel: Callable[..., Any]
    fails: bool = False
    windowed: bool = True
    """It may stand over a window."""
    ordered: bool = False
    """Its answer depends on the order of rows: not compared with Spark's."""

    def resolve(self, args: tuple[e.Expr, ...], *, distinct: bool) -> e.Expr:
        if not args and self.name == "count":
            return e.Aggregate("count", (), False, t.LONG)
        if len(args) != len(self.params):
            raise AnalysisException("WRONG_NUM_ARGS", f"{self.name}: {len(args)} arguments")
        if self.name == "avg" and isinstance(e.dtype_of(args[0]), t.DecimalType):
            return _exact_average(args[0], distinct=distinct)
        found = tuple(self._fit(p, a) for p, a in zip(self.params, args, strict=True))
        kinds = [e.dtype_of(arg) for arg in found]
        result = self.result if isinstance(self.result, t.DataType) else self.result(*kinds)
        if distinct and self.name not in ("count", "sum", "avg", "collect_list"):
            distinct = False if self.name in ("min", "max", "collect_set") else distinct
            if distinct:
                raise UnsupportedError(f"{self.name} of distinct values")
        return e.Aggregate(self.name, found, distinct, result)

    def _fit(self, param: Param, arg: e.Expr) -> e.Expr:
        kind = e.dtype_of(arg)
        if param.any or kind in param.kinds:
            return arg
        if param.to is not None and t.wider(kind, param.to) == param.to:
            return cast_to(arg, param.to)
        raise AnalysisException(
            "DATATYPE_MISMATCH", f"{self.name}({kind.simpleString()}): takes {param.label}"
        )


def _exact_average(arg: e.Expr, *, distinct: bool) -> e.Expr:
    kind = e.dtype_of(arg)
    assert isinstance(kind, t.DecimalType)
    total = e.Aggregate("sum", (arg,), distinct, decimals.sum_type(kind))
    return decimals.average(total, e.Aggregate("count", (arg,), distinct, t.LONG), kind)


_ANY = Param("any", any=True)
_ATOM = Param("atomic", t.Kinds(k for k in t.ATOMS if k != t.NULL), t.INT)
_BOOL = Param("boolean", (t.BOOLEAN,), t.BOOLEAN)
_DBL = Param("number", (t.DOUBLE,), t.DOUBLE)
_SUM = Param("number", t.Kinds((*t.NUMBERS, t.DECIMAL)), t.DOUBLE)


def _sum_type(kind: t.DataType) -> t.DataType:
    if isinstance(kind, t.DecimalType):
        return decimals.sum_type(kind)
    return t.LONG if kind in t.INTEGRALS else t.DOUBLE


def _sum(a: Px) -> Px:
    return pl.when(a.count() > 0).then(a.sum())


def _by(best: str) -> Callable[[Px, Px], Px]:
    def kernel(a: Px, by: Px) -> Px:
        known = by.is_not_null()
        ordered = a.filter(known).sort_by(by.filter(known), descending=best == "max")
        return ordered.first()

    return kernel


def _moment(name: str, free: int) -> Callable[[Px], Px]:
    def kernel(a: Px) -> Px:
        found = a.std(ddof=free) if name == "std" else a.var(ddof=free)
        enough = a.count() > free
        return pl.when(enough).then(found)

    return kernel


AGGREGATES: dict[str, AggregateFunction] = {
    f.name: f
    for f in (
        AggregateFunction("count", (_ANY,), t.LONG, lambda a: a.count().cast(pl.Int64)),
        AggregateFunction(
            "count_if", (_BOOL,), t.LONG, lambda a: a.fill_null(False).sum().cast(pl.Int64)
        ),
        AggregateFunction("sum", (_SUM,), _sum_type, _sum, fails=True),
        AggregateFunction("avg", (_DBL,), t.DOUBLE, lambda a: a.mean()),
        AggregateFunction("min", (_ATOM,), lambda k: k, lambda a: a.min()),
        AggregateFunction("max", (_ATOM,), lambda k: k, lambda a: a.max()),
        AggregateFunction("bool_and", (_BOOL,), t.BOOLEAN, lambda a: a.min()),
        AggregateFunction("bool_or", (_BOOL,), t.BOOLEAN, lambda a: a.max()),
        AggregateFunction("stddev_samp", (_DBL,), t.DOUBLE, _moment("std", 1), windowed=False),
        AggregateFunction("stddev_pop", (_DBL,), t.DOUBLE, _moment("std", 0), windowed=False),
        AggregateFunction("var_samp", (_DBL,), t.DOUBLE, _moment("var", 1), windowed=False),
        AggregateFunction("var_pop", (_DBL,), t.DOUBLE, _moment("var", 0), windowed=False),
        AggregateFunction(
            "collect_list",
            (_ANY,),
            lambda k: t.ArrayType(k),
            lambda a: a.drop_nulls(),
            windowed=False,
            ordered=True,
        ),
        AggregateFunction(
            "collect_set",
            (_ATOM,),
            lambda k: t.ArrayType(k),
            lambda a: a.drop_nulls().unique(maintain_order=True),
            windowed=False,
            ordered=True,
        ),
        AggregateFunction("first", (_ANY,), lambda k: k, lambda a: a.first(), ordered=True),
        AggregateFunction("last", (_ANY,), lambda k: k, lambda a: a.last(), ordered=True),
        AggregateFunction(
            "max_by", (_ANY, _ATOM), lambda a, _: a, _by("max"), windowed=False, ordered=True
        ),
        AggregateFunction(
            "min_by", (_ANY, _ATOM), lambda a, _: a, _by("min"), windowed=False, ordered=True
        ),
    )
}


def compile_aggregate(aggregate: e.Aggregate, args: list[Px]) -> Px:
    """One value a group; a sum of integers is still wide (`narrowed`)."""
    if not args:
        return pl.len().cast(pl.Int64)
    if aggregate.function == "sum" and aggregate.dtype == t.LONG:
        args = [args[0].cast(pl.Int128)]
    if aggregate.function == "sum" and isinstance(aggregate.dtype, t.DecimalType):
        whole = args[0].drop_nulls().unique() if aggregate.distinct else args[0]
        return decimals.guarded_sum(whole.to_physical())
    if aggregate.function == "sum" and aggregate.dtype == t.DOUBLE:
        args = [args[0].cast(pl.Float64)]
    if aggregate.function == "max" and aggregate.dtype in (t.FLOAT, t.DOUBLE):
        return args[0].nan_max()  # max() passes NaN over; min() does too, as Spark's does
    if aggregate.distinct:
        args = [args[0].drop_nulls().unique(maintain_order=True), *args[1:]]
    return AGGREGATES[aggregate.function].kernel(*args)


def narrowed(aggregate: e.Aggregate, found: Px) -> tuple[Px, Px]:
    """(the value in its type, fault or None), from what `compile_aggregate` gave."""
    if aggregate.function == "sum" and isinstance(aggregate.dtype, t.DecimalType):
        return decimals.scaled(found, aggregate.dtype)
    if aggregate.function == "sum" and aggregate.dtype == t.LONG:
        outside = (found < t.LONG.smallest) | (found > t.LONG.largest)
        return found.cast(pl.Int64, strict=False), fault_where(outside, Fault.OVERFLOW)
    return found, None
