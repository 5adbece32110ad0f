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
    t.TIMESTAMP: pl.Datetime("us"),
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
    t.TIMESTAMP: pa.timestamp("us", "UTC"),
    t.BYTE: pa.int8(),
    t.SHORT: pa.int16(),
    t.INT: pa.int32(),
    t.LONG: pa.int64(),
    t.FLOAT: pa.float32(),
    t.DOUBLE: pa.float64(),
}


def dtype(kind: t.DataType) -> Any:  # noqa: ANN401
    if isinstance(kind, t.DecimalType):
        return pl.Decimal(kind.precision, kind.scale)
    if isinstance(kind, t.MapType):
        return pl.List(dtype(kind.entry))
    if isinstance(kind, t.ArrayType):
        return pl.List(dtype(kind.elementType))
    if isinstance(kind, t.StructType):
        return pl.Struct([pl.Field(f.name, dtype(f.dataType)) for f in kind])
    return _POLARS[kind]


def has_map(kind: t.DataType) -> bool:
    if isinstance(kind, t.ArrayType):
        return has_map(kind.elementType)
    if isinstance(kind, t.StructType):
        return any(has_map(f.dataType) for f in kind)
    return isinstance(kind, t.MapType)


def plain_arrow_type(kind: t.DataType) -> Any:  # noqa: ANN401
    """With lists of entries in place of maps, as frames have them."""
    if isinstance(kind, t.MapType):
        return pa.large_list(plain_arrow_type(kind.entry))
    if isinstance(kind, t.ArrayType):
        return pa.large_list(plain_arrow_type(kind.elementType))
    if isinstance(kind, t.StructType):
        return pa.struct([pa.field(f.name, plain_arrow_type(f.dataType)) for f in kind])
    return arrow_type(kind)


def with_maps(array: Any, kind: t.DataType) -> Any:  # noqa: ANN401
    """An Arrow array of `plain_arrow_type` as one of `arrow_type`."""
    if not has_map(kind):
        return array.cast(arrow_type(kind))
    missing = array.is_null()
    if isinstance(kind, t.StructType):
        parts = [with_maps(array.field(i), f.dataType) for i, f in enumerate(kind)]
        fields = [pa.field(f.name, arrow_type(f.dataType)) for f in kind]
        return pa.StructArray.from_arrays(parts, fields=fields, mask=missing)
    if isinstance(kind, t.MapType):
        entries, offsets = array.values, array.offsets.cast(pa.int32())
        keys = with_maps(entries.field(0), kind.keyType)
        items = with_maps(entries.field(1), kind.valueType)
        return pa.MapArray.from_arrays(offsets, keys, items, arrow_type(kind), mask=missing)
    assert isinstance(kind, t.ArrayType)
    inner = with_maps(array.values, kind.elementType)
    return pa.LargeListArray.from_arrays(array.offsets, inner, mask=missing)


def arrow_type(kind: t.DataType) -> Any:  # noqa: ANN401
    if isinstance(kind, t.DecimalType):
        return pa.decimal128(kind.precision, kind.scale)
    if isinstance(kind, t.MapType):
        return pa.map_(arrow_type(kind.keyType), arrow_type(kind.valueType))
    if isinstance(kind, t.ArrayType):
        return pa.large_list(arrow_type(kind.elementType))
    if isinstance(kind, t.StructType):
        return pa.struct([pa.field(f.name, arrow_type(f.dataType)) for f in kind])
    return _ARROW[kind]


def small_arrow_type(kind: t.DataType) -> Any:  # noqa: ANN401
    """With Arrow's small strings and lists, which is what Spark and its users know."""
    return small(arrow_type(kind))


def small(kind: Any) -> Any:  # noqa: ANN401
    if pa.types.is_large_list(kind):
        return pa.list_(pa.field("element", small(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, small(f.type)) for f in kind])
    if pa.types.is_map(kind):
        return pa.map_(small(kind.key_type), small(kind.item_type))
    if pa.types.is_large_binary(kind):
        return pa.binary()
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", "UTC")
    return pa.string() if pa.types.is_large_string(kind) else kind


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
    if kinds.is_timestamp(found) and found.tz is not None and found.unit != "ns":
        return t.TIMESTAMP
    if kinds.is_map(found):
        return t.MapType(
            type_of_arrow(found.key_type, where), type_of_arrow(found.item_type, where)
        )
    if kinds.is_decimal(found) and found.precision <= t.DIGITS_MAX and found.scale >= 0:
        return t.DecimalType(found.precision, found.scale)
    if kinds.is_dictionary(found):
        return type_of_arrow(found.value_type, where)
    for kind, arrow in _ARROW.items():
        if found.equals(arrow):
            return kind
    raise UnsupportedError(f"{where}: Arrow type {found}")
