"""Comparison, logic and nulls. NaN equals itself and is above every number; -0.0 equals 0.0.

What evaluates an argument only where it is needed (and, or, coalesce) is in `LAZY`: faults of its
arguments count only in rows where Spark would have come to them.
"""

from __future__ import annotations

from typing import Any

from superfs.chukonu import types as t
from superfs.chukonu.catalog.base import ANY, BOOL, DBL, SAME, SAME_ANY, STR, function, same_type
from superfs.chukonu.catalog.faults import Fault, fault_where
from superfs.chukonu.native import pl

Px = Any
LAZY = {"and", "or", "coalesce", "nanvl"}
IN_TURN = {"+", "-", "*", "=", "<", "<=", ">", ">="}
"""The second argument is not looked at where the first is null."""
IN_REVERSE = {"/", "%", "pmod"}


@function("=", [SAME, SAME], t.BOOLEAN)
def equal(a: Px, b: Px) -> Px:
    return a == b


@function("<=>", [SAME, SAME], t.BOOLEAN)
def null_safe_equal(a: Px, b: Px) -> Px:
    return a.eq_missing(b)


@function("<", [SAME, SAME], t.BOOLEAN)
def less(a: Px, b: Px) -> Px:
    return a < b


@function("<=", [SAME, SAME], t.BOOLEAN)
def less_equal(a: Px, b: Px) -> Px:
    return a <= b


@function(">", [SAME, SAME], t.BOOLEAN)
def greater(a: Px, b: Px) -> Px:
    return a > b


@function(">=", [SAME, SAME], t.BOOLEAN)
def greater_equal(a: Px, b: Px) -> Px:
    return a >= b


@function("in", [SAME], t.BOOLEAN, rest=SAME)
def is_in(a: Px, *values: Px) -> Px:
    """Null where nothing is equal and something is null."""
    found = pl.lit(False)
    for value in values:
        found = found | (a == value)
    return found


@function("and", [BOOL, BOOL], t.BOOLEAN)
def and_(a: Px, b: Px) -> Px:
    return a & b


@function("or", [BOOL, BOOL], t.BOOLEAN)
def or_(a: Px, b: Px) -> Px:
    return a | b


@function("not", [BOOL], t.BOOLEAN)
def not_(a: Px) -> Px:
    return ~a


@function("isnull", [ANY], t.BOOLEAN)
def is_null(a: Px) -> Px:
    return a.is_null()


@function("isnotnull", [ANY], t.BOOLEAN)
def is_not_null(a: Px) -> Px:
    return a.is_not_null()


@function("isnan", [DBL], t.BOOLEAN)
def is_nan(a: Px) -> Px:
    return a.is_nan().fill_null(False)


@function("nanvl", [DBL, DBL], t.DOUBLE)
def nanvl(a: Px, b: Px) -> Px:
    return pl.when(a.is_null()).then(None).when(a.is_nan()).then(b).otherwise(a)


@function("coalesce", [SAME_ANY], same_type, rest=SAME_ANY)
def coalesce(*args: Px) -> Px:
    return pl.coalesce(*args)


@function("nullif", [SAME, SAME], same_type)
def nullif(a: Px, b: Px) -> Px:
    return pl.when((a == b).fill_null(False)).then(None).otherwise(a)


def _best(args: tuple[Px, ...], *, most: bool) -> Px:
    """Nulls are skipped, and NaN is above every number: the horizontal kernels ignore it."""
    best = args[0]
    for arg in args[1:]:
        better = arg > best if most else arg < best
        take = arg.is_not_null() & (best.is_null() | better)
        best = pl.when(take.fill_null(False)).then(arg).otherwise(best)
    return best


@function("greatest", [SAME, SAME], same_type, rest=SAME)
def greatest(*args: Px) -> Px:
    return _best(args, most=True)


@function("least", [SAME, SAME], same_type, rest=SAME)
def least(*args: Px) -> Px:
    return _best(args, most=False)


@function("raise_error", [STR], t.NULL, fails=True)
def raise_error(message: Px) -> tuple[Px, Px]:
    anything = message.is_null() | message.is_not_null()
    return pl.lit(None), fault_where(anything, Fault.RAISED)
