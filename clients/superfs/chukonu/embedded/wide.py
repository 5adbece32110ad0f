"""Wide nodes over whole frames: groups, distinct rows, joins, order, windows, partitions."""

from __future__ import annotations

from typing import Any

from superfs.chukonu import expressions as e
from superfs.chukonu import types as t
from superfs.chukonu.catalog import decimals
from superfs.chukonu.catalog.aggregates import compile_aggregate, narrowed
from superfs.chukonu.catalog.faults import exception
from superfs.chukonu.embedded import window
from superfs.chukonu.naming import name_of
from superfs.chukonu.native import pl
from superfs.chukonu.plan import logical as p

Frame = Any
Px = Any
_MERGED_BY = {"count": "sum", "count_if": "sum", "sum": "sum", "min": "min", "max": "max"}
_MERGED_BY |= {"bool_and": "min", "bool_or": "max"}


def run(frame: Frame, node: p.Node) -> Frame:
    match node:
        case p.Group(_, keys, values):
            made = [_aggregated(v).alias(ref.key) for ref, v in values]
            return _finished(_grouped(frame, keys, made), node)
        case p.Distinct(_, keys):
            names = [key.key for key in keys]
            return frame.unique(subset=names, keep="first", maintain_order=True)
        case p.Sort(_, orders):
            return _sorted(frame, orders)
        case p.Windowed(_, columns):
            return window.add(frame, columns)
    raise AssertionError(node)


def keys_of(node: p.Node) -> list[e.Ref]:
    """Columns of the child: rows that differ in them have nothing to do with each other."""
    match node:
        case p.Group(_, keys):
            return [key for _, key in keys if isinstance(key, e.Ref)]
        case p.Distinct(_, keys):
            return list(keys)
        case p.Windowed(_, columns):
            shared = columns[0][1].partition
            same = all(over.partition == shared for _, over in columns)
            return [key for key in shared if isinstance(key, e.Ref)] if same else []
    return []


def column(expr: e.Expr) -> Px:
    """Wide nodes are given columns, never expressions."""
    assert isinstance(expr, e.Ref)
    return pl.col(expr.key)


def normal(expr: e.Expr) -> Px:
    """-0.0 and 0.0 are one key, and it is called 0.0."""
    return column(expr) + 0.0 if e.dtype_of(expr) in (t.FLOAT, t.DOUBLE) else column(expr)


# ---- groups


def _aggregated(value: e.Aggregate) -> Px:
    return compile_aggregate(value, [column(a) for a in value.args])


def _grouped(frame: Frame, keys: Any, made: list[Px]) -> Frame:  # noqa: ANN401
    if not keys:
        return frame.select(made)
    by = [normal(key).alias(ref.key) for ref, key in keys]
    return frame.group_by(by, maintain_order=True).agg(made)


def _finished(frame: Frame, node: p.Group) -> Frame:
    """Wide sums back in their types."""
    for ref, value in node.values:
        found, fault = narrowed(value, pl.col(ref.key))
        if fault is None:
            continue
        bad = frame.select(fault.alias("fault"))["fault"].drop_nulls()
        if len(bad):
            raise exception(int(bad[0]), name_of(value))
        frame = frame.with_columns(found.alias(ref.key))
    return frame


def decomposable(node: p.Group) -> bool:
    return all(v.function in (*_MERGED_BY, "avg") and not v.distinct for _, v in node.values)


def partial(frame: Frame, node: p.Group) -> Frame:
    """A row for each group of one partition: all that has to be brought together."""
    made = []
    for ref, value in node.values:
        if value.function == "avg":
            whole = column(value.args[0])
            made += [whole.sum().alias(ref.key), whole.count().alias(f"{ref.key}n")]
        else:
            made.append(_aggregated(value).alias(ref.key))
    return _grouped(frame, node.keys, made)


def merged(frame: Frame, node: p.Group) -> Frame:
    made = []
    for ref, value in node.values:
        part = pl.col(ref.key)
        if value.function == "avg":
            count = pl.col(f"{ref.key}n").sum()
            made.append(pl.when(count > 0).then(part.sum() / count).alias(ref.key))
        elif value.function == "sum" and isinstance(value.dtype, t.DecimalType):
            made.append(decimals.guarded_sum(part).alias(ref.key))
        elif _MERGED_BY[value.function] == "sum":
            known = part.count() > 0
            whole = pl.when(known).then(part.sum())
            made.append((part.sum() if value.function != "sum" else whole).alias(ref.key))
        elif value.function == "max" and value.dtype in (t.FLOAT, t.DOUBLE):
            made.append(part.nan_max().alias(ref.key))
        else:
            most = _MERGED_BY[value.function] == "max"
            made.append((part.max() if most else part.min()).alias(ref.key))
    if not node.keys:
        return _finished(frame.select(made), node)
    by = [pl.col(ref.key) for ref, _ in node.keys]
    return _finished(frame.group_by(by, maintain_order=True).agg(made), node)


# ---- order, joins, partitions


def _sorted(frame: Frame, orders: tuple[e.Order, ...]) -> Frame:
    keys = [o.child for o in orders]
    return frame.sort(
        [normal(k) for k in keys],
        descending=[o.descending for o in orders],
        nulls_last=[o.nulls_last for o in orders],
        maintain_order=True,
    )


def join(left: Frame, right: Frame, node: p.Join) -> Frame:
    if node.how == "cross":
        return left.join(right, how="cross")
    lefts = [f"l{i}" for i in range(len(node.left_keys))]
    rights = [f"r{i}" for i in range(len(node.right_keys))]
    left = left.with_columns(_keyed(node.left_keys, lefts))
    right = right.with_columns(_keyed(node.right_keys, rights))
    if node.how in ("semi", "anti"):
        return left.join(right, left_on=lefts, right_on=rights, how=node.how).drop(lefts)
    found = left.join(right, left_on=lefts, right_on=rights, how=node.how, coalesce=False)
    return found.select([ref.key for ref in node.output])


def _keyed(keys: tuple[e.Expr, ...], names: list[str]) -> list[Px]:
    return [normal(key).alias(name) for key, name in zip(keys, names, strict=True)]
