"""How a CSV file is written: its separator, quotes, nulls, and the lines and values of it.

A value in quotes may have separators in it and, escaped, quotes. Strict: a quote in a quoted value
that is not escaped, or one that is never closed, makes a line bad (Spark guesses).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from superfs.chukonu.errors import AnalysisException, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COLUMNS_MAX = 20_480
Values = list[str | None]


@dataclass(frozen=True, slots=True)
class Dialect:
    sep: str = ","
    quote: str = '"'
    escape: str = "\\"
    header: bool = False
    infer_schema: bool = False
    multi_line: bool = False
    null_value: str = ""
    nan_value: str = "NaN"
    positive_inf: str = "Inf"
    negative_inf: str = "-Inf"
    date_format: str = ""
    timestamp_format: str = ""
    leading: bool = False
    """White space before values is not part of them."""
    trailing: bool = False

    def __post_init__(self) -> None:
        for name, least in (("sep", 1), ("quote", 0), ("escape", 1)):
            text = getattr(self, name)
            if not least <= len(text) <= 1 or text in ("\n", "\r"):
                raise UnsupportedError(f"{name} {text!r}", "one character")
        if self.sep in (self.quote, self.escape):
            raise AnalysisException("CHUKONU_CSV", "sep is the quote or the escape, too")


NAMES = {
    "sep": "sep", "delimiter": "sep", "quote": "quote", "escape": "escape", "header": "header",
    "inferschema": "infer_schema", "multiline": "multi_line", "nullvalue": "null_value",
    "nanvalue": "nan_value", "positiveinf": "positive_inf", "negativeinf": "negative_inf",
    "dateformat": "date_format", "timestampformat": "timestamp_format",
    "ignoreleadingwhitespace": "leading", "ignoretrailingwhitespace": "trailing",
}  # fmt: skip
_TRUE = {"true": True, "false": False}


def dialect_of(options: Mapping[str, Any]) -> Dialect:
    """Of the options that are a dialect's; their names in lower case."""
    kinds = {f.name: f.type for f in fields(Dialect)}
    given: dict[str, Any] = {}
    for key, value in options.items():
        name = NAMES.get(key)
        if name is None:
            continue
        if kinds[name] == "bool":
            flag = _TRUE.get(str(value).lower())
            if flag is None:
                raise AnalysisException("INVALID_BOOLEAN", f"{key}: {value!r}")
            given[name] = flag
        else:
            given[name] = str(value)
    return Dialect(**given)


class BadQuotes(Exception):
    pass


@lru_cache(64)
def _value(dialect: Dialect) -> re.Pattern[str]:
    """One value with what ends it: in quotes, or plain."""
    sep, quote, escape = map(re.escape, (dialect.sep, dialect.quote, dialect.escape))
    blank = r"[ \t]*" if dialect.leading else ""
    after = r"[ \t]*" if dialect.trailing else ""
    if dialect.quote == dialect.escape:
        inside = f"[^{quote}]|{quote}{quote}"
    else:
        inside = f"[^{quote}{escape}]|{escape}(?s:.)"
    quoted = f"{blank}{quote}(?P<quoted>(?:{inside})*){quote}{after}"
    # Plain ones do not begin with a quote; one further on is a character like others.
    plain = f"{blank}(?P<plain>(?!{quote})[^{sep}]*)"
    return re.compile(f"(?:{quoted}|{plain})(?P<end>{sep}|\\Z)", re.DOTALL)


def _unescaped(text: str, dialect: Dialect) -> str:
    if dialect.escape not in text:
        return text
    escape, quote = re.escape(dialect.escape), re.escape(dialect.quote)
    return re.sub(f"{escape}([{escape}{quote}])", r"\1", text)


def values_of(line: str, dialect: Dialect) -> Values:
    """BadQuotes. An empty value is null, in quotes or not, as Spark has it."""
    found: Values = []
    place = 0
    pattern = _value(dialect)
    if not dialect.quote or dialect.quote not in line:
        parts = line.split(dialect.sep)
        return [_settled(part, dialect) for part in parts]
    while True:
        match = pattern.match(line, place)
        if match is None:
            raise BadQuotes("a quote that is not escaped, or not closed")
        quoted = match["quoted"]
        if quoted is not None:
            text = _unescaped(quoted, dialect)
            found.append(None if text == dialect.null_value else text)
        else:
            found.append(_settled(match["plain"], dialect))
        place = match.end()
        if not match["end"]:
            return found


def _settled(text: str, dialect: Dialect) -> str | None:
    if dialect.leading:
        text = text.lstrip(" \t")
    if dialect.trailing:
        text = text.rstrip(" \t")
    return None if text in ("", dialect.null_value) else text


# ---- records over several lines


def records_of(data: bytes, dialect: Dialect) -> Iterator[tuple[int, bytes]]:
    """(offset, record without its end) of a whole file: line ends in quotes are part of values.
    What ends lines is what ends the first one."""
    first = re.search(rb"\r\n|\n|\r", data)
    end = b"\n" if first is None else first.group()
    quote, escape = dialect.quote.encode(), dialect.escape.encode()
    sep = dialect.sep.encode()
    if not quote or quote not in data:
        place = 0
        for line in data.split(end):
            yield place, line
            place += len(line) + len(end)
        return
    inside = _quoted(quote, escape)
    blank = rb"[ \t]*" if dialect.leading else b""
    value = rb"(?:" + blank + inside + rb"[^" + re.escape(sep + end) + rb"]*|"
    value += rb"[^" + re.escape(sep + end) + rb"]*)"
    record = re.compile(value + rb"(?:" + re.escape(sep) + value + rb")*", re.DOTALL)
    place = 0
    while place < len(data):
        match = record.match(data, place)
        stop = place if match is None else match.end()
        if data[stop : stop + len(end)] != end:  # a quote that is not closed, or one too many
            found = data.find(end, stop)
            stop = len(data) if found < 0 else found
        yield place, data[place:stop].replace(end, b"\n") if end != b"\n" else data[place:stop]
        place = stop + len(end)


def _quoted(quote: bytes, escape: bytes) -> bytes:
    q, x = re.escape(quote), re.escape(escape)
    if quote == escape:
        return q + rb"(?:[^" + q + rb"]|" + q + q + rb")*" + q
    return q + rb"(?:[^" + q + x + rb"]|" + x + rb".)*" + q
