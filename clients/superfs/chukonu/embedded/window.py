"""Window functions. Rows keep their places; ordered windows are computed on rows in order.

Without an order the window is the whole partition. With one it ends with the current row and its
peers (RANGE), unless `rowsBetween` says otherwise.
"""

from __future__ import annotations

from typing import Any

from superfs.chukonu import expressions as e
from superfs.chukonu import types as t
from superfs.chukonu.catalog.aggregates import compile_aggregate, narrowed
from superfs.chukonu.catalog.faults import exception
from superfs.chukonu.errors import UnsupportedError
from superfs.chukonu.naming import name_of
from superfs.chukonu.native import pl
from superfs.chukonu.plan.analysis import RANKS, SHIFTS

Frame = Any
Px = Any


def add(frame: Frame, columns: tuple[tuple[e.Ref, e.Over], ...]) -> Frame:
    for ref, over in columns:
        frame = _added(frame, ref, over)
    return frame


def _added(frame: Frame, ref: e.Ref, over: e.Over) -> Frame:
    partition = [_key(x) for x in over.partition] or [pl.lit(1)]
    frame = frame.with_row_index("place").with_columns(
        [x.alias(f"p{i}") for i, x in enumerate(partition)]
    )
    keys = [f"p{i}" for i in range(len(partition))]
    if over.order:
        frame = frame.sort(
            [pl.col(k) for k in keys] + [_key(o.child) for o in over.order],
            descending=[False] * len(keys) + [o.descending for o in over.order],
            nulls_last=[False] * len(keys) + [o.nulls_last for o in over.order],
            maintain_order=True,
        )
        peers = pl.struct([_key(o.child) for o in over.order])
        row = pl.int_range(1, pl.len() + 1)
        frame = frame.with_columns(
            peers.rle_id().over(keys).alias("peer"), row.over(keys).alias("row")
        )
    function = over.function
    assert isinstance(function, e.Aggregate)
    ranged = _ranged(function, over)
    if ranged:  # a window in a window would see one group only: the running value comes first
        running = _aggregate(function, over, keys).alias("running")
        frame = frame.with_columns(running)
        value: Px = pl.col("running").last().over([*keys, "peer"])
    elif function.function in RANKS:
        value = _rank(function, keys)
    elif function.function in SHIFTS:
        value = _shift(function, keys)
    else:
        value = _aggregate(function, over, keys)
    frame = frame.with_columns(value.alias(ref.key))
    found, fault = narrowed(function, pl.col(ref.key))
    if fault is not None:
        bad = frame.select(fault.alias("fault"))["fault"].drop_nulls()
        if len(bad):
            raise exception(int(bad[0]), name_of(function))
        frame = frame.with_columns(found.alias(ref.key))
    return frame.sort("place").drop(
        "place", *keys, *(["running"] if ranged else []), *(["peer", "row"] if over.order else [])
    )


def _ranged(function: e.Aggregate, over: e.Over) -> bool:
    """The window ends with the peers of the row, not with the row."""
    if function.function in RANKS or function.function in SHIFTS or not over.order:
        return False
    return over.frame is None or (over.frame[0] == "range" and over.frame[1:] == (None, 0))


def _ref(expr: e.Expr) -> e.Ref:
    assert isinstance(expr, e.Ref)
    return expr


def _key(expr: e.Expr) -> Px:
    assert isinstance(expr, e.Ref)
    column = pl.col(expr.key)
    return column + 0.0 if expr.dtype in (t.FLOAT, t.DOUBLE) else column


def _rank(function: e.Aggregate, keys: list[str]) -> Px:
    row = pl.col("row")
    rank = row.min().over([*keys, "peer"])
    count = pl.len().over(keys)
    match function.function:
        case "row_number":
            return row.cast(pl.Int32)
        case "rank":
            return rank.cast(pl.Int32)
        case "dense_rank":
            return (pl.col("peer") + 1).cast(pl.Int32)
        case "percent_rank":
            return pl.when(count > 1).then((rank - 1) / (count - 1)).otherwise(0.0)
        case "cume_dist":
            return row.max().over([*keys, "peer"]) / count
    raise UnsupportedError(f"function {function.function}")


def _shift(function: e.Aggregate, keys: list[str]) -> Px:
    value, offset, default = function.args
    assert isinstance(value, e.Ref)
    assert isinstance(offset, e.Lit)
    assert isinstance(default, e.Lit)
    by = offset.value if function.function == "lag" else -offset.value
    fill = default.value
    found = pl.col(value.key).shift(by).over(keys)
    if fill is None:
        return found
    index = pl.int_range(pl.len()).over(keys) - by
    outside = (index < 0) | (index >= pl.len().over(keys))
    return pl.when(outside).then(pl.lit(fill)).otherwise(found)


def _aggregate(function: e.Aggregate, over: e.Over, keys: list[str]) -> Px:
    args = [pl.lit(a.value) if isinstance(a, e.Lit) else pl.col(_ref(a).key) for a in function.args]
    frame = over.frame
    whole = not over.order if frame is None else frame[1] is None and frame[2] is None
    if whole:
        return compile_aggregate(function, args).over(keys)
    _, start, end = frame or ("range", None, 0)
    if start is not None or end != 0:
        raise UnsupportedError(f"a window frame from {start} to {end}")
    return _running(function, args[0] if args else pl.col("place")).over(keys)


def _running(function: e.Aggregate, a: Px) -> Px:
    """From the first row of the partition to this one."""
    count = a.is_not_null().cast(pl.Int64).cum_sum()
    filled: dict[str, Any] = {
        "count": lambda: count,
        "min": lambda: a.cum_min().forward_fill(),
        "max": lambda: a.cum_max().forward_fill(),
    }
    if function.function in ("min", "max") and function.dtype not in t.INTEGRALS:
        raise UnsupportedError(f"running {function.function} of {function.dtype}")
    if function.function in ("sum", "avg"):
        wide = a.cast(pl.Int128 if function.dtype == t.LONG else pl.Float64)
        total = wide.fill_null(0).cum_sum()
        if function.function == "avg":
            total = total / count
        return pl.when(count > 0).then(total)
    if function.function not in filled:
        raise UnsupportedError(f"{function.function} over an ordered window")
    return filled[function.function]()
