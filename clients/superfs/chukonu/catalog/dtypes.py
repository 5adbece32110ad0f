"""What a type is in Polars and in Arrow."""

from __future__ import annotations

from typing import Any

from superfs.chukonu import types as t
from superfs.chukonu.errors import UnsupportedError
from superfs.chukonu.native import pa, pl

_POLARS: dict[t.DataType, Any] = {
    t.NULL: pl.Null,
    t.BOOLEAN: pl.Boolean,
    t.STRING: pl.String,
    t.BINARY: pl.Binary,
    t.DATE: pl.Date,
    t.BYTE: pl.Int8,
    t.SHORT: pl.Int16,
    t.INT: pl.Int32,
    t.LONG: pl.Int64,
    t.FLOAT: pl.Float32,
    t.DOUBLE: pl.Float64,
}
_ARROW: dict[t.DataType, Any] = {
    t.NULL: pa.null(),
    t.BOOLEAN: pa.bool_(),
    t.STRING: pa.large_string(),
    t.BINARY: pa.large_binary(),
    t.DATE: pa.date32(),
    t.BYTE: pa.int8(),
    t.SHORT: pa.int16(),
    t.INT: pa.int32(),
    t.LONG: pa.int64(),
    t.FLOAT: pa.float32(),
    t.DOUBLE: pa.float64(),
}


def dtype(kind: t.DataType) -> Any:  # noqa: ANN401
    if isinstance(kind, t.ArrayType):
        return pl.List(dtype(kind.elementType))
    if isinstance(kind, t.StructType):
        return pl.Struct([pl.Field(f.name, dtype(f.dataType)) for f in kind])
    return _POLARS[kind]


def arrow_type(kind: t.DataType) -> Any:  # noqa: ANN401
    if isinstance(kind, t.ArrayType):
        return pa.large_list(arrow_type(kind.elementType))
    if isinstance(kind, t.StructType):
        return pa.struct([pa.field(f.name, arrow_type(f.dataType)) for f in kind])
    return _ARROW[kind]


def type_of_arrow(found: Any, where: str = "") -> t.DataType:  # noqa: ANN401
    """UnsupportedError for what has no counterpart here."""
    kinds = pa.types
    if kinds.is_large_string(found) or kinds.is_string(found) or kinds.is_string_view(found):
        return t.STRING
    if kinds.is_large_binary(found) or kinds.is_binary(found) or kinds.is_binary_view(found):
        return t.BINARY
    if kinds.is_list(found) or kinds.is_large_list(found):
        return t.ArrayType(type_of_arrow(found.value_type, where))
    if kinds.is_struct(found):
        fields = [found.field(i) for i in range(found.num_fields)]
        return t.StructType([t.StructField(f.name, type_of_arrow(f.type, where)) for f in fields])
    if kinds.is_dictionary(found):
        return type_of_arrow(found.value_type, where)
    for kind, arrow in _ARROW.items():
        if found.equals(arrow):
            return kind
    raise UnsupportedError(f"{where}: Arrow type {found}")
