"""Functions of timestamps and dates: `F.to_timestamp("text", "yyyy-MM-dd HH:mm:ss")`. All of them
write and take apart in UTC."""

from __future__ import annotations

from typing import Any

from superfs.chukonu.column import Column, call, column
from superfs.chukonu.errors import UnsupportedError

C = Column | str
__all__ = ["MOMENTS", "date_format", "date_trunc", "from_unixtime", "months_between", "to_date"]
__all__ += ["to_timestamp", "to_unix_timestamp", "trunc", "unix_timestamp"]
MOMENTS = tuple(name for name in __all__ if name.islower())
USUAL = "yyyy-MM-dd HH:mm:ss"


def to_timestamp(col: C, format: str | None = None) -> Column:  # noqa: A002
    """Without a format as a cast: `2024-02-29`, `2024-02-29 23:59:59.123`, `...T23:59Z`."""
    if format is None:
        return Column(column(col)).cast("timestamp")
    return call("to_timestamp", Column(column(col)), format)


def to_date(col: C, format: str | None = None) -> Column:  # noqa: A002
    if format is None:
        return Column(column(col)).cast("date")
    return call("to_date", Column(column(col)), format)


def date_format(date: C, format: str) -> Column:  # noqa: A002
    return call("date_format", Column(column(date)), format)


def unix_timestamp(timestamp: C | None = None, format: str = USUAL) -> Column:  # noqa: A002
    """Seconds since 1970, of a string by the format, of a date or a timestamp."""
    if timestamp is None:
        raise UnsupportedError("unix_timestamp of now")
    return call("unix_timestamp", Column(column(timestamp)), format)


def to_unix_timestamp(timestamp: C, format: Any = None) -> Column:  # noqa: A002, ANN401
    return call("unix_timestamp", Column(column(timestamp)), USUAL if format is None else format)


def from_unixtime(timestamp: C, format: str = USUAL) -> Column:  # noqa: A002
    return call("from_unixtime", Column(column(timestamp)), format)


def date_trunc(format: str, timestamp: C) -> Column:  # noqa: A002
    """To the beginning of a year, quarter, month, week, day, hour, minute or second; null where
    it is none of these."""
    return call("date_trunc", format, Column(column(timestamp)))


def trunc(date: C, format: str) -> Column:  # noqa: A002
    return call("trunc", Column(column(date)), format)


def months_between(date1: C, date2: C, roundOff: bool = True) -> Column:
    digits = 8.0 if roundOff else -1.0
    return call("months_between", Column(column(date1)), Column(column(date2)), digits)
