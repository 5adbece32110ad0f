"""Rows in and out: Row, frames from Python values and from Arrow, tables for people."""

from __future__ import annotations

import datetime
import decimal
from typing import TYPE_CHECKING, Any

from superfs.chukonu import types as t
from superfs.chukonu.catalog.dtypes import (
    arrow_type,
    dtype,
    has_map,
    plain_arrow_type,
    with_maps,
)
from superfs.chukonu.catalog.exact import rounded
from superfs.chukonu.errors import AnalysisException, UnsupportedError
from superfs.chukonu.native import pa, pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from superfs.chukonu.expressions import Ref


class Row(tuple[Any, ...]):
    """A tuple whose values have names."""

    __fields__: tuple[str, ...]

    def __new__(cls, *args: Any, **named: Any) -> Row:  # noqa: ANN401
        row = super().__new__(cls, args or tuple(named.values()))
        row.__fields__ = tuple(named)
        return row

    @classmethod
    def of(cls, names: tuple[str, ...], values: Iterable[Any]) -> Row:
        row = super().__new__(cls, values)
        row.__fields__ = names
        return row

    def asDict(self, recursive: bool = False) -> dict[str, Any]:
        values = (v.asDict(True) if recursive and isinstance(v, Row) else v for v in self)
        return dict(zip(self.__fields__, values, strict=True))

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401
        if isinstance(key, str):
            return super().__getitem__(self.__fields__.index(key))
        return super().__getitem__(key)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name.startswith("__") or name not in self.__fields__:
            raise AttributeError(name)
        return super().__getitem__(self.__fields__.index(name))

    def __repr__(self) -> str:
        parts = zip(self.__fields__, self, strict=False)
        return f"Row({', '.join(f'{n}={v!r}' for n, v in parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Row.of, (self.__fields__, tuple(self))


def rows_of(frame: Any, output: Sequence[Ref]) -> Iterator[Row]:  # noqa: ANN401
    names = tuple(ref.name for ref in output)
    nested = [i for i, ref in enumerate(output) if not _same_in_python(ref.dtype)]
    for values in frame.select([ref.key for ref in output]).iter_rows():
        if nested:
            values = list(values)
            for i in nested:
                values[i] = _as_row(values[i], output[i].dtype)
        yield Row.of(names, values)


def _same_in_python(kind: t.DataType) -> bool:
    """Frames give and take the values that programs see."""
    if isinstance(kind, t.ArrayType):
        return _same_in_python(kind.elementType)
    return not isinstance(kind, (t.StructType, t.MapType))


def _as_row(value: Any, kind: t.DataType) -> Any:  # noqa: ANN401
    if value is None:
        return None
    if isinstance(kind, t.ArrayType):
        return [_as_row(v, kind.elementType) for v in value]
    if isinstance(kind, t.MapType):
        pairs = ((entry["key"], entry["value"]) for entry in value)
        return {_as_row(k, kind.keyType): _as_row(v, kind.valueType) for k, v in pairs}
    if isinstance(kind, t.StructType):
        return Row.of(tuple(kind.names), (_as_row(value[f.name], f.dataType) for f in kind))
    return value


def frame_of_rows(rows: Sequence[Sequence[Any]], output: Sequence[Ref]) -> Any:  # noqa: ANN401
    columns: dict[str, Any] = {}
    for place, ref in enumerate(output):
        values = [row[place] for row in rows]
        for value in values:
            verify(value, ref.dtype, ref.name)
        values = [plain(v, ref.dtype) for v in values]
        columns[ref.key] = pl.Series(ref.key, values, dtype=dtype(ref.dtype), strict=True)
    return pl.DataFrame(columns)


def plain(value: Any, kind: t.DataType) -> Any:  # noqa: ANN401
    if value is None:
        return None
    if isinstance(kind, t.ArrayType):
        return [plain(v, kind.elementType) for v in value]
    if isinstance(kind, t.DecimalType):
        return rounded(value, kind)
    if isinstance(kind, t.MapType):
        pairs = ((plain(k, kind.keyType), plain(v, kind.valueType)) for k, v in value.items())
        return [{"key": k, "value": v} for k, v in pairs]
    if kind == t.TIMESTAMP:
        from superfs.chukonu.column import in_utc

        return in_utc(value)
    if isinstance(kind, t.StructType):
        given = value if isinstance(value, dict) else dict(zip(kind.names, value, strict=True))
        return {f.name: plain(given.get(f.name), f.dataType) for f in kind}
    return value


_PYTHON: dict[t.DataType, type] = {
    t.BOOLEAN: bool,
    t.STRING: str,
    t.BINARY: (bytes, bytearray),  # type: ignore[dict-item]
    t.DATE: datetime.date,
    t.TIMESTAMP: datetime.datetime,
    t.FLOAT: float,
    t.DOUBLE: float,
}


def verify(value: Any, kind: t.DataType, name: str) -> None:  # noqa: ANN401
    if value is None:
        return
    if isinstance(kind, t.IntegralType):
        fits = isinstance(value, int) and not isinstance(value, bool)
        fits = fits and kind.smallest <= value <= kind.largest
    elif isinstance(kind, t.ArrayType):
        fits = isinstance(value, (list, tuple))
        for inner in value if fits else ():
            verify(inner, kind.elementType, name)
    elif isinstance(kind, t.DecimalType):
        fits = isinstance(value, decimal.Decimal) and rounded(value, kind) is not None
    elif isinstance(kind, t.MapType):
        fits = isinstance(value, dict) and None not in value
        for key, inner in value.items() if fits else ():
            verify(key, kind.keyType, name)
            verify(inner, kind.valueType, name)
    elif isinstance(kind, t.StructType):
        fits = isinstance(value, (dict, tuple, list))
    else:
        fits = kind in _PYTHON and isinstance(value, _PYTHON[kind])
    if not fits:
        raise AnalysisException(
            "CANNOT_ACCEPT_OBJECT_IN_TYPE", f"column {name}: {value!r} is not {kind.simpleString()}"
        )


def inferred(values: Iterable[Any]) -> t.DataType:
    """Of Python values, as createDataFrame takes them: int is bigint, float double."""
    found: t.DataType = t.NULL
    for value in values:
        kind = _kind(value)
        wide = t.wider(found, kind)
        if wide is None:
            raise AnalysisException(
                "CANNOT_MERGE_TYPE", f"{found.simpleString()} and {kind.simpleString()}"
            )
        found = wide
    return found


def _kind(value: Any) -> t.DataType:  # noqa: ANN401
    if isinstance(value, bool):
        return t.BOOLEAN
    if isinstance(value, int):
        return t.LONG
    if isinstance(value, (list, tuple)) and not isinstance(value, Row):
        return t.ArrayType(inferred(value))
    if isinstance(value, decimal.Decimal):
        return t.DecimalType(t.DIGITS_MAX, 18)
    if isinstance(value, dict):
        return t.MapType(inferred(value), inferred(value.values()))
    if isinstance(value, Row):
        pairs = zip(value.__fields__, value, strict=True)
        return t.StructType([t.StructField(n, _kind(v)) for n, v in pairs])
    from superfs.chukonu.column import type_of_value

    return type_of_value(value)


def arrow_table(frame: Any, output: Sequence[Ref]) -> Any:  # noqa: ANN401
    """Under the columns' names."""
    table = frame.select([ref.key for ref in output]).to_arrow(compat_level=pl.CompatLevel.oldest())
    schema = pa.schema([pa.field(ref.name, arrow_type(ref.dtype)) for ref in output])
    if not any(has_map(ref.dtype) for ref in output):
        return table.rename_columns([ref.name for ref in output]).cast(schema)
    plain_types = pa.schema([pa.field(ref.key, plain_arrow_type(ref.dtype)) for ref in output])
    columns = table.cast(plain_types).combine_chunks().columns
    whole = [c.combine_chunks() if c.num_chunks != 1 else c.chunk(0) for c in columns]
    arrays = [with_maps(c, ref.dtype) for c, ref in zip(whole, output, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def frame_of_arrow(table: Any, output: Sequence[Ref]) -> Any:  # noqa: ANN401
    """A table with columns of these names and types, in any order."""
    if table is None:
        return pl.DataFrame(schema={ref.key: dtype(ref.dtype) for ref in output})
    missing = [ref.name for ref in output if ref.name not in table.column_names]
    if missing:
        raise UnsupportedError(f"a batch without the column {missing[0]}")
    chosen = table.select([ref.name for ref in output])
    schema = pa.schema([pa.field(ref.name, plain_arrow_type(ref.dtype)) for ref in output])
    frame = pl.from_arrow(chosen.cast(schema).rename_columns([ref.key for ref in output]))
    return frame.cast({ref.key: dtype(ref.dtype) for ref in output})


def shown(rows: Sequence[Row], names: Sequence[str], count: int, wide: int) -> str:
    def cell(value: Any) -> str:  # noqa: ANN401
        text = (
            "NULL"
            if value is None
            else str(value).lower()
            if isinstance(value, bool)
            else str(value)
        )
        return text if not wide or len(text) <= wide else text[: wide - 3] + "..."

    table = [list(names), *([cell(v) for v in row] for row in rows[:count])]
    sizes = [max([3, *(len(line[i]) for line in table)]) for i in range(len(names))]
    rule = "+" + "+".join("-" * size for size in sizes) + "+"
    lines = [
        "|" + "|".join(text.rjust(size) for text, size in zip(line, sizes, strict=True)) + "|"
        for line in table
    ]
    more = [f"only showing top {count} rows"] if len(rows) > count else []
    return "\n".join([rule, lines[0], rule, *lines[1:], rule, *more])
