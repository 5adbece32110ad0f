"""Timestamps: moments in microseconds, of the years 1 to 9999, in UTC wherever they are written."""

from __future__ import annotations

import datetime
import math
import re
from typing import TYPE_CHECKING, Any

from superfs.chukonu import types as t
from superfs.chukonu.catalog.base import DATE, DBL, INT, LONG, MOMENT, STR, STR_CONST, function
from superfs.chukonu.catalog.dtypes import dtype
from superfs.chukonu.catalog.faults import Fault, fault_where
from superfs.chukonu.catalog.numbers import by_row
from superfs.chukonu.catalog.patterns import Pattern
from superfs.chukonu.errors import UnsupportedError
from superfs.chukonu.native import pl

if TYPE_CHECKING:
    from collections.abc import Callable

Px = Any
KIND = pl.Datetime("us")
SECOND, DAY = 1_000_000, 86_400_000_000
_EPOCH = datetime.datetime(1970, 1, 1)
_FIRST, _LAST = datetime.datetime.min, datetime.datetime.max


def _micros(moment: datetime.datetime) -> int:
    return (moment - _EPOCH) // datetime.timedelta(microseconds=1)


LOW, HIGH = _micros(_FIRST), _micros(_LAST)
_TEXT = re.compile(
    r"([0-9]{4})(?:-([0-9]{1,2})(?:-([0-9]{1,2})"
    r"(?:(?:[ T])([0-9]{1,2})(?::([0-9]{1,2})(?::([0-9]{1,2})(?:\.([0-9]*))?)?)?[ ]*(.*))?"
    r")?)?",
    re.DOTALL,
)
_ZONE = re.compile(r"(?:UTC|GMT|UT)?(?:([+-])([0-9]{1,2})(?::?([0-9]{2})(?::?([0-9]{2}))?)?)?|Z")


def parsed(text: str) -> datetime.datetime | None:
    """As Spark casts strings; time without a date is not taken."""
    match = _TEXT.fullmatch(text)
    if match is None:
        if re.fullmatch(r"T?[0-9]{1,2}:[0-9]{1,2}.*", text):
            raise UnsupportedError("a timestamp without a date")
        return None
    year, month, day, hour, minute, second, part, zone = match.groups()
    numbers = [int(n or 1) for n in (year, month, day)]
    numbers += [int(n or 0) for n in (hour, minute, second)]
    micro = int((part or "")[:6].ljust(6, "0"))
    try:
        found = datetime.datetime(*numbers, micro)  # type: ignore[arg-type,call-arg]
        return found if not zone else found - _offset(zone)
    except (ValueError, OverflowError):
        return None


def _offset(zone: str) -> datetime.timedelta:
    match = _ZONE.fullmatch(zone)
    if match is None:
        if re.fullmatch(r"[A-Za-z_]+(?:/[A-Za-z_+0-9-]+)+", zone):
            raise UnsupportedError(f"time zone {zone}", "offsets and UTC are")
        raise ValueError(zone)
    sign, hours, minutes, seconds = match.groups()
    if sign is None:
        return datetime.timedelta()
    found = datetime.timedelta(
        hours=int(hours), minutes=int(minutes or 0), seconds=int(seconds or 0)
    )
    if found > datetime.timedelta(hours=18) or int(minutes or 0) > 59 or int(seconds or 0) > 59:
        raise ValueError(zone)
    return found if sign == "+" else -found


def written(moment: datetime.datetime) -> str:
    text = moment.isoformat(sep=" ", timespec="microseconds")
    return text.rstrip("0").rstrip(".")


def _moment(micros: Px) -> tuple[Px, Px]:
    """From microseconds as Int64 or Int128."""
    outside = (micros < LOW) | (micros > HIGH)
    inside = pl.when(~outside).then(micros).cast(pl.Int64)
    return inside.cast(KIND), fault_where(outside, Fault.DATE_RANGE)


def compile_cast(a: Px, old: t.DataType, new: t.DataType) -> tuple[Px, Px] | None:
    """None: there is no such cast."""
    if new == t.TIMESTAMP:
        if old == t.STRING:
            found = by_row(parsed, KIND, a.str.strip_chars(" \t\r\n\f\v"))
            return found, fault_where(a.is_not_null() & found.is_null(), Fault.CAST_TIMESTAMP)
        if old == t.DATE:
            return a.cast(KIND), None
        if old in t.INTEGRALS:
            return _moment(a.cast(pl.Int128) * SECOND)
        if old in (t.DOUBLE, t.FLOAT):
            return _from_double(a.cast(pl.Float64))
        return None
    micros = a.cast(pl.Int64)
    if new == t.STRING:
        return by_row(written, pl.String, a), None
    if new == t.DATE:
        return a.dt.date(), None
    if new in (t.DOUBLE, t.FLOAT):
        return (micros / float(SECOND)).cast(dtype(new)), None
    if isinstance(new, t.IntegralType):
        seconds = micros // SECOND
        outside = (seconds < new.smallest) | (seconds > new.largest)
        return seconds.cast(dtype(new), strict=False), fault_where(outside, Fault.CAST_OVERFLOW)
    return None


def _from_double(a: Px) -> tuple[Px, Px]:
    finite = a.is_finite()
    scaled = pl.when(finite & (a.abs() < 1e15)).then(a * 1e6)
    whole = scaled.cast(pl.Int64, strict=False)
    found, fault = _moment(whole)
    no_number = fault_where(a.is_not_null() & ~finite, Fault.CAST_TIMESTAMP)
    too_far = fault_where(finite & (a.abs() >= 1e15), Fault.DATE_RANGE)
    return found, pl.coalesce(no_number, too_far, fault)


# ---- parts


def _part(name: str, apply: Callable[[Px], Px]) -> None:
    @function(name, [MOMENT], t.INT)
    def kernel(a: Px) -> Px:
        return apply(a).cast(pl.Int32)


_part("hour", lambda a: a.dt.hour())
_part("minute", lambda a: a.dt.minute())
_part("second", lambda a: a.dt.second())
_UNITS = {"seconds": SECOND, "millis": 1000, "micros": 1}


def _unit(name: str, unit: int) -> None:
    @function(f"unix_{name}", [MOMENT], t.LONG)
    def since(a: Px) -> Px:
        return a.cast(pl.Int64) // unit

    @function(f"timestamp_{name}", [LONG], t.TIMESTAMP, fails=True)
    def made(a: Px) -> tuple[Px, Px]:
        return _moment(a.cast(pl.Int128) * unit)


for _name, _size in _UNITS.items():
    _unit(_name, _size)


@function("unix_date", [DATE], t.INT)
def unix_date(a: Px) -> Px:
    return a.cast(pl.Int32)


@function("date_from_unix_date", [INT], t.DATE, fails=True)
def date_from_unix_date(a: Px) -> tuple[Px, Px]:
    outside = (a < LOW // DAY) | (a > HIGH // DAY)
    return pl.when(~outside).then(a).cast(pl.Date), fault_where(outside, Fault.DATE_RANGE)


_NAMES = {"dayname": "%a", "monthname": "%b"}


def _named(name: str, how: str) -> None:
    @function(name, [DATE], t.STRING)
    def kernel(a: Px) -> Px:
        return a.dt.to_string(how)


for _name, _how in _NAMES.items():
    _named(_name, _how)


# ---- as formats say


@function("date_format", [MOMENT, STR_CONST], t.STRING)
def date_format(a: Px, pattern: str) -> Px:
    return by_row(Pattern(pattern).written, pl.String, a)


def _read(a: Px, pattern: str) -> tuple[Px, Px]:
    found = by_row(Pattern(pattern).parsed, KIND, a)
    return found, fault_where(a.is_not_null() & found.is_null(), Fault.PARSE_TIMESTAMP)


@function("to_timestamp", [STR, STR_CONST], t.TIMESTAMP, fails=True)
def to_timestamp(a: Px, pattern: str) -> tuple[Px, Px]:
    return _read(a, pattern)


@function("to_date", [STR, STR_CONST], t.DATE, fails=True)
def to_date(a: Px, pattern: str) -> tuple[Px, Px]:
    found, fault = _read(a, pattern)
    return found.dt.date(), fault


@function("to_unix", [STR, STR_CONST], t.LONG, fails=True)
def to_unix(a: Px, pattern: str) -> tuple[Px, Px]:
    found, fault = _read(a, pattern)
    return found.cast(pl.Int64) // SECOND, fault


@function("from_unixtime", [LONG, STR_CONST], t.STRING, fails=True)
def from_unixtime(a: Px, pattern: str) -> tuple[Px, Px]:
    found, fault = _moment(a.cast(pl.Int128) * SECOND)
    return by_row(Pattern(pattern).written, pl.String, found), fault


_TRUNCATED = {
    "year": "1y", "yyyy": "1y", "yy": "1y", "quarter": "1q", "month": "1mo", "mon": "1mo",
    "mm": "1mo", "week": "1w",
}  # fmt: skip
_FINER = {
    "day": "1d", "dd": "1d", "hour": "1h", "minute": "1m", "second": "1s", "millisecond": "1ms",
    "microsecond": "1us",
}  # fmt: skip


@function("date_trunc", [STR_CONST, MOMENT], t.TIMESTAMP)
def date_trunc(unit: str, a: Px) -> Px:
    every = {**_TRUNCATED, **_FINER}.get(unit.lower())
    return pl.lit(None, KIND) if every is None else a.dt.truncate(every)


@function("trunc", [DATE, STR_CONST], t.DATE)
def trunc(a: Px, unit: str) -> Px:
    every = _TRUNCATED.get(unit.lower())
    return pl.lit(None, pl.Date) if every is None else a.dt.truncate(every)


@function("months_between", [MOMENT, MOMENT, DBL], t.DOUBLE)
def months_between(end: Px, start: Px, digits: Px) -> Px:
    return by_row(_months, pl.Float64, end, start, digits)


def _months(end: datetime.datetime, start: datetime.datetime, digits: float) -> float:
    months = (end.year - start.year) * 12 + end.month - start.month
    if end.day == start.day or (_is_last(end) and _is_last(start)):
        return float(months)
    seconds = [m.hour * 3600 + m.minute * 60 + m.second for m in (end, start)]
    apart = (end.day - start.day) * 86400 + seconds[0] - seconds[1]
    found = months + apart / (31 * 86400.0)
    return math.floor(found * 10**digits + 0.5) / 10**digits if digits >= 0 else found


def _is_last(moment: datetime.datetime) -> bool:
    return (moment + datetime.timedelta(days=1)).day == 1 if moment.date() < _LAST.date() else True
