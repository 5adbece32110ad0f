"""Dates, of the years 1 to 9999. Timestamps are not there yet."""

from __future__ import annotations

import calendar
import datetime
from typing import TYPE_CHECKING, Any

from superfs.chukonu import types as t
from superfs.chukonu.catalog.base import DATE, INT, STR_CONST, Param, function
from superfs.chukonu.catalog.faults import Fault, fault_where
from superfs.chukonu.catalog.numbers import by_row
from superfs.chukonu.native import pl

if TYPE_CHECKING:
    from collections.abc import Callable

Px = Any
_FIRST, _LAST = datetime.date(1, 1, 1), datetime.date(9999, 12, 31)
_EPOCH = datetime.date(1970, 1, 1)
_LOW, _HIGH = (_FIRST - _EPOCH).days, (_LAST - _EPOCH).days


def _part(name: str, apply: Callable[[Px], Px]) -> None:
    @function(name, [DATE], t.INT)
    def kernel(a: Px) -> Px:
        return apply(a).cast(pl.Int32)


_part("year", lambda a: a.dt.year())
_part("quarter", lambda a: a.dt.quarter())
_part("month", lambda a: a.dt.month())
_part("dayofmonth", lambda a: a.dt.day())
_part("dayofyear", lambda a: a.dt.ordinal_day())
_part("weekofyear", lambda a: a.dt.week())
_part("dayofweek", lambda a: a.dt.weekday() % 7 + 1)
_part("weekday", lambda a: a.dt.weekday() - 1)


def _moved(a: Px, days: Px) -> tuple[Px, Px]:
    found = a.cast(pl.Int32).cast(pl.Int64) + days.cast(pl.Int64)
    outside = (found < _LOW) | (found > _HIGH)
    inside = pl.when(~outside).then(found).cast(pl.Int32).cast(pl.Date)
    return inside, fault_where(outside, Fault.DATE_RANGE)


SMALL = Param("int, smallint or tinyint", (t.INT, t.SHORT, t.BYTE), t.INT)


@function("date_add", [DATE, SMALL], t.DATE, fails=True)
def date_add(a: Px, days: Px) -> tuple[Px, Px]:
    return _moved(a, days)


@function("date_sub", [DATE, SMALL], t.DATE, fails=True)
def date_sub(a: Px, days: Px) -> tuple[Px, Px]:
    return _moved(a, -days.cast(pl.Int64))


@function("datediff", [DATE, DATE], t.INT)
def datediff(end: Px, start: Px) -> Px:
    return end.cast(pl.Int32) - start.cast(pl.Int32)


@function("last_day", [DATE], t.DATE)
def last_day(a: Px) -> Px:
    return a.dt.month_end()


@function("add_months", [DATE, INT], t.DATE, fails=True)
def add_months(a: Px, months: Px) -> tuple[Px, Px]:
    months = months.cast(pl.Int64) + a.dt.year().cast(pl.Int64) * 12 + a.dt.month() - 1
    outside = (months < 12) | (months > 9999 * 12 + 11)
    inside = by_row(_in_month, pl.Date, pl.when(~outside).then(months), a.dt.day())
    return inside, fault_where(outside, Fault.DATE_RANGE)


def _in_month(months: int, day: int) -> datetime.date:
    year, month = months // 12, months % 12 + 1
    return datetime.date(year, month, min(day, calendar.monthrange(year, month)[1]))


@function("make_date", [INT, INT, INT], t.DATE, fails=True)
def make_date(year: Px, month: Px, day: Px) -> tuple[Px, Px]:
    def run(y: int, m: int, d: int) -> datetime.date | None:
        fits = 1 <= y <= 9999 and 1 <= m <= 12 and 1 <= d <= calendar.monthrange(y, m)[1]
        return datetime.date(y, m, d) if fits else None

    found = by_row(run, pl.Date, year, month, day)
    known = year.is_not_null() & month.is_not_null() & day.is_not_null()
    return found, fault_where(known & found.is_null(), Fault.DATE_RANGE)


@function("next_day", [DATE, STR_CONST], t.DATE, fails=True)
def next_day(a: Px, day: str) -> tuple[Px, Px]:
    names = {d.upper(): i for i, d in enumerate(calendar.day_name)}
    wanted = {n[:k]: i for n, i in names.items() for k in (2, 3, len(n))}.get(day.upper())
    if wanted is None:
        return pl.lit(None, pl.Date), fault_where(a.is_not_null(), Fault.CAST_DATE)
    ahead = (wanted - a.dt.weekday().cast(pl.Int64) + 7) % 7 + 1
    return _moved(a, ahead)
