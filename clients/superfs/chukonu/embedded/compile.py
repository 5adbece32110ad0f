"""Typed expressions to Polars expressions. Each becomes two: its value, and its faults.

Polars computes every branch for every row and knows no errors under a condition. So a fault is a
column beside the value, with a number in the rows that have one: conditions mask it as they mask
values, and what is left after a step is raised there (steps.py).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from superfs.chukonu import expressions as e
from superfs.chukonu import types as t
from superfs.chukonu.catalog import FUNCTIONS
from superfs.chukonu.catalog.casts import compile_cast
from superfs.chukonu.catalog.conditions import IN_REVERSE, IN_TURN, LAZY
from superfs.chukonu.catalog.dtypes import dtype
from superfs.chukonu.embedded.lambdas import compile_fold, compile_lambda
from superfs.chukonu.embedded.processes import Remote
from superfs.chukonu.embedded.udfs import batches, rows
from superfs.chukonu.native import pl

Px = Any
_NO_FAULT = pl.lit(None, pl.UInt8)


class Compiled(NamedTuple):
    value: Px
    fault: Px | None


def compile_expr(expr: e.Expr) -> Compiled:
    match expr:
        case e.Ref():
            return Compiled(pl.col(expr.key), None)
        case e.Var():
            return Compiled(pl.col(expr.key), None)
        case e.Lambda():
            value, fault = compile_lambda(expr, compile_expr)
            return Compiled(value, _first(compile_expr(expr.child).fault, fault))
        case e.Fold():
            value, fault = compile_fold(expr, compile_expr)
            inner = (compile_expr(expr.child).fault, compile_expr(expr.initial).fault)
            return Compiled(value, _first(*inner, fault))
        case e.Lit(value, kind):
            return Compiled(pl.lit(value, dtype(kind)), None)
        case e.Alias(child):
            return compile_expr(child)
        case e.Cast(child, kind, attempt):
            inner = compile_expr(child)
            value, fault = compile_cast(inner.value, e.dtype_of(child), kind)
            return Compiled(value, _first(inner.fault, None if attempt else fault))
        case e.Case():
            return _case(expr)
        case e.Call():
            return _call(expr)
        case e.PythonUDF():
            return _python(expr)
    raise AssertionError(f"cannot compile {expr}")


def _first(*faults: Px | None) -> Px | None:
    found = [fault for fault in faults if fault is not None]
    return None if not found else found[0] if len(found) == 1 else pl.coalesce(*found)


def _where(condition: Px, fault: Px | None) -> Px | None:
    return None if fault is None else pl.when(condition).then(fault)


def _case(expr: e.Case) -> Compiled:
    otherwise = compile_expr(expr.otherwise)
    value, fault = otherwise.value, otherwise.fault
    for condition, branch in reversed(expr.branches):
        test, then = compile_expr(condition), compile_expr(branch)
        value = pl.when(test.value).then(then.value).otherwise(value)
        taken = test.value.fill_null(False)
        later = _first(_where(taken, then.fault), _where(~taken, fault))
        fault = _first(test.fault, later)
    return Compiled(value, fault)


def _call(expr: e.Call) -> Compiled:
    args = [compile_expr(arg) for arg in expr.args]
    if expr.function == "struct":
        assert isinstance(expr.dtype, t.StructType)
        named = [a.value.alias(f.name) for a, f in zip(args, expr.dtype, strict=True)]
        return Compiled(pl.struct(named), _first(*(a.fault for a in args)))
    function = FUNCTIONS[expr.function]
    params = list(function.params[: len(args)])
    params += [function.rest] * (len(args) - len(params))  # type: ignore[list-item]
    given = [
        arg.value if param.const and isinstance(arg, e.Lit) else made.value
        for arg, made, param in zip(expr.args, args, params, strict=True)
    ]
    if function.typed:
        given.insert(0, tuple(e.dtype_of(arg) for arg in expr.args))
    found = function.kernel(*given)
    value, own = found if function.fails else (found, None)
    if expr.function in LAZY:
        return Compiled(value, _lazy(expr.function, args))
    if expr.function in IN_TURN or expr.function in IN_REVERSE:
        one, other = args if expr.function in IN_TURN else reversed(args)
        inner = _first(one.fault, _where(one.value.is_not_null(), other.fault))
        return Compiled(value, _first(inner, own))
    return Compiled(value, _first(*(a.fault for a in args), own))


def _python(expr: e.PythonUDF) -> Compiled:
    args = [compile_expr(arg) for arg in expr.args]
    kind = dtype(expr.dtype)

    run: Any
    if isinstance(expr.function, Remote):
        run = partial(expr.function.column, dtype=kind)
    else:
        run = batches(expr) if expr.batch else rows(expr)
    counted = pl.int_range(pl.len())  # says how many rows there are when all are constants
    value = pl.map_batches([*(a.value for a in args), counted], run, return_dtype=kind)
    return Compiled(value, _first(*(a.fault for a in args)))


def _lazy(function: str, args: list[Compiled]) -> Px | None:
    """Faults of arguments that are only looked at when those before them did not decide."""
    fault: Px | None = None
    for arg in reversed(args):
        if function == "and":
            go_on = arg.value.fill_null(True)
        elif function == "nanvl":
            go_on = arg.value.is_nan().fill_null(False)
        elif function == "or":
            go_on = ~arg.value.fill_null(False)
        else:
            go_on = arg.value.is_null()
        fault = _first(arg.fault, _where(go_on, fault))
    return fault
