"""Types of CSV columns, from all their values, as Spark infers them: each is looked at as what the
column was until then, and what comes next in `int, bigint, decimal, double, date, timestamp,
boolean, string`; then the two types meet.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from superfs.chukonu import types as t
from superfs.chukonu.catalog import exact
from superfs.chukonu.catalog.moments import parsed
from superfs.chukonu.catalog.patterns import Pattern
from superfs.chukonu.sources.csvdialect import BadQuotes, values_of
from superfs.chukonu.sources.csvlines import records

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.chukonu.sources.csvdialect import Dialect
    from superfs.chukonu.sources.splits import Block

_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[dDfF]?")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_ORDER: list[t.DataType] = [t.NULL, t.INT, t.LONG, t.DECIMAL, t.DOUBLE, t.DATE, t.TIMESTAMP]
_ORDER += [t.BOOLEAN, t.STRING]


def _integral(kind: t.IntegralType) -> Callable[[str, Dialect], t.DataType | None]:
    def test(text: str, _: Dialect) -> t.DataType | None:
        fits = _INTEGER.fullmatch(text) and kind.smallest <= int(text) <= kind.largest
        return kind if fits else None

    return test


def _decimal(text: str, dialect: Dialect) -> t.DataType | None:
    found = exact.read(text) if text == text.strip() else None
    if found is None:
        return None
    _, digits, exponent = found.as_tuple()
    assert isinstance(exponent, int)
    whole = len(digits) + exponent
    return t.DecimalType(whole, 0) if exponent >= 0 and 0 < whole <= t.DIGITS_MAX else None


def _double(text: str, dialect: Dialect) -> t.DataType | None:
    names: tuple[str, ...] = ("NaN", "Infinity", "+Infinity", "-Infinity", dialect.nan_value)
    names += (dialect.positive_inf, dialect.negative_inf)
    return t.DOUBLE if text in names or _FLOAT.fullmatch(text.strip()) else None


def _date(text: str, dialect: Dialect) -> t.DataType | None:
    """Stricter than reading as a date is."""
    return t.DATE if Pattern(dialect.date_format or "yyyy-MM-dd").parsed(text) else None


def _timestamp(text: str, dialect: Dialect) -> t.DataType | None:
    read = Pattern(dialect.timestamp_format).parsed if dialect.timestamp_format else parsed
    return t.TIMESTAMP if read(text if dialect.timestamp_format else text.strip()) else None


def _boolean(text: str, _: Dialect) -> t.DataType | None:
    return t.BOOLEAN if text.lower() in ("true", "false") else None


_TESTS = [_integral(t.INT), _integral(t.LONG), _decimal, _double, _date, _timestamp, _boolean]


@lru_cache(1 << 16)
def met(before: t.DataType, text: str, dialect: Dialect) -> t.DataType:
    """The type of a column that was `before`, with this value."""
    known = t.DECIMAL if isinstance(before, t.DecimalType) else before
    start = max(0, _ORDER.index(known) - 1)
    for test in _TESTS[start:]:
        found = test(text, dialect)
        if found is not None:
            return together(before, found)
    return t.STRING


def together(one: t.DataType, other: t.DataType) -> t.DataType:
    if {one, other} == {t.DATE, t.TIMESTAMP}:
        return t.TIMESTAMP
    numbers = (*t.INTEGRALS, t.DOUBLE, t.NULL, t.DECIMAL)
    both = [t.DECIMAL if isinstance(k, t.DecimalType) else k for k in (one, other)]
    if one != other and not all(kind in numbers for kind in both) and t.NULL not in both:
        return t.STRING
    return t.wider(one, other) or t.STRING


def infer_block(
    block: Block, kinds: list[t.DataType], dialect: Dialect, *, header: bool
) -> tuple[list[t.DataType], bool]:
    """(the types with what is in the block, whether a record was bad)."""
    bad = bool(block.broken)
    for _, line in list(records(block, dialect))[1 if header else 0 :]:
        try:
            values = values_of(line.decode(), dialect)
        except (BadQuotes, UnicodeDecodeError):
            bad = True
            continue
        bad = bad or len(values) != len(kinds)
        pairs = zip(kinds, values, strict=False)
        new = [kind if v is None else met(kind, v, dialect) for kind, v in pairs]
        kinds = [*new, *kinds[len(new) :]]
    return kinds, bad
