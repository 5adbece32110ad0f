"""Arrays and structs."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from superfs.chukonu import types as t
from superfs.chukonu.catalog.base import (
    ANY,
    ARRAY,
    BOOL,
    INT,
    SAME_ANY,
    STR_CONST,
    Param,
    element_type,
    function,
    same_type,
)
from superfs.chukonu.catalog.dtypes import dtype
from superfs.chukonu.catalog.faults import Fault, fault_where
from superfs.chukonu.catalog.numbers import aligned
from superfs.chukonu.errors import UnsupportedError
from superfs.chukonu.native import pl

if TYPE_CHECKING:
    from collections.abc import Callable

Px = Any


@function(
    "array",
    [],
    lambda *kinds: t.ArrayType(kinds[0] if kinds else t.NULL),
    rest=SAME_ANY,
    typed=True,
)
def array(kinds: tuple[t.DataType, ...], *args: Px) -> Px:
    if not args:
        raise UnsupportedError("array without elements")
    if not isinstance(kinds[0], t.ArrayType):
        return pl.concat_list(args)
    whole = dtype(t.ArrayType(kinds[0]))  # concat_list puts arrays together, not into one

    def rows(columns: list[Any]) -> Any:  # noqa: ANN401
        lists = aligned(columns)
        return pl.Series([list(row) for row in zip(*lists, strict=True)], dtype=whole)

    return pl.map_batches(list(args), rows, return_dtype=whole)


@function("size", [ARRAY], t.INT)
def size(a: Px) -> Px:
    return a.list.len().cast(pl.Int32)


@function("getarray", [ARRAY, INT], element_type, fails=True)
def get_element(a: Px, place: Px) -> tuple[Px, Px]:
    """From 0; there must be one."""
    outside = a.is_not_null() & ((place < 0) | (place >= a.list.len().cast(pl.Int32)))
    found = a.list.get(place.cast(pl.Int64), null_on_oob=True)
    return pl.when(~outside).then(found), fault_where(outside, Fault.ARRAY_INDEX)


@function("element_at", [ARRAY, INT], element_type, fails=True)
def element_at(a: Px, place: Px) -> tuple[Px, Px]:
    """From 1, or from the end with -1; there must be one."""
    count = a.list.len().cast(pl.Int32)
    index = pl.when(place > 0).then(place - 1).otherwise(place).cast(pl.Int64)
    outside = place.abs() > count
    zero = (place == 0) & a.is_not_null()
    fault = pl.coalesce(fault_where(zero, Fault.INDEX_ZERO), fault_where(outside, Fault.ELEMENT_AT))
    return pl.when(~outside).then(a.list.get(index, null_on_oob=True)), fault


PLAIN = (t.STRING, t.DATE, *t.INTEGRALS)


def _python(
    name: str,
    params: list[Param],
    result: t.DataType | Callable[..., t.DataType],
    run: Callable[..., Any],
    native: Callable[..., Px] | None = None,
) -> None:
    """What Polars has no kernel for, or one with other nulls. A null argument gives null.
    `native`: what it has for elements whose equality and order are everybody's."""

    @function(name, params, result, typed=True)
    def kernel(kinds: tuple[t.DataType, ...], *args: Px) -> Px:
        kind = dtype(result if isinstance(result, t.DataType) else result(*kinds))
        if native is not None and element_type(kinds[0]) in PLAIN:
            known = pl.all_horizontal(*(arg.is_not_null() for arg in args))
            return pl.when(known).then(native(*args)).cast(kind)

        def rows(columns: list[Any]) -> Any:  # noqa: ANN401
            lists = aligned(columns)
            found = [
                None if row[0] is None or any(v is None for v in row) else run(*row)
                for row in zip(*lists, strict=True)
            ]
            return pl.Series(found, dtype=kind)

        return pl.map_batches(list(args), rows, return_dtype=kind)


def _alike(result: t.DataType | None) -> Callable[..., t.DataType]:
    """Spark would cast one to the other; here they have the same type of elements."""

    def check(array: t.DataType, other: t.DataType) -> t.DataType:
        inner = other.elementType if isinstance(other, t.ArrayType) else other
        if element_type(array) != inner:
            raise UnsupportedError(f"{array.simpleString()} with {other.simpleString()}")
        return array if result is None else result

    return check


class _Key:
    """Values in Spark's order and with its equality: NaN equals itself and is above all."""

    def __init__(self, value: Any) -> None:  # noqa: ANN401
        if isinstance(value, (list, dict)):
            raise UnsupportedError("equality of arrays of arrays or of structs")
        nan = isinstance(value, float) and value != value
        self.key = (1, 0) if nan else (0, value.encode() if isinstance(value, str) else value)

    def __lt__(self, other: _Key) -> bool:
        return self.key < other.key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


def key_of(value: Any) -> _Key | None:  # noqa: ANN401
    return None if value is None else _Key(value)


def _first(values: list[Any]) -> list[Any]:
    seen: dict[_Key | None, Any] = {}
    for value in values:
        seen.setdefault(key_of(value), value)
    return list(seen.values())


def _contains(values: list[Any], wanted: Any) -> bool | None:  # noqa: ANN401
    key = key_of(wanted)
    if any(key_of(v) == key for v in values if v is not None):
        return True
    return None if None in values else False


def _position(values: list[Any], wanted: Any) -> int:  # noqa: ANN401
    key = key_of(wanted)
    return next((i for i, v in enumerate(values, 1) if v is not None and key_of(v) == key), 0)


def _overlap(one: list[Any], other: list[Any]) -> bool | None:
    keys = {key_of(v) for v in other if v is not None}
    if any(key_of(v) in keys for v in one if v is not None):
        return True
    return None if one and other and (None in one or None in other) else False


def _sorted(values: list[Any], up: bool = True) -> list[Any]:
    nulls = [v for v in values if v is None]
    found = sorted((v for v in values if v is not None), key=_Key, reverse=not up)
    return nulls + found if up else found + nulls


def _except(one: list[Any], other: list[Any]) -> list[Any]:
    keys = {key_of(v) for v in other}
    return [v for v in _first(one) if key_of(v) not in keys]


def _intersect(one: list[Any], other: list[Any]) -> list[Any]:
    keys = {key_of(v) for v in other}
    return [v for v in _first(one) if key_of(v) in keys]


def _extreme(best: Callable[..., Any]) -> Callable[[list[Any]], Any]:
    def run(values: list[Any]) -> Any:  # noqa: ANN401
        return best((v for v in values if v is not None), key=_Key, default=None)

    return run


def _flatten(values: list[Any]) -> list[Any] | None:
    return None if None in values else [v for inner in values for v in inner]


def _join(values: list[str | None], mark: str, null: str | None = None) -> str:
    known = (null if v is None else v for v in values)
    return mark.join(v for v in known if v is not None)


TEXTS = Param("array<string>", (t.ArrayType(t.STRING),))
_python("array_distinct", [ARRAY], same_type, _first, lambda a: a.list.unique(maintain_order=True))
_python(
    "array_sort", [ARRAY], same_type, lambda v: _last(v), lambda a: a.list.sort(nulls_last=True)
)
_python("array_max", [ARRAY], element_type, _extreme(max), lambda a: a.list.max())
_python("array_min", [ARRAY], element_type, _extreme(min), lambda a: a.list.min())
_python("flatten", [ARRAY], element_type, _flatten)
_python("reverse_array", [ARRAY], same_type, lambda v: v[::-1], lambda a: a.list.reverse())
_python(
    "array_compact",
    [ARRAY],
    same_type,
    lambda v: [x for x in v if x is not None],
    lambda a: a.list.drop_nulls(),
)


def _last(values: list[Any]) -> list[Any]:
    """array_sort: ascending, nulls at the end."""
    found = _sorted(values)
    count = sum(v is None for v in values)
    return found[count:] + found[:count]


@function("sort_array", [ARRAY, BOOL], same_type, optional=1, typed=True)
def sort_array(kinds: tuple[t.DataType, ...], a: Px, up: Px = None) -> Px:
    up = pl.lit(True) if up is None else up
    kind = dtype(kinds[0])

    def rows(columns: list[Any]) -> Any:  # noqa: ANN401
        values, ups = columns[0].to_list(), columns[1].to_list()
        ups = ups * (len(values) if len(ups) == 1 else 1)
        found = [
            None if v is None or u is None else _sorted(v, u)
            for v, u in zip(values, ups, strict=True)
        ]
        return pl.Series(found, dtype=kind)

    return pl.map_batches([a, up], rows, return_dtype=kind)


def _holds(a: Px, wanted: Px) -> Px:
    unknown = a.list.contains(pl.lit(None), nulls_equal=True)
    found = a.list.contains(wanted, nulls_equal=False)
    return pl.when(found).then(True).when(~unknown).then(False)


_python("array_contains", [ARRAY, ANY], _alike(t.BOOLEAN), _contains, _holds)
_python("array_position", [ARRAY, ANY], _alike(t.LONG), _position)
_python("arrays_overlap", [ARRAY, ARRAY], _alike(t.BOOLEAN), _overlap)
_python("array_except", [ARRAY, ARRAY], _alike(None), _except)  # Polars has another order
_python(
    "array_intersect",
    [ARRAY, ARRAY],
    _alike(None),
    _intersect,
    lambda a, b: a.list.set_intersection(b),
)
_python(
    "array_union",
    [ARRAY, ARRAY],
    _alike(None),
    lambda a, b: _first(a + b),
    lambda a, b: a.list.set_union(b),
)


@function("array_join", [TEXTS, STR_CONST, STR_CONST], t.STRING, optional=1)
def array_join(a: Px, mark: str, null: str | None = None) -> Px:
    return a.map_elements(
        lambda v: _join(v.to_list(), mark, null), return_dtype=pl.String, skip_nulls=True
    )


@function("slice", [ARRAY, INT, INT], same_type, fails=True)
def slice_(a: Px, start: Px, count: Px) -> tuple[Px, Px]:
    wrong = ((start == 0) | (count < 0)) & a.is_not_null()
    index = pl.when(start > 0).then(start - 1).otherwise(a.list.len().cast(pl.Int32) + start)
    found = a.list.slice(index.cast(pl.Int64), count.cast(pl.Int64))
    before = (index < 0) & a.is_not_null()
    value = pl.when(before).then(a.list.head(0)).otherwise(found)
    known = a.is_not_null() & start.is_not_null() & count.is_not_null()
    return pl.when(known).then(value), fault_where(wrong, Fault.PARAMETER)


def _pair_type(one: t.DataType, other: t.DataType) -> t.DataType:
    fields = [t.StructField("0", element_type(one)), t.StructField("1", element_type(other))]
    return t.ArrayType(t.StructType(fields))


_python(
    "zip_pairs",
    [ARRAY, ARRAY],
    _pair_type,
    lambda a, b: [{"0": x, "1": y} for x, y in itertools.zip_longest(a, b)],
)


@function("getfield", [ANY, STR_CONST], lambda *_: t.NULL)
def get_field(a: Px, name: str) -> Px:
    return a.struct.field(name)
