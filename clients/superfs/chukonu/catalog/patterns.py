"""Patterns of dates and times, as Java's DateTimeFormatter reads and writes them, in part:
years, months, days, times, fractions, AM and PM, offsets, names in English, and text between.
What is not here is refused by its letter.
"""

from __future__ import annotations

import calendar
import datetime
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from superfs.chukonu.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|[^A-Za-z']", re.DOTALL)
_MONTHS, _DAYS = list(calendar.month_name), list(calendar.day_name)
_NUMBERS = {"M": "month", "d": "day", "H": "hour", "h": "half", "m": "minute", "s": "second"}
_LONGEST = {"y": 6, "M": 2, "d": 2, "H": 2, "h": 2, "m": 2, "s": 2, "D": 3, "S": 9}


class _Part(NamedTuple):
    letter: str
    """Nothing: text as it is."""
    times: int
    text: str


def _parts(pattern: str) -> Iterator[_Part]:
    place = 0
    for match in _TOKEN.finditer(pattern):
        if match.start() != place:
            raise UnsupportedError(f"format {pattern!r}")
        place = match.end()
        if match[2] is None:
            quoted = match[1]
            text = match[0] if quoted is None else quoted.replace("''", "'") or "'"
            if text in "[]{}#":
                raise UnsupportedError(f"{text} in the format {pattern!r}")
            yield _Part("", 0, text)
        else:
            yield _Part(match[2], len(match[0]), match[0])
    if place != len(pattern):
        raise UnsupportedError(f"format {pattern!r}")


@lru_cache(256)
class Pattern:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._parts = list(_parts(pattern))
        for part in self._parts:
            self._check(part)
        self._regex: re.Pattern[str] | None = None

    def _check(self, part: _Part) -> None:
        most = {"y": 6, "M": 4, "d": 2, "H": 2, "h": 2, "m": 2, "s": 2, "S": 9, "a": 1, "E": 4}
        most |= {"D": 3, "X": 3, "x": 3}
        known = part.letter in most and part.times <= most[part.letter]
        if (part.letter and not known) or part == _Part("D", 2, "DD"):
            raise UnsupportedError(f"{part.text} in the format {self._pattern!r}")

    # ---- writing

    def written(self, moment: datetime.datetime) -> str:
        return "".join(self._one(part, moment) for part in self._parts)

    def _one(self, part: _Part, moment: datetime.datetime) -> str:
        letter, count, text = part
        match letter:
            case "":
                return text
            case "y":
                year = f"{moment.year:0{count}}"
                return year[-2:].zfill(2) if count == 2 else year
            case "M" if count > 2:
                name = _MONTHS[moment.month]
                return name if count == 4 else name[:3]
            case "E":
                name = _DAYS[moment.weekday()]
                return name if count == 4 else name[:3]
            case "a":
                return "AM" if moment.hour < 12 else "PM"
            case "S":
                return f"{moment.microsecond:06}000"[:count]
            case "D":
                return f"{moment.timetuple().tm_yday:0{count}}"
            case "h":
                return f"{(moment.hour - 1) % 12 + 1:0{count}}"
            case "X":
                return "Z"
            case "x":
                return ("+00", "+0000", "+00:00")[count - 1]
        return f"{getattr(moment, _NUMBERS[letter]):0{count}}"

    # ---- reading

    def parsed(self, text: str) -> datetime.datetime | None:
        """None where it is not written like that, or there is no such moment."""
        if self._regex is None:
            self._regex = re.compile("".join(self._regexes()))
        match = self._regex.fullmatch(text)
        if match is None:
            return None
        try:
            return _moment({k: v for k, v in match.groupdict().items() if v is not None})
        except (ValueError, OverflowError):
            return None

    def _regexes(self) -> Iterator[str]:
        seen: set[str] = set()
        for place, (letter, count, text) in enumerate(self._parts):
            if not letter:
                yield re.escape(text)
                continue
            if letter in seen or letter in "ED":
                raise UnsupportedError(f"reading by the format {self._pattern!r}")
            seen.add(letter)
            after = self._parts[place + 1 : place + 2]
            yield f"(?P<{letter}{count}>{self._digits(letter, count, after)})"

    def _digits(self, letter: str, count: int, after: list[_Part]) -> str:
        if letter == "M" and count > 2:
            names = _MONTHS[1:] if count == 4 else [name[:3] for name in _MONTHS[1:]]
            return "|".join(names)
        if letter == "a":
            return "[aA][mM]|[pP][mM]"
        if letter == "X":
            return "Z|[+-][0-9]{2}" + ("(?:[0-9]{2})?" if count == 1 else "")
        if letter == "x":
            return "[+-][0-9]{2}"
        if letter == "S" or count > 1:
            return f"[0-9]{{{count}}}"
        if after and after[0].letter:
            raise UnsupportedError(f"reading by the format {self._pattern!r}")
        return f"[0-9]{{1,{_LONGEST[letter]}}}"


def _moment(found: dict[str, str]) -> datetime.datetime:
    year, month, day, hour, micro, half, late = 1970, 1, 1, 0, 0, None, False
    minute = second = 0
    for name, text in found.items():
        match name[0]:
            case "y":
                year = int(text) + (2000 if name == "y2" else 0)
            case "M":
                month = _month(text)
            case "d":
                day = int(text)
            case "H":
                hour = int(text)
            case "h":
                half = int(text)
            case "m":
                minute = int(text)
            case "s":
                second = int(text)
            case "S":
                micro = int(text[:6].ljust(6, "0"))
            case "a":
                late = text.lower() == "pm"
            case _:
                raise UnsupportedError("reading of offsets by a format")
    if half is not None:
        if not 1 <= half <= 12:
            raise ValueError(half)
        hour = half % 12 + (12 if late else 0)
    return datetime.datetime(year, month, day, hour, minute, second, micro)


def _month(text: str) -> int:
    if text.isdigit():
        return int(text)
    return next(i for i, name in enumerate(_MONTHS) if i and name.startswith(text))
