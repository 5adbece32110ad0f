"""Schema strings: `a INT, b ARRAY<STRING>, s STRUCT<x: DOUBLE>`, and the names of types alone."""

from __future__ import annotations

import re

from superfs.chukonu import types as t
from superfs.chukonu.errors import ParseException, UnsupportedError

_WORDS: dict[str, t.DataType] = {
    "void": t.NULL,
    "boolean": t.BOOLEAN,
    "string": t.STRING,
    "binary": t.BINARY,
    "date": t.DATE,
    "timestamp": t.TIMESTAMP,
    "timestamp_ltz": t.TIMESTAMP,
    "byte": t.BYTE,
    "tinyint": t.BYTE,
    "short": t.SHORT,
    "smallint": t.SHORT,
    "int": t.INT,
    "integer": t.INT,
    "long": t.LONG,
    "bigint": t.LONG,
    "float": t.FLOAT,
    "real": t.FLOAT,
    "double": t.DOUBLE,
}
_REFUSED = {"timestamp_ntz"} | {
    "varchar",
    "char",
    "interval",
    "variant",
    "time",
}
_TOKEN = re.compile(r"\s*(?:(`(?:[^`]|``)+`)|([A-Za-z0-9_]+)|('(?:[^'\\]|\\.)*')|([<>,:()]))")


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = []
        place, text = 0, text.rstrip()
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None:
                raise ParseException("PARSE_SYNTAX_ERROR", f"{text!r} at {place}")
            self.tokens.append(match.group().strip())
            place = match.end()

    def peek(self) -> str:
        return self.tokens[0] if self.tokens else ""

    def take(self, wanted: str | None = None) -> str:
        found = self.peek()
        if not found or (wanted is not None and found.lower() != wanted):
            raise ParseException(
                "PARSE_SYNTAX_ERROR", f"{self.text!r}: {wanted or 'a word'} before {found!r}"
            )
        del self.tokens[0]
        return found

    def type(self) -> t.DataType:
        word = self.take().lower()
        if word == "array":
            self.take("<")
            inner = self.type()
            self.take(">")
            return t.ArrayType(inner)
        if word in ("decimal", "dec", "numeric"):
            return self.decimal()
        if word == "map":
            self.take("<")
            key = self.type()
            self.take(",")
            value = self.type()
            self.take(">")
            return t.MapType(key, value)
        if word == "struct":
            self.take("<")
            fields = [] if self.peek() == ">" else self.fields()
            self.take(">")
            return t.StructType(fields)
        if word in _REFUSED:
            raise UnsupportedError(f"type {word}")
        if word not in _WORDS:
            raise ParseException("UNSUPPORTED_DATATYPE", f"{word!r} in {self.text!r}")
        return _WORDS[word]

    def decimal(self) -> t.DecimalType:
        """`decimal`, `decimal(p)` or `decimal(p, s)`."""
        digits = []
        if self.peek() == "(":
            self.take("(")
            digits.append(self.take())
            if self.peek() == ",":
                self.take(",")
                digits.append(self.take())
            self.take(")")
        if not all(text.isdigit() for text in digits):
            raise ParseException("PARSE_SYNTAX_ERROR", f"decimal({', '.join(digits)})")
        found = t.DecimalType(*map(int, digits))
        if not 1 <= found.precision <= t.DIGITS_MAX or found.scale > found.precision:
            raise ParseException("DECIMAL_PRECISION_EXCEEDS_MAX_PRECISION", found.simpleString())
        return found

    def fields(self) -> list[t.StructField]:
        found = [self.field()]
        while self.peek() == ",":
            self.take(",")
            found.append(self.field())
        return found

    def field(self) -> t.StructField:
        name = self.take()
        if name.startswith("`"):
            name = name[1:-1].replace("``", "`")
        if self.peek() == ":":
            self.take(":")
        kind, nullable = self.type(), True
        if self.peek().lower() == "not":
            self.take("not")
            self.take("null")
            nullable = False
        if self.peek().lower() == "comment":
            self.take("comment")
            self.take()
        return t.StructField(name, kind, nullable)

    def end(self) -> None:
        if self.tokens:
            raise ParseException(
                "PARSE_SYNTAX_ERROR", f"{self.text!r}: {self.peek()!r} is too much"
            )


def parse_type(text: str) -> t.DataType:
    reader = _Reader(text)
    found = reader.type()
    reader.end()
    return found


def parse_schema(text: str | t.StructType) -> t.StructType:
    if isinstance(text, t.StructType):
        return text
    reader = _Reader(text)
    fields = reader.fields()
    reader.end()
    return t.StructType(fields)
