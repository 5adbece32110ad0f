"""One JSON line at a time, strictly: what a bad line is. The fast path (jsonlines.py) may be used
only where it gives the same.

A line is bad when a strict RFC 8259 parser rejects it, when it is not one object, when a value
does not fit its column, when a string cannot be written as UTF-8 (a lone surrogate), or when it is
nested deeper than `DEPTH_MAX`. Keys are case-sensitive; of equal keys the last counts.
"""

from __future__ import annotations

import datetime
import json
import re
from typing import Any, NoReturn

from superfs.chukonu import types as t
from superfs.chukonu.catalog.moments import parsed
from superfs.chukonu.errors import UnsupportedError

DEPTH_MAX = 500
_FLOATS = {"NaN": "nan", "Infinity": "inf", "+Infinity": "inf", "-Infinity": "-inf"}
_FLOATS |= {"INF": "inf", "+INF": "inf", "-INF": "-inf"}
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DIGITS_MAX = 4000


class BadLine(Exception):
    """The reason, in words."""


class _Misfit(Exception):
    pass


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _integer(text: str) -> int | float:
    return int(text) if len(text) < _DIGITS_MAX else float(text)


_decoder = json.JSONDecoder(parse_constant=_refuse, parse_int=_integer)
_decode, _raw_decode = _decoder.decode, _decoder.raw_decode
_BLANKS, _COLON = re.compile(r"[ \t\r\n]*"), re.compile(r"[ \t\r\n]*:[ \t\r\n]*")
_COMMA = re.compile(r"[ \t\r\n]*,?[ \t\r\n]*")


def parse_strictly(line: bytes) -> Any:  # noqa: ANN401
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise BadLine(f"not UTF-8: {error.reason} at byte {error.start}") from None
    if line.count(b"{") + line.count(b"[") > DEPTH_MAX and _depth(line) > DEPTH_MAX:
        raise BadLine(f"nested deeper than {DEPTH_MAX}")
    try:
        value = _decode(text.strip(" \t\n\r"))
    except ValueError as error:
        raise BadLine(f"not JSON: {error}") from None
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise BadLine("a lone surrogate") from None
    return value


def _depth(line: bytes) -> int:
    depth = deepest = 0
    for part in re.sub(rb'"(?:[^"\\]|\\.)*"', b"", line):
        if part in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        elif part in b"}]":
            depth -= 1
    return deepest


def row_of(line: bytes, schema: t.StructType) -> tuple[list[Any], str]:
    """The values of the columns, and why the line is bad, or nothing. Of a line that is JSON, what
    fits is kept."""
    try:
        value = parse_strictly(line)
    except BadLine as error:
        return [None] * len(schema), str(error)
    if not isinstance(value, dict):
        return [None] * len(schema), "not an object"
    found: list[Any] = []
    why = ""
    for field in schema:
        one = value.get(field.name)
        if field.dataType == t.STRING and one is not None and not isinstance(one, str):
            found.append(_raw_members(line.decode())[field.name])  # as it was written
            continue
        try:
            found.append(None if one is None else _fitted(one, field.dataType))
        except _Misfit as misfit:
            found.append(None)
            why = why or f"column {field.name}: {misfit} is not {field.dataType.simpleString()}"
    return found, why


def _fitted(value: Any, kind: t.DataType) -> Any:  # noqa: ANN401
    if value is None:
        return None
    if kind == t.STRING and isinstance(value, str):
        return value
    if isinstance(kind, t.IntegralType):
        if type(value) is int and kind.smallest <= value <= kind.largest:
            return value
    elif kind in (t.DOUBLE, t.FLOAT):
        if type(value) in (int, float):
            return _as_float(value)
        if isinstance(value, str) and value in _FLOATS:
            return float(_FLOATS[value])
    elif kind == t.BOOLEAN:
        if isinstance(value, bool):
            return value
    elif kind == t.TIMESTAMP:
        return _moment(value)
    elif isinstance(kind, t.MapType):
        if isinstance(value, dict):
            pairs = value.items()
            return [{"key": k, "value": _fitted(v, kind.valueType)} for k, v in pairs]
    elif kind == t.DATE:
        if isinstance(value, str) and _DATE.fullmatch(value):
            try:
                return datetime.date.fromisoformat(value)
            except ValueError:
                pass
    elif isinstance(kind, t.ArrayType):
        if isinstance(value, list):
            return [_fitted(v, kind.elementType) for v in value]
    elif isinstance(kind, t.StructType) and isinstance(value, dict):
        return {f.name: _fitted(value.get(f.name), f.dataType) for f in kind}
    text = json.dumps(value)
    raise _Misfit(text if len(text) <= 40 else text[:37] + "...")


def _moment(value: Any) -> datetime.datetime:  # noqa: ANN401
    """A string as a cast takes it, or seconds since 1970."""
    found = parsed(value.strip()) if isinstance(value, str) else None
    if type(value) is int and abs(value) < 1 << 40:
        try:
            found = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=value)
        except OverflowError:
            found = None
    if found is None:
        raise _Misfit(json.dumps(value)[:40])
    return found


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _raw_members(text: str) -> dict[str, str]:
    """The values of an object as they were written, by key; of equal keys the last. The text is
    known to be one JSON object."""
    found: dict[str, str] = {}
    place = _BLANKS.match(text, text.index("{") + 1).end()  # type: ignore[union-attr]
    while text[place] != "}":
        key, place = _raw_decode(text, place)
        place = _COLON.match(text, place).end()  # type: ignore[union-attr]
        _, end = _raw_decode(text, place)
        found[key] = text[place:end]
        place = _COMMA.match(text, end).end()  # type: ignore[union-attr]
    return found


def inferred(value: Any) -> t.DataType:  # noqa: ANN401
    """The type of one value; a number beyond bigint is a double (Spark would say decimal)."""
    match value:
        case None:
            return t.NULL
        case bool():
            return t.BOOLEAN
        case int():
            return t.LONG if t.LONG.smallest <= value <= t.LONG.largest else t.DOUBLE
        case float():
            return t.DOUBLE
        case str():
            return t.STRING
        case list():
            kind: t.DataType = t.NULL
            for one in value:
                kind = merged(kind, inferred(one))
            return t.ArrayType(kind)
    return t.StructType([t.StructField(k, inferred(v)) for k, v in sorted(value.items())])


def merged(one: t.DataType, other: t.DataType) -> t.DataType:
    if one == other or other == t.NULL:
        return one
    if one == t.NULL:
        return other
    if {one, other} <= {t.LONG, t.DOUBLE}:
        return t.DOUBLE
    if isinstance(one, t.ArrayType) and isinstance(other, t.ArrayType):
        return t.ArrayType(merged(one.elementType, other.elementType))
    if isinstance(one, t.StructType) and isinstance(other, t.StructType):
        kinds = {f.name: f.dataType for f in one}
        for f in other:
            kinds[f.name] = merged(kinds.get(f.name, t.NULL), f.dataType)
        return t.StructType([t.StructField(n, k) for n, k in sorted(kinds.items())])
    return t.STRING


def settled(kind: t.DataType) -> t.DataType | None:
    """Columns of which only nulls were seen are strings; objects without keys are no columns."""
    if kind == t.NULL:
        return t.STRING
    if isinstance(kind, t.ArrayType):
        inner = settled(kind.elementType)
        return None if inner is None else t.ArrayType(inner)
    if isinstance(kind, t.StructType):
        found = [(f.name, settled(f.dataType)) for f in kind]
        fields = [t.StructField(n, k) for n, k in found if k is not None]
        return t.StructType(fields) if fields else None
    return kind


def refuse_types(kind: t.DataType) -> None:
    """Those that JSON lines are not read as."""
    if isinstance(kind, t.StructType):
        for field in kind:
            refuse_types(field.dataType)
    elif isinstance(kind, t.ArrayType):
        refuse_types(kind.elementType)
    elif isinstance(kind, t.MapType):
        if kind.keyType != t.STRING:
            raise UnsupportedError(f"read.json of {kind.simpleString()}")
        refuse_types(kind.valueType)
    elif isinstance(kind, t.DecimalType):
        raise UnsupportedError("read.json of decimal", "read it as string and cast it")
