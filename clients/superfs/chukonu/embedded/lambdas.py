"""Higher-order functions: a row for each element, the function over these, and arrays again.
Columns of the row stand beside its elements, so the function may look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from superfs.chukonu import expressions as e
from superfs.chukonu.catalog.dtypes import dtype
from superfs.chukonu.native import pl

if TYPE_CHECKING:
    from collections.abc import Callable

Px = Any
ROW, VALUE, FAULT = "row", "value", "fault"
_ENTRY = ("key", "value")
PAIRS = {"zip_with": ("0", "1"), "map_filter": _ENTRY}
PAIRS |= {"transform_keys": _ENTRY, "transform_values": _ENTRY}
"""What is given two: the parts of an element."""


def compile_lambda(expr: e.Lambda, compile_expr: Callable[[e.Expr], Any]) -> tuple[Px, Px | None]:
    """(value, fault or None): of the function alone, where the array is not null."""
    array = compile_expr(expr.child)
    body = compile_expr(expr.body)
    names = sorted(_outside(expr))
    kind = dtype(e.dtype_of(expr))
    whole = pl.Struct({VALUE: kind, FAULT: pl.UInt8})

    def run(columns: list[Any]) -> Any:  # noqa: ANN401
        height = len(columns[-1])
        arrays, *others = [c.new_from_index(0, height) if len(c) == 1 else c for c in columns]
        frame = pl.DataFrame({ROW: pl.int_range(height, eager=True), "array": arrays})
        beside = zip(names, others[: len(names)], strict=True)
        frame = frame.with_columns([other.alias(name) for name, other in beside])
        found = _elements(frame, expr, body)
        rows = _gathered(found, expr.function).with_columns(pl.col(VALUE).cast(kind))
        joined = frame.select(ROW, "array").join(rows, on=ROW, how="left", maintain_order="left")
        given = pl.col("array").is_not_null()
        nothing = _of_nothing(expr.function, kind)
        value = pl.when(given & (pl.col("array").list.len() == 0)).then(nothing)
        value = value.when(given).then(pl.col(VALUE)).cast(kind)
        fault = pl.col(FAULT).cast(pl.UInt8)
        return joined.select(pl.struct(value.alias(VALUE), fault.alias(FAULT)).alias("x"))["x"]

    length = pl.int_range(pl.len())  # says how many rows there are when the array is a constant
    made = pl.map_batches(
        [array.value, *(pl.col(name) for name in names), length], run, return_dtype=whole
    )
    fault = made.struct.field(FAULT) if body.fault is not None else None
    return made.struct.field(VALUE), fault


def _outside(expr: e.Lambda | e.Fold) -> set[str]:
    """Of the columns and variables that the function looks at, those that are not its own."""
    bodies = [expr.body] if isinstance(expr, e.Lambda) else [expr.merge, expr.finish]
    parts = [part for body in bodies for part in body.walk()]
    bound = {var.key for part in (expr, *parts) for var in _variables(part)}
    return {part.key for part in parts if isinstance(part, (e.Ref, e.Var))} - bound


def _variables(part: e.Expr) -> tuple[e.Var, ...]:
    if isinstance(part, e.Lambda):
        return part.variables
    return (*part.merge_vars, *part.finish_vars) if isinstance(part, e.Fold) else ()


def _elements(frame: Any, expr: e.Lambda, body: Any) -> Any:  # noqa: ANN401
    """A row for each element: the row that it is of, what the function gives, itself."""
    element = expr.variables[0].key
    rows = frame.filter(pl.col("array").list.len() > 0).explode("array")
    rows = rows.rename({"array": element})
    if expr.function in PAIRS:
        pair = zip(expr.variables, PAIRS[expr.function], strict=True)
        rows = rows.rename({element: "entry"})
        whole = pl.col("entry")
        rows = rows.with_columns([whole.struct.field(f).alias(var.key) for var, f in pair])
    elif len(expr.variables) > 1:
        place = pl.int_range(pl.len()).over(ROW).cast(pl.Int32)
        rows = rows.with_columns(place.alias(expr.variables[1].key))
    fault = pl.lit(None, pl.UInt8) if body.fault is None else body.fault
    made = [
        body.value.alias(VALUE),
        fault.alias(FAULT),
        pl.col("entry" if expr.function in PAIRS else element).alias("element"),
    ]
    return rows.with_columns(made).select(ROW, VALUE, FAULT, "element")


def _gathered(found: Any, function: str) -> Any:  # noqa: ANN401
    """A row for each row that has elements."""
    first = pl.col(FAULT).drop_nulls().first().alias(FAULT)
    value = pl.col(VALUE)
    match function:
        case "transform" | "zip_with":
            made = value
        case "transform_values":
            key = pl.col("element").struct.field("key").alias("key")
            made = pl.struct(key, value.alias("value")).alias(VALUE)
        case "transform_keys":
            kept = pl.col("element").struct.field("value").alias("value")
            made = pl.struct(value.alias("key"), kept).alias(VALUE)
        case "filter" | "map_filter":
            made = pl.col("element").filter(value.fill_null(False)).alias(VALUE)
        case _:
            decided = function == "exists"
            # What comes after the element that decides is not looked at.
            hit = (value == decided).fill_null(False)
            before = hit.cast(pl.Int32).cum_sum().over(ROW) - hit.cast(pl.Int32) == 0
            found = found.with_columns(pl.when(before).then(pl.col(FAULT)).alias(FAULT))
            any_hit, any_null = hit.any(), value.is_null().any()
            made = pl.when(any_hit).then(decided).when(~any_null).then(not decided).alias(VALUE)
    return found.group_by(ROW, maintain_order=True).agg(made, first)


def compile_fold(expr: e.Fold, compile_expr: Callable[[e.Expr], Any]) -> tuple[Px, Px | None]:
    """(value, fault or None). Element by element of all rows that have as many: as many steps as
    the longest array has elements."""
    array, initial = compile_expr(expr.child), compile_expr(expr.initial)
    merge, finish = compile_expr(expr.merge), compile_expr(expr.finish)
    names = sorted(_outside(expr))
    kind, held = dtype(e.dtype_of(expr)), dtype(e.dtype_of(expr.initial))
    accumulator, element = (var.key for var in expr.merge_vars)
    last = expr.finish_vars[0].key
    fault = pl.lit(None, pl.UInt8)
    steps = [merge.value.cast(held).alias("next"), (fault if merge.fault is None else merge.fault)]

    def run(columns: list[Any]) -> Any:  # noqa: ANN401
        height = len(columns[-1])
        whole = [c.new_from_index(0, height) if len(c) == 1 else c for c in columns]
        frame = pl.DataFrame({"array": whole[0], accumulator: whole[1]})
        beside = zip(names, whole[2 : 2 + len(names)], strict=True)
        frame = frame.with_columns([other.alias(name) for name, other in beside])
        frame = frame.with_row_index(ROW).with_columns(
            fault.alias(FAULT), pl.col("array").list.len().alias("count")
        )
        done = [frame.filter(pl.col("count").is_null())]
        place, rest = 0, frame.filter(pl.col("count").is_not_null())
        while rest.height:
            done.append(rest.filter(pl.col("count") == place))
            rest = rest.filter(pl.col("count") > place)
            one = pl.col("array").list.get(place).alias(element)
            rest = rest.with_columns(one).with_columns([steps[0], steps[1].alias("wrong")])
            rest = rest.with_columns(
                pl.col("next").alias(accumulator), pl.coalesce(FAULT, "wrong").alias(FAULT)
            ).drop("next", "wrong", element)
            place += 1
        found = pl.concat(done).sort(ROW).with_columns(pl.col(accumulator).alias(last))
        known = pl.col("count").is_not_null()
        wrong = pl.col(FAULT) if finish.fault is None else pl.coalesce(FAULT, finish.fault)
        value = pl.when(known).then(finish.value).cast(kind).alias(VALUE)
        both = pl.struct(value, pl.when(known).then(wrong).cast(pl.UInt8).alias(FAULT))
        return found.select(both.alias("x"))["x"]

    given = [array.value, initial.value.cast(held), *(pl.col(n) for n in names)]
    length = pl.int_range(pl.len())
    result = pl.Struct({VALUE: kind, FAULT: pl.UInt8})
    made = pl.map_batches([*given, length], run, return_dtype=result)
    fails = merge.fault is not None or finish.fault is not None
    return made.struct.field(VALUE), made.struct.field(FAULT) if fails else None


def _of_nothing(function: str, kind: Any) -> Px:  # noqa: ANN401
    if function in ("exists", "forall"):
        return pl.lit(function == "forall")
    return pl.lit(pl.Series([[]], dtype=kind)).first()
