"""Rows as CSV, as Spark writes them: what needs quotes gets them, null is nothing, an empty string
is `""`, blanks around values go, timestamps are in UTC to the millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from superfs.chukonu import types as t
from superfs.chukonu.catalog.casts import java_double
from superfs.chukonu.catalog.patterns import Pattern
from superfs.chukonu.errors import AnalysisException, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from superfs.chukonu.expressions import Ref

MOMENT = "yyyy-MM-dd'T'HH:mm:ss.SSS" + "X" * 3
_TRUE = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Style:
    sep: str = ","
    quote: str = '"'
    escape: str = "\\"
    header: bool = False
    null: str = ""
    empty: str = '""'
    quote_all: bool = False
    escape_quotes: bool = True
    date: str = "yyyy-MM-dd"
    moment: str = MOMENT
    leading: bool = True
    trailing: bool = True


_NAMES = {
    "sep": "sep", "delimiter": "sep", "quote": "quote", "escape": "escape", "header": "header",
    "nullvalue": "null", "emptyvalue": "empty", "quoteall": "quote_all", "dateformat": "date",
    "escapequotes": "escape_quotes", "timestampformat": "moment",
    "ignoreleadingwhitespace": "leading", "ignoretrailingwhitespace": "trailing",
}  # fmt: skip


def style_of(options: Mapping[str, Any]) -> Style:
    given: dict[str, Any] = {}
    for key, value in options.items():
        name = _NAMES[key]
        flag = isinstance(getattr(Style(), name), bool)
        if flag and str(value).lower() not in _TRUE:
            raise AnalysisException("INVALID_BOOLEAN", f"{key}: {value!r}")
        given[name] = _TRUE[str(value).lower()] if flag else str(value)
    style = Style(**given)
    for name in ("sep", "quote", "escape"):
        if len(getattr(style, name)) != 1:
            raise UnsupportedError(f"{name} {getattr(style, name)!r}", "one character")
    return style


def check(output: Sequence[Ref]) -> None:
    for ref in output:
        if ref.dtype not in t.ATOMS or ref.dtype in (t.NULL, t.BINARY, t.FLOAT):
            raise UnsupportedError(f"write.csv of {ref.dtype.simpleString()} ({ref.name})")


class Lines:
    """An encoder (formats.py)."""

    def __init__(self, output: Sequence[Ref], style: Style) -> None:
        self._style = style
        self._keys = [ref.key for ref in output]
        self._names = [ref.name for ref in output]
        self._texts = [_text_of(ref.dtype, style) for ref in output]
        self._header = style.header

    def add(self, frame: Any) -> bytes:  # noqa: ANN401
        lines = []
        if self._header and frame.height:
            lines.append(self._line([self._quoted(name) for name in self._names]))
            self._header = False
        for row in frame.select(self._keys).iter_rows():
            pairs = zip(self._texts, row, strict=True)
            lines.append(self._line([self._value(make, value) for make, value in pairs]))
        return "".join(lines).encode()

    def finish(self) -> bytes:
        return b""

    def _line(self, values: list[str]) -> str:
        return self._style.sep.join(values) + "\n"

    def _value(self, make: Callable[[Any], str], value: Any) -> str:  # noqa: ANN401
        if value is None:
            return self._framed(self._style.null) if self._style.quote_all else self._style.null
        return self._quoted(make(value))

    def _quoted(self, text: str) -> str:
        style = self._style
        if style.leading:
            text = text.lstrip(" \t\n\r")
        if style.trailing:
            text = text.rstrip(" \t\n\r")
        if not text:
            bare = style.empty == style.quote * 2 or not style.quote_all
            return style.empty if bare else self._framed(style.empty)
        has_quote = style.quote in text
        needs = style.quote_all or style.sep in text or "\n" in text or "\r" in text
        if not needs and not (has_quote and style.escape_quotes):
            return text
        return self._framed(text)

    def _framed(self, text: str) -> str:
        quote, escape = self._style.quote, self._style.escape
        if quote != escape:
            text = text.replace(escape, escape + escape)
        return quote + text.replace(quote, escape + quote) + quote


def _text_of(kind: t.DataType, style: Style) -> Callable[[Any], str]:
    if kind == t.DOUBLE:
        return java_double
    if kind == t.BOOLEAN:
        return lambda value: "true" if value else "false"
    if kind == t.TIMESTAMP:
        return Pattern(style.moment).written
    if kind == t.DATE:
        import datetime

        midnight = datetime.time()
        pattern = Pattern(style.date)
        return lambda value: pattern.written(datetime.datetime.combine(value, midnight))
    if isinstance(kind, t.DecimalType):
        return lambda value: f"{value:f}"
    return str
