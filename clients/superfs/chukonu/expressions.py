"""Expressions as values: what functions make, what analysis gives types to, what executors compile.

Before analysis a column is a `Name` and `dtype` is None; after it every column is a `Ref` and
every expression has a type. A `Ref` is known by its number: two columns may have the same name.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from superfs.chukonu.types import DataType

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Expr:
    @property
    def children(self) -> tuple[Expr, ...]:
        return tuple(_inner(self))

    def rebuild(self, change: Callable[[Expr], Expr]) -> Expr:
        """The same with `change` applied to each child."""
        found: dict[str, Any] = {}
        for f in fields(self):
            old = getattr(self, f.name)
            new = _changed(old, change)
            if new is not old:
                found[f.name] = new
        return replace(self, **found) if found else self

    def walk(self) -> Iterator[Expr]:
        yield self
        for child in self.children:
            yield from child.walk()


def _inner(value: object) -> Iterator[Expr]:
    whole: Any = value
    parts = whole if isinstance(whole, tuple) else [getattr(whole, f.name) for f in fields(whole)]
    for part in parts:
        if isinstance(part, Expr):
            yield part
        elif isinstance(part, tuple):
            yield from _inner(part)


def _changed(value: Any, change: Callable[[Expr], Expr]) -> Any:  # noqa: ANN401
    if isinstance(value, Expr):
        return change(value)
    if isinstance(value, tuple):
        new = tuple(_changed(part, change) for part in value)
        return new if any(a is not b for a, b in zip(new, value, strict=True)) else value
    return value


@dataclass(frozen=True)
class Name(Expr):
    """A column as it was written: `a`, `s.x`, `t.a`."""

    text: str
    dtype: DataType | None = None


@dataclass(frozen=True)
class Star(Expr):
    dtype: DataType | None = None


@dataclass(frozen=True)
class Ref(Expr):
    number: int
    name: str
    dtype: DataType
    qualifier: str = ""

    @property
    def key(self) -> str:
        """Its name in frames."""
        return f"c{self.number}"

    def fresh(self) -> Ref:
        return replace(self, number=next(_numbers))


def new_ref(name: str, dtype: DataType) -> Ref:
    return Ref(next(_numbers), name, dtype)


@dataclass(frozen=True)
class Var(Expr):
    """What the function of a higher-order function is given."""

    number: int
    dtype: DataType | None = None

    @property
    def key(self) -> str:
        return f"v{self.number}"


def new_var() -> Var:
    return Var(next(_numbers))


@dataclass(frozen=True)
class Lambda(Expr):
    """A higher-order function of an array: `body` for each element."""

    function: str
    child: Expr
    variables: tuple[Var, ...]
    body: Expr
    dtype: DataType | None = None


@dataclass(frozen=True)
class Fold(Expr):
    """`aggregate`: the elements of an array taken in, one after the other."""

    child: Expr
    initial: Expr
    merge_vars: tuple[Var, ...]
    merge: Expr
    finish_vars: tuple[Var, ...]
    finish: Expr
    dtype: DataType | None = None


@dataclass(frozen=True)
class Lit(Expr):
    value: Any
    dtype: DataType

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Lit) or self.dtype != other.dtype:
            return False
        return repr(self.value) == repr(other.value)

    def __hash__(self) -> int:
        return hash((repr(self.value), self.dtype))


@dataclass(frozen=True)
class Call(Expr):
    """A function of one row."""

    function: str
    args: tuple[Expr, ...]
    dtype: DataType | None = None


@dataclass(frozen=True)
class Aggregate(Expr):
    """A function of a group of rows, or of a window."""

    function: str
    args: tuple[Expr, ...]
    distinct: bool = False
    dtype: DataType | None = None


COUNT_ROWS = Aggregate("count", ())


@dataclass(frozen=True)
class Cast(Expr):
    child: Expr
    dtype: DataType
    attempt: bool = False
    """try_cast: null where there is no result."""


@dataclass(frozen=True)
class Case(Expr):
    branches: tuple[tuple[Expr, Expr], ...]
    otherwise: Expr
    dtype: DataType | None = None


@dataclass(frozen=True)
class Alias(Expr):
    child: Expr
    name: str
    dtype: DataType | None = None


@dataclass(frozen=True)
class Explode(Expr):
    """A row for each element; `outer` keeps rows that have none; `position` adds its number."""

    child: Expr
    outer: bool = False
    position: bool = False
    dtype: DataType | None = None


@dataclass(frozen=True)
class Order(Expr):
    child: Expr
    descending: bool = False
    nulls_last: bool = False


@dataclass(frozen=True)
class Over(Expr):
    """`function` over a window. Frames are (start, end) as offsets, None for unbounded."""

    function: Expr
    partition: tuple[Expr, ...] = ()
    order: tuple[Order, ...] = ()
    frame: tuple[str, int | None, int | None] | None = None
    dtype: DataType | None = None


@dataclass(frozen=True)
class PythonUDF(Expr):
    """`function` is called with the values of one row; `batch`: with Arrow arrays of many."""

    name: str
    function: Any
    args: tuple[Expr, ...]
    dtype: DataType
    batch: bool = False


def dtype_of(expr: Expr) -> DataType:
    found: DataType | None = getattr(expr, "dtype", None)
    assert found is not None, expr
    return found


def refs_of(expr: Expr) -> set[Ref]:
    return {part for part in expr.walk() if isinstance(part, Ref)}
