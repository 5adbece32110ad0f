"""CAST under ANSI: a value that the new type cannot hold is a fault; try_cast makes it null."""

from __future__ import annotations

import datetime
import re
from typing import Any

from superfs.chukonu import types as t
from superfs.chukonu.catalog import decimals, moments
from superfs.chukonu.catalog.dtypes import dtype
from superfs.chukonu.catalog.faults import Fault, fault_where
from superfs.chukonu.catalog.numbers import by_row
from superfs.chukonu.errors import AnalysisException, UnsupportedError
from superfs.chukonu.native import pl

Px = Any
_BLANKS = "".join(map(chr, range(0x21))) + "\x7f"
"""What Spark takes off both ends of a string before it reads a number."""
_INTEGER = r"\A[+-]?[0-9]+\z"
FLOAT = r"\A[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[dDfF]?\z"
_DATE = re.compile(r"([0-9]{4})(?:-([0-9]{1,2})(?:-([0-9]{1,2})(?:[ T].*)?)?)?", re.DOTALL)


def compile_cast(a: Px, old: t.DataType, new: t.DataType) -> tuple[Px, Px]:
    """(result, fault or None)."""
    if old == new:
        return a, None
    if old == t.NULL:
        return a.cast(dtype(new)), None
    if t.TIMESTAMP in (old, new) and old in t.ATOMS and new in t.ATOMS:
        found = moments.compile_cast(a, old, new)
        if found is None:
            raise _mismatch(old, new)
        return found
    if isinstance(old, t.DecimalType) or isinstance(new, t.DecimalType):
        exact = decimals.compile_cast(a, old, new) if old in t.ATOMS and new in t.ATOMS else None
        if exact is None:
            raise _mismatch(old, new)
        return exact
    if old == t.STRING:
        return _from_string(a, new)
    if new == t.STRING:
        return _to_string(a, old)
    if old in t.NUMBERS and new in t.NUMBERS:
        return _number(a, old, new)
    if old == t.BOOLEAN and new in t.NUMBERS:
        return a.cast(dtype(new)), None
    if old in t.NUMBERS and new == t.BOOLEAN:
        return a != 0, None
    if isinstance(old, t.ArrayType) and isinstance(new, t.ArrayType):
        inner, fault = compile_cast(pl.element(), old.elementType, new.elementType)
        if fault is None:
            return a.list.eval(inner), None
    if isinstance(old, (t.ArrayType, t.StructType)) or isinstance(new, (t.ArrayType, t.StructType)):
        raise UnsupportedError(f"cast of {old.simpleString()} to {new.simpleString()}")
    raise _mismatch(old, new)


def _mismatch(old: t.DataType, new: t.DataType) -> AnalysisException:
    return AnalysisException(
        "DATATYPE_MISMATCH", f"cast of {old.simpleString()} to {new.simpleString()}"
    )


def _number(a: Px, old: t.DataType, new: t.DataType) -> tuple[Px, Px]:
    kind = dtype(new)
    if not isinstance(new, t.IntegralType):
        return a.cast(kind), None
    if old in t.INTEGRALS:
        if old.bits <= new.bits:
            return a.cast(kind), None
        outside = (a < new.smallest) | (a > new.largest)
        return a.cast(kind, strict=False), fault_where(outside, Fault.CAST_OVERFLOW)
    wide = a.cast(pl.Float64)
    outside = wide.is_nan() | (wide.floor() > float(new.largest))
    outside |= wide.ceil() < float(new.smallest)
    found = wide.cast(kind, strict=False)
    if new == t.LONG:  # 2**63 itself passes Spark's comparison, and becomes the largest
        found = pl.when(wide == 2.0**63).then(pl.lit(new.largest, kind)).otherwise(found)
    return found, fault_where(outside, Fault.CAST_OVERFLOW)


def _from_string(a: Px, new: t.DataType) -> tuple[Px, Px]:
    if new == t.BINARY:
        return a.cast(pl.Binary), None
    bare = a.str.strip_chars(_BLANKS)
    fault = Fault.CAST_NUMBER
    if new in t.INTEGRALS:
        found = pl.when(bare.str.contains(_INTEGER)).then(bare).cast(dtype(new), strict=False)
    elif new in (t.FLOAT, t.DOUBLE):
        found = _float(bare, dtype(new))
    elif new == t.BOOLEAN:
        low, fault = bare.str.to_lowercase(), Fault.CAST_BOOLEAN
        yes, no = (
            low.is_in(["t", "true", "y", "yes", "1"]),
            low.is_in(["f", "false", "n", "no", "0"]),
        )
        found = pl.when(yes).then(True).when(no).then(False)
    elif new == t.DATE:
        found, fault = by_row(read_date, pl.Date, bare), Fault.CAST_DATE
    else:
        raise UnsupportedError(f"cast of string to {new.simpleString()}")
    return found, fault_where(a.is_not_null() & found.is_null(), fault)


def _float(bare: Px, kind: Px) -> Px:
    plain = bare.str.contains(FLOAT)
    digits = bare.str.replace(r"[dDfF]\z", "")
    low = bare.str.to_lowercase().str.strip_chars_start("+")
    found = pl.when(plain).then(digits).cast(kind, strict=False)
    for text, value in (("inf", "inf"), ("infinity", "inf"), ("nan", "nan")):
        found = pl.when(low == text).then(pl.lit(float(value), kind)).otherwise(found)
    for text in ("-inf", "-infinity"):
        found = pl.when(low == text).then(pl.lit(float("-inf"), kind)).otherwise(found)
    return found


def read_date(text: str) -> datetime.date | None:
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    try:
        return datetime.date(int(match[1]), int(match[2] or 1), int(match[3] or 1))
    except ValueError:
        return None


def _to_string(a: Px, old: t.DataType) -> tuple[Px, Px]:
    if old == t.DOUBLE:
        return by_row(java_double, pl.String, a), None
    if old == t.BOOLEAN:
        return pl.when(a).then(pl.lit("true")).when(~a).then(pl.lit("false")), None
    if old in t.INTEGRALS:
        return a.cast(pl.String), None
    if old == t.DATE:
        return a.dt.to_string("%Y-%m-%d"), None
    if old == t.BINARY:
        found = a.cast(pl.String, strict=False)
        return found, fault_where(a.is_not_null() & found.is_null(), Fault.CAST_UTF8)
    raise UnsupportedError(f"cast of {old.simpleString()} to string")


def java_double(value: float) -> str:
    """As Java's Double.toString since JDK 19: the fewest digits that mean this number."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        text = repr(value)
        return text if "e" not in text else f"{value:.20f}".rstrip("0")
    mantissa, _, exponent = f"{value!r}".partition("e")
    sign = "-" if value < 0 else ""
    whole, _, part = mantissa.lstrip("-").partition(".")
    digits = (whole + part).lstrip("0")
    first = len(whole) - 1 if whole != "0" else -(len(part) - len(part.lstrip("0"))) - 1
    power = first + int(exponent or 0)
    digits = digits.rstrip("0") or "0"
    return f"{sign}{digits[0]}.{digits[1:] or '0'}E{power}"
