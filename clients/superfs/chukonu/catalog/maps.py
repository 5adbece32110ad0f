"""Maps: in frames lists of entries, in the order in which they were put in. A key is there once and
never null; NaN is one key, and so is zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from superfs.chukonu import types as t
from superfs.chukonu.catalog.arrays import key_of
from superfs.chukonu.catalog.base import ANY, ARRAY, MAP, Param, function
from superfs.chukonu.catalog.dtypes import dtype
from superfs.chukonu.catalog.faults import Fault
from superfs.chukonu.catalog.numbers import aligned
from superfs.chukonu.errors import AnalysisException, UnsupportedError
from superfs.chukonu.native import pl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Px = Any
Entries = list[dict[str, Any]]


class _Wrong(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


def _map_of(kind: t.DataType) -> t.MapType:
    assert isinstance(kind, t.MapType)
    return kind


def _made(pairs: Iterable[tuple[Any, Any]]) -> Entries:
    seen: dict[Any, None] = {}
    found: Entries = []
    for key, value in pairs:
        if key is None:
            raise _Wrong(Fault.MAP_KEY_NULL)
        mark = key_of(key)
        if mark in seen:
            raise _Wrong(Fault.MAP_KEY_TWICE)
        seen[mark] = None
        found.append({"key": key + 0.0 if isinstance(key, float) else key, "value": value})
    return found


def _rows(
    name: str,
    params: list[Param],
    result: Callable[..., t.DataType],
    run: Callable[..., Any],
    *,
    rest: Param | None = None,
    nulls: bool = False,
) -> None:
    """Row by row. A null argument gives null, unless `nulls`."""

    @function(name, params, result, rest=rest, fails=True, typed=True)
    def kernel(kinds: tuple[t.DataType, ...], *args: Px) -> tuple[Px, Px]:
        whole = pl.Struct({"value": dtype(result(*kinds)), "fault": pl.UInt8})

        def one(row: tuple[Any, ...]) -> dict[str, Any]:
            if not nulls and any(v is None for v in row):
                return {"value": None, "fault": None}
            try:
                return {"value": run(*row), "fault": None}
            except _Wrong as wrong:
                return {"value": None, "fault": int(wrong.fault)}

        def rows(columns: list[Any]) -> Any:  # noqa: ANN401
            lists = aligned(columns)
            return pl.Series([one(row) for row in zip(*lists, strict=True)], dtype=whole)

        made = pl.map_batches(list(args), rows, return_dtype=whole)
        return made.struct.field("value"), made.struct.field("fault")


def _key_type(kind: t.DataType) -> t.DataType:
    if isinstance(kind, (t.MapType, t.ArrayType, t.StructType)) or kind == t.NULL:
        raise UnsupportedError(f"keys of type {kind.simpleString()}")
    return kind


def _pairs_type(*kinds: t.DataType) -> t.DataType:
    if not kinds or len(kinds) % 2:
        raise AnalysisException("WRONG_NUM_ARGS", "create_map takes keys and values in turn")
    wide: list[t.DataType] = []
    for part in (kinds[::2], kinds[1::2]):
        if len(set(part)) > 1:
            texts = ", ".join(k.simpleString() for k in part)
            raise UnsupportedError(f"create_map of {texts}", "cast them to one type")
        wide.append(part[0])
    return t.MapType(_key_type(wide[0]), wide[1])


_rows(
    "create_map",
    [],
    _pairs_type,
    lambda *row: _made(zip(row[::2], row[1::2], strict=True)),
    rest=ANY,
    nulls=True,
)


def _from_arrays(keys: list[Any], values: list[Any]) -> Entries:
    if len(keys) != len(values):
        raise _Wrong(Fault.MAP_SIZES)
    return _made(zip(keys, values, strict=True))


def _inner(kind: t.DataType) -> t.DataType:
    assert isinstance(kind, t.ArrayType)
    return kind.elementType


_rows(
    "map_from_arrays",
    [ARRAY, ARRAY],
    lambda k, v: t.MapType(_key_type(_inner(k)), _inner(v)),
    _from_arrays,
)


def _entries_type(kind: t.DataType) -> t.DataType:
    inner = _inner(kind)
    if not isinstance(inner, t.StructType) or len(inner) != 2:
        raise AnalysisException("DATATYPE_MISMATCH", f"map_from_entries({kind.simpleString()})")
    return t.MapType(_key_type(inner.fields[0].dataType), inner.fields[1].dataType)


def _from_entries(entries: Entries) -> Entries | None:
    if None in entries:
        return None
    return _made(tuple(entry.values()) for entry in entries)


_rows("map_from_entries", [ARRAY], _entries_type, _from_entries)


def _same_maps(*kinds: t.DataType) -> t.DataType:
    if any(kind != kinds[0] for kind in kinds):
        raise UnsupportedError("map_concat of maps of different types")
    return kinds[0]


def _concat(*maps: Entries) -> Entries:
    return _made((entry["key"], entry["value"]) for one in maps for entry in one)


_rows("map_concat", [MAP], _same_maps, _concat, rest=MAP)


@function("map_keys", [MAP], lambda kind: t.ArrayType(_map_of(kind).keyType))
def map_keys(a: Px) -> Px:
    return a.list.eval(pl.element().struct.field("key"))


@function("map_values", [MAP], lambda kind: t.ArrayType(_map_of(kind).valueType))
def map_values(a: Px) -> Px:
    return a.list.eval(pl.element().struct.field("value"))


@function("map_entries", [MAP], lambda kind: t.ArrayType(_map_of(kind).entry))
def map_entries(a: Px) -> Px:
    return a


@function("map_size", [MAP], t.INT)
def map_size(a: Px) -> Px:
    return a.list.len().cast(pl.Int32)


def _like_key(kind: t.DataType, key: t.DataType) -> None:
    wanted = _map_of(kind).keyType
    if key != wanted:
        raise UnsupportedError(f"a key of type {key.simpleString()} in {kind.simpleString()}")


def _value_type(kind: t.DataType, key: t.DataType) -> t.DataType:
    _like_key(kind, key)
    return _map_of(kind).valueType


def _has_type(kind: t.DataType, key: t.DataType) -> t.DataType:
    _like_key(kind, key)
    return t.BOOLEAN


def _get(entries: Entries, key: Any) -> Any:  # noqa: ANN401
    mark = key_of(key)
    return next((e["value"] for e in entries if key_of(e["key"]) == mark), None)


def _has(entries: Entries, key: Any) -> bool:  # noqa: ANN401
    mark = key_of(key)
    return any(key_of(e["key"]) == mark for e in entries)


_rows("map_get", [MAP, ANY], _value_type, _get)
_rows("map_contains_key", [MAP, ANY], _has_type, _has)
_rows("map_checked", [MAP], lambda kind: kind, _concat)
