"""Decimals: the types of results, by Spark's rules, and kernels that compute exactly (exact.py)."""

from __future__ import annotations

import decimal
from typing import TYPE_CHECKING, Any

from superfs.chukonu import expressions as e
from superfs.chukonu import types as t
from superfs.chukonu.catalog import exact
from superfs.chukonu.catalog.base import ANY, cast_to, function, same_type
from superfs.chukonu.catalog.dtypes import dtype
from superfs.chukonu.catalog.faults import Fault, fault_where
from superfs.chukonu.catalog.numbers import by_row
from superfs.chukonu.errors import UnsupportedError
from superfs.chukonu.native import pl

if TYPE_CHECKING:
    from collections.abc import Callable

Px = Any
Decimal = decimal.Decimal
SCALE_MIN = 6
"""Digits behind the point that are kept where there are too many in all."""
_TRIMMED = "".join(map(chr, range(0x21)))


def _adjusted(precision: int, scale: int) -> t.DecimalType:
    if precision <= t.DIGITS_MAX:
        return t.DecimalType(precision, scale)
    whole = precision - scale
    return t.DecimalType(t.DIGITS_MAX, max(t.DIGITS_MAX - whole, min(scale, SCALE_MIN)))


def _result(symbol: str, a: t.DecimalType, b: t.DecimalType) -> t.DecimalType:
    whole, scale = max(a.precision - a.scale, b.precision - b.scale), max(a.scale, b.scale)
    match symbol:
        case "*":
            return _adjusted(a.precision + b.precision + 1, a.scale + b.scale)
        case "/":
            scale = max(SCALE_MIN, a.scale + b.precision + 1)
            return _adjusted(a.precision - a.scale + b.scale + scale, scale)
        case "%":
            whole = min(a.precision - a.scale, b.precision - b.scale)
            return _adjusted(whole + scale, scale)
    return _adjusted(whole + scale + 1, scale)


OPERATIONS = {
    "+": exact.added,
    "-": exact.subtracted,
    "*": exact.multiplied,
    "/": exact.divided,
    "%": exact.remainder,
}
_ZERO = {"/": Fault.DIVIDE_BY_ZERO, "%": Fault.REMAINDER_BY_ZERO}


def resolve(symbol: str, args: tuple[e.Expr, ...]) -> e.Expr | None:
    """None: it is no arithmetic of decimals."""
    kinds = [e.dtype_of(arg) for arg in args]
    if len(args) != 2 or not any(isinstance(kind, t.DecimalType) for kind in kinds):
        return None
    if any(kind in (t.FLOAT, t.DOUBLE) for kind in kinds):
        return e.Call(symbol, tuple(cast_to(arg, t.DOUBLE) for arg in args), t.DOUBLE)
    found = [_operand(arg) for arg in args]
    if found[0] is None or found[1] is None:
        texts = " and ".join(kind.simpleString() for kind in kinds)
        raise UnsupportedError(f"{symbol} of {texts}")
    one, other = (e.dtype_of(arg) for arg in found if arg is not None)
    assert isinstance(one, t.DecimalType)
    assert isinstance(other, t.DecimalType)
    return e.Call(f"decimal{symbol}", (found[0], found[1]), _result(symbol, one, other))


def _operand(arg: e.Expr) -> e.Expr | None:
    kind = t.as_decimal(e.dtype_of(arg))
    if isinstance(arg, e.Lit) and isinstance(arg.value, int) and kind is not None:
        kind = t.DecimalType(len(str(abs(arg.value))), 0)
    return None if kind is None else arg if e.dtype_of(arg) == kind else e.Cast(arg, kind)


def _typed(kind: t.DataType) -> t.DecimalType:
    assert isinstance(kind, t.DecimalType)
    return kind


def _fitted(value: Px, whole: Px, where: Px) -> tuple[Px, Px]:
    """`whole`: that it is not null says that there is a value."""
    return value, fault_where(where & whole.is_not_null() & value.is_null(), Fault.OUT_OF_RANGE)


def _arithmetic(symbol: str, apply: Callable[[Decimal, Decimal], Decimal]) -> None:
    def result(a: t.DataType, b: t.DataType) -> t.DecimalType:
        return _result(symbol, _typed(a), _typed(b))

    @function(f"decimal{symbol}", [ANY, ANY], result, fails=True, typed=True)
    def kernel(kinds: tuple[t.DataType, ...], a: Px, b: Px) -> tuple[Px, Px]:
        kind = result(*kinds)

        def one(x: Decimal, y: Decimal) -> Decimal | None:
            return exact.rounded(apply(x, y), kind) if y or symbol not in _ZERO else None

        value = by_row(one, dtype(kind), a, b)
        if symbol not in _ZERO:
            return _fitted(value, a, b.is_not_null())
        zero = b == Decimal(0)
        fault = fault_where(zero & a.is_not_null(), _ZERO[symbol])
        return value, pl.coalesce(fault, _fitted(value, a, ~zero)[1])


for _symbol, _apply in OPERATIONS.items():
    _arithmetic(_symbol, _apply)


@function("decimal_negative", [ANY], same_type, typed=True)
def negative(kinds: tuple[t.DataType, ...], a: Px) -> Px:
    return by_row(lambda v: abs(v) if not v else -v, dtype(kinds[0]), a)


@function("decimal_abs", [ANY], same_type, typed=True)
def absolute(kinds: tuple[t.DataType, ...], a: Px) -> Px:
    return by_row(abs, dtype(kinds[0]), a)


# ---- casts


def compile_cast(a: Px, old: t.DataType, new: t.DataType) -> tuple[Px, Px] | None:
    """None: there is no such cast."""
    if isinstance(new, t.DecimalType):
        return _to_decimal(a, old, new)
    if new == t.STRING:
        return a.cast(pl.String), None
    if new in (t.DOUBLE, t.FLOAT):
        return by_row(float, pl.Float64, a).cast(dtype(new)), None
    if new == t.BOOLEAN:
        return a != Decimal(0), None
    if isinstance(new, t.IntegralType):
        low, high = new.smallest, new.largest

        def whole(value: Decimal) -> int | None:
            found = int(value)
            return found if low <= found <= high else None

        found = by_row(whole, dtype(new), a)
        return found, fault_where(a.is_not_null() & found.is_null(), Fault.CAST_OVERFLOW)
    return None


def _to_decimal(a: Px, old: t.DataType, new: t.DecimalType) -> tuple[Px, Px] | None:
    makes: dict[t.DataType, Callable[[Any], Decimal | None]] = {
        t.DOUBLE: lambda v: Decimal(repr(v)),
        t.FLOAT: lambda v: Decimal(repr(v)),
        t.BOOLEAN: lambda v: Decimal(int(v)),
        t.STRING: lambda v: exact.read(v.strip(_TRIMMED)),
    }
    makes |= dict.fromkeys(t.INTEGRALS, Decimal)
    make = makes.get(old, Decimal)
    if old not in (*makes,) and not isinstance(old, t.DecimalType):
        return None
    if old == t.FLOAT:
        raise UnsupportedError("cast of float to decimal", "cast it to double first")

    def run(value: Any) -> Decimal | None:  # noqa: ANN401
        found = make(value)
        return None if found is None else exact.rounded(found, new)

    value = by_row(run, dtype(new), a)
    if old == t.DOUBLE:  # NaN and infinities are null
        return _fitted(value, a, a.is_finite())
    if old == t.STRING:
        known = by_row(lambda v: exact.read(v.strip(_TRIMMED)) is not None, pl.Boolean, a)
        no_number = fault_where(~known, Fault.CAST_NUMBER)
        return value, pl.coalesce(no_number, _fitted(value, a, known)[1])
    return _fitted(value, a, pl.lit(True))


# ---- sums


WRAPPED = 1.6e38
"""A sum of so much could be more than 128 bits hold."""


def guarded_sum(unscaled: Px) -> Px:
    """Of whole numbers of 128 bits; the largest of them where it may be more than they hold."""
    fits = unscaled.cast(pl.Float64).abs().sum() < WRAPPED
    most = pl.lit((1 << 127) - 1, pl.Int128)
    return pl.when(unscaled.count() > 0).then(pl.when(fits).then(unscaled.sum()).otherwise(most))


def sum_type(kind: t.DecimalType) -> t.DecimalType:
    return t.bounded(kind.precision + 10, kind.scale)


def scaled(unscaled: Px, kind: t.DecimalType) -> tuple[Px, Px]:
    """(the decimal, fault)."""
    limit = 10**kind.precision
    outside = (unscaled >= limit) | (unscaled <= -limit)
    inside = pl.when(~outside).then(unscaled).cast(pl.Decimal(t.DIGITS_MAX, 0))
    step = pl.lit(Decimal(1).scaleb(-kind.scale), pl.Decimal(t.DIGITS_MAX, kind.scale))
    value = inside * step if kind.scale else inside
    return value.cast(dtype(kind)), fault_where(outside, Fault.OVERFLOW)


def average(sum_: e.Expr, count: e.Expr, kind: t.DecimalType) -> e.Expr:
    """Of decimals of that type, from their sum and their number."""
    result = t.bounded(kind.precision + 4, kind.scale + 4)
    quotient = e.Call("decimal_mean", (sum_, count), t.DecimalType(t.DIGITS_MAX, result.scale))
    return e.Cast(quotient, result) if result != quotient.dtype else quotient


def _mean_type(sum_: t.DataType, _: t.DataType) -> t.DataType:
    scale = min(t.DIGITS_MAX, _typed(sum_).scale + 4)
    return t.DecimalType(t.DIGITS_MAX, scale)


@function("decimal_mean", [ANY, ANY], _mean_type, fails=True, typed=True)
def mean(kinds: tuple[t.DataType, ...], a: Px, count: Px) -> tuple[Px, Px]:
    kind = _typed(_mean_type(*kinds))

    def run(total: Decimal, number: int) -> Decimal | None:
        return exact.rounded(exact.divided(total, Decimal(number)), kind) if number else None

    value = by_row(run, dtype(kind), a, count)
    return _fitted(value, a, count > 0)
