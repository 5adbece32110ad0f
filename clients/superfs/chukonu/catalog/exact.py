"""Decimal numbers as Spark computes with them: exact, then rounded half up to the digits that the
type has. No value is lost: what does not fit the type is nothing, and an error where it comes from.
"""

from __future__ import annotations

import decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superfs.chukonu.types import DecimalType

Decimal = decimal.Decimal
DIVIDED_SCALE = 38
_WIDE = decimal.Context(prec=400, rounding=decimal.ROUND_HALF_UP, Emax=10_000, Emin=-10_000)
_PRODUCT = decimal.Context(prec=39, rounding=decimal.ROUND_HALF_UP, Emax=10_000, Emin=-10_000)


def rounded(value: Decimal, kind: DecimalType) -> Decimal | None:
    """None: it does not fit."""
    if not value.is_finite() or value.adjusted() > 300:
        return None
    found = value.quantize(Decimal(1).scaleb(-kind.scale), context=_WIDE)
    digits = found.adjusted() + 1 + kind.scale
    if not found:
        return abs(found)  # there is no negative zero
    return found if digits <= kind.precision else None


def added(a: Decimal, b: Decimal) -> Decimal:
    return _WIDE.add(a, b)


def subtracted(a: Decimal, b: Decimal) -> Decimal:
    return _WIDE.subtract(a, b)


def multiplied(a: Decimal, b: Decimal) -> Decimal:
    return _PRODUCT.multiply(a, b)


def divided(a: Decimal, b: Decimal) -> Decimal:
    """`b` is not zero."""
    return _WIDE.quantize(_WIDE.divide(a, b), Decimal(1).scaleb(-DIVIDED_SCALE))


def remainder(a: Decimal, b: Decimal) -> Decimal:
    """Its sign is that of `a`."""
    return _WIDE.remainder(a, b)


def read(text: str) -> Decimal | None:
    try:
        found = Decimal(text) if "_" not in text else None
    except decimal.InvalidOperation:
        return None
    return found if found is not None and found.is_finite() else None
