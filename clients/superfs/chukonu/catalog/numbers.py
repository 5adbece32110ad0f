"""Arithmetic and mathematics. A result that does not fit is an error, never another number."""

from __future__ import annotations

import decimal
import math
from typing import TYPE_CHECKING, Any

from superfs.chukonu import types as t
from superfs.chukonu.catalog.base import (
    DBL,
    INT,
    INT_CONST,
    INTEGRAL,
    NUMBER,
    SAME_INTEGRAL,
    SAME_NUMBER,
    function,
    same_type,
)
from superfs.chukonu.catalog.dtypes import dtype
from superfs.chukonu.catalog.faults import Fault, fault_where
from superfs.chukonu.errors import UnsupportedError
from superfs.chukonu.native import pl

if TYPE_CHECKING:
    from collections.abc import Callable

Px = Any
"""A Polars expression. Its types are not looked at: Polars is not there in most environments."""


def _fitted(wide: Px, kind: t.IntegralType, fault: Fault = Fault.OVERFLOW) -> tuple[Px, Px]:
    """An exact result in a wider type, brought back to its own."""
    outside = (wide < kind.smallest) | (wide > kind.largest)
    return wide.cast(dtype(kind), strict=False), fault_where(outside, fault)


def _exactly(kind: t.IntegralType, *args: Px) -> list[Px]:
    wide = pl.Int128 if kind == t.LONG else pl.Int64
    return [arg.cast(wide) for arg in args]


def _arithmetic(symbol: str, apply: Callable[[Px, Px], Px]) -> None:
    @function(symbol, [SAME_NUMBER, SAME_NUMBER], same_type, fails=True, typed=True)
    def kernel(kinds: tuple[t.DataType, ...], a: Px, b: Px) -> tuple[Px, Px]:
        kind = kinds[0]
        if isinstance(kind, t.IntegralType):
            small = kind in (t.BYTE, t.SHORT)
            fault = Fault.BINARY_OVERFLOW if small else Fault.OVERFLOW
            return _fitted(apply(*_exactly(kind, a, b)), kind, fault)
        return apply(a, b), None


_arithmetic("+", lambda a, b: a + b)
_arithmetic("-", lambda a, b: a - b)
_arithmetic("*", lambda a, b: a * b)


@function("/", [DBL, DBL], t.DOUBLE, fails=True)
def divide(a: Px, b: Px) -> tuple[Px, Px]:
    zero = (b == 0) & a.is_not_null()
    return pl.when(b != 0).then(a / b), fault_where(zero, Fault.DIVIDE_BY_ZERO)


def _remainder(kind: t.DataType, a: Px, b: Px) -> Px:
    """The sign is that of the dividend, as in Java."""
    if isinstance(kind, t.IntegralType):
        floored = a % pl.when(b != 0).then(b)
        other_sign = (floored != 0) & ((a < 0) != (b < 0))
        return pl.when(other_sign).then(floored - b).otherwise(floored)
    return _by_row(_fmod, dtype(kind), a, b)


def _fmod(a: float, b: float) -> float | None:
    if b == 0 or math.isinf(a):
        return None if b == 0 else math.nan
    return math.fmod(a, b)


def aligned(columns: list[Any]) -> list[list[Any]]:
    """Values of columns of one height; a constant may come as a single one."""
    sizes = {len(c) for c in columns}
    height = 0 if 0 in sizes else max(sizes)
    return [c.to_list() * (height if len(c) == 1 else 1) for c in columns]


def _by_row(apply: Callable[..., Any], kind: Px, *args: Px) -> Px:
    """For the few functions that only Python computes as Java does."""

    def run(columns: list[Any]) -> Any:  # noqa: ANN401
        lists = aligned(columns)
        found = [
            None if any(v is None for v in row) else apply(*row) for row in zip(*lists, strict=True)
        ]
        return pl.Series(found, dtype=kind)

    return pl.map_batches(list(args), run, return_dtype=kind)


@function("%", [SAME_NUMBER, SAME_NUMBER], same_type, fails=True, typed=True)
def remainder(kinds: tuple[t.DataType, ...], a: Px, b: Px) -> tuple[Px, Px]:
    zero = (b == 0) & a.is_not_null()
    return _remainder(kinds[0], a, b), fault_where(zero, Fault.REMAINDER_BY_ZERO)


@function("pmod", [SAME_NUMBER, SAME_NUMBER], same_type, fails=True, typed=True)
def pmod(kinds: tuple[t.DataType, ...], a: Px, b: Px) -> tuple[Px, Px]:
    kind = kinds[0]
    if not isinstance(kind, t.IntegralType):
        raise UnsupportedError(f"pmod of {kind.simpleString()}")
    zero = (b == 0) & a.is_not_null()
    wide, by = _exactly(t.LONG, a, b)
    first = _remainder(kind, wide, by)
    again = pl.when(first < 0).then(_remainder(kind, first + by, by)).otherwise(first)
    return again.cast(dtype(kind), strict=False), fault_where(zero, Fault.REMAINDER_BY_ZERO)


@function("negative", [NUMBER], same_type, fails=True, typed=True)
def negative(kinds: tuple[t.DataType, ...], a: Px) -> tuple[Px, Px]:
    if isinstance(kinds[0], t.IntegralType):
        return _fitted(0 - _exactly(t.LONG, a)[0], kinds[0])
    return -a, None


@function("abs", [NUMBER], same_type, fails=True, typed=True)
def absolute(kinds: tuple[t.DataType, ...], a: Px) -> tuple[Px, Px]:
    if isinstance(kinds[0], t.IntegralType):
        return _fitted(_exactly(t.LONG, a)[0].abs(), kinds[0])
    return a.abs(), None


# ---- rounding


def _whole(rounded: Px) -> Px:
    """As Java's (long): what is beyond is the nearest, and NaN is 0."""
    large, small = rounded >= 2.0**63, rounded < -(2.0**63)
    inside = rounded.fill_nan(0.0).cast(pl.Int64, strict=False)
    most = pl.when(large & rounded.is_not_nan()).then(pl.lit(t.LONG.largest, pl.Int64))
    return most.when(small).then(pl.lit(t.LONG.smallest, pl.Int64)).otherwise(inside)


@function("ceil", [NUMBER], t.LONG, typed=True)
def ceil(kinds: tuple[t.DataType, ...], a: Px) -> Px:
    return a.cast(pl.Int64) if kinds[0] in t.INTEGRALS else _whole(a.cast(pl.Float64).ceil())


@function("floor", [NUMBER], t.LONG, typed=True)
def floor(kinds: tuple[t.DataType, ...], a: Px) -> Px:
    return a.cast(pl.Int64) if kinds[0] in t.INTEGRALS else _whole(a.cast(pl.Float64).floor())


def _round_half_up(value: float, scale: int) -> float:
    if not math.isfinite(value):
        return value
    with decimal.localcontext() as context:
        context.prec = 800
        step = decimal.Decimal(1).scaleb(-scale)
        found = decimal.Decimal(repr(value)).quantize(step, rounding=decimal.ROUND_HALF_UP)
    return float(found) + 0.0  # Spark loses the sign of zero on the way


@function("round", [NUMBER, INT_CONST], same_type, optional=1, fails=True, typed=True)
def round_(kinds: tuple[t.DataType, ...], a: Px, scale: int = 0) -> tuple[Px, Px]:
    kind = kinds[0]
    if kind == t.DOUBLE:
        return _by_row(lambda v: _round_half_up(v, scale), pl.Float64, a), None
    if not isinstance(kind, t.IntegralType):
        raise UnsupportedError(f"round of {kind.simpleString()}")
    if scale >= 0:
        return a, None
    if scale < -18:
        raise UnsupportedError(f"round to {scale} places")
    unit = 10**-scale
    wide = _exactly(t.LONG, a)[0]
    up = (wide.abs() + unit // 2) // unit * unit
    return _fitted(pl.when(wide < 0).then(0 - up).otherwise(up), kind)


@function("bround", [NUMBER, INT_CONST], same_type, optional=1, typed=True)
def bround(kinds: tuple[t.DataType, ...], a: Px, scale: int = 0) -> Px:
    if kinds[0] != t.DOUBLE:
        raise UnsupportedError(f"bround of {kinds[0].simpleString()}")

    def even(value: float) -> float:
        if not math.isfinite(value):
            return value
        with decimal.localcontext() as context:
            context.prec = 800
            step = decimal.Decimal(1).scaleb(-scale)
            found = decimal.Decimal(repr(value)).quantize(step, rounding=decimal.ROUND_HALF_EVEN)
        return float(found) + 0.0

    return _by_row(even, pl.Float64, a)


# ---- mathematics


def _math(name: str, apply: Callable[[Px], Px]) -> None:
    function(name, [DBL], t.DOUBLE)(apply)


_math("sqrt", lambda a: a.sqrt())
_math("cbrt", lambda a: a.cbrt())
_math("exp", lambda a: a.exp())
_math("sin", lambda a: a.sin())
_math("cos", lambda a: a.cos())
_math("tan", lambda a: a.tan())
_math("asin", lambda a: a.arcsin())
_math("acos", lambda a: a.arccos())
_math("atan", lambda a: a.arctan())
_math("sinh", lambda a: a.sinh())
_math("cosh", lambda a: a.cosh())
_math("tanh", lambda a: a.tanh())
_math("degrees", lambda a: a.degrees())
_math("radians", lambda a: a.radians())
_math("signum", lambda a: a.sign())
# Not positive: null, as Spark has it; NaN stays.
_math("ln", lambda a: pl.when(a > 0).then(a.log()))
_math("log10", lambda a: pl.when(a > 0).then(a.log10()))
_math("log2", lambda a: pl.when(a > 0).then(a.log(2)))
_math("log1p", lambda a: pl.when(a > -1).then(a.log1p()))


@function("power", [DBL, DBL], t.DOUBLE)
def power(a: Px, b: Px) -> Px:
    # Java: 1 to NaN or to infinity is NaN, where C has 1.
    odd = (a.abs() == 1) & (b.is_nan() | b.is_infinite())
    return pl.when(odd).then(pl.lit(math.nan)).otherwise(a.pow(b))


@function("atan2", [DBL, DBL], t.DOUBLE)
def atan2(a: Px, b: Px) -> Px:
    return pl.arctan2(a, b)


@function("hypot", [DBL, DBL], t.DOUBLE)
def hypot(a: Px, b: Px) -> Px:
    return _by_row(math.hypot, pl.Float64, a, b)


# ---- bits


@function("&", [SAME_INTEGRAL, SAME_INTEGRAL], same_type)
def bit_and(a: Px, b: Px) -> Px:
    return a & b


@function("|", [SAME_INTEGRAL, SAME_INTEGRAL], same_type)
def bit_or(a: Px, b: Px) -> Px:
    return a | b


@function("^", [SAME_INTEGRAL, SAME_INTEGRAL], same_type)
def bit_xor(a: Px, b: Px) -> Px:
    return a ^ b


@function("bitwise_not", [INTEGRAL], same_type)
def bit_not(a: Px) -> Px:
    return ~a


@function("bit_count", [INTEGRAL], t.INT)
def bit_count(a: Px) -> Px:
    return a.cast(pl.Int64).bitwise_count_ones().cast(pl.Int32)


def _shift(kind: t.DataType, apply: Callable[[int, int], int]) -> Callable[[int, int], int]:
    bits = 64 if kind == t.LONG else 32

    def run(value: int, by: int) -> int:
        found = apply(value, by % bits) & ((1 << bits) - 1)
        return found - (1 << bits) if found >> (bits - 1) else found

    return run


@function("shiftleft", [INTEGRAL, INT], same_type, typed=True)
def shift_left(kinds: tuple[t.DataType, ...], a: Px, by: Px) -> Px:
    if kinds[0] not in (t.INT, t.LONG):
        raise UnsupportedError(f"shiftleft of {kinds[0].simpleString()}")
    return _by_row(_shift(kinds[0], lambda v, n: v << n), dtype(kinds[0]), a, by)


@function("shiftright", [INTEGRAL, INT], same_type, typed=True)
def shift_right(kinds: tuple[t.DataType, ...], a: Px, by: Px) -> Px:
    if kinds[0] not in (t.INT, t.LONG):
        raise UnsupportedError(f"shiftright of {kinds[0].simpleString()}")
    return _by_row(_shift(kinds[0], lambda v, n: v >> n), dtype(kinds[0]), a, by)


by_row = _by_row
