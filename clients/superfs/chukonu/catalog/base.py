"""How a function is entered into the table: its name, what it takes, what it gives, its kernel.

A kernel gets one Polars expression for each argument (for a `const` argument the Python value) and
returns one; a `typed` kernel gets the types of the arguments before them. A kernel of a function
that can fail returns a pair: the result, and the number of what went wrong, null in the rows where
nothing did (faults.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from superfs.chukonu import expressions as e
from superfs.chukonu import types as t
from superfs.chukonu.errors import AnalysisException, UnsupportedError

Result = t.DataType | Callable[..., t.DataType]


@dataclass(frozen=True)
class Param:
    """`kinds` are the types it takes as they are; others are cast to `to` if that loses nothing."""

    label: str
    kinds: tuple[t.DataType, ...] = ()
    to: t.DataType | None = None
    const: bool = False
    any: bool = False
    array: bool = False
    map: bool = False
    same: bool = False
    """All arguments of such parameters are cast to the widest of their types."""


def exactly(kind: t.DataType) -> Param:
    return Param(kind.simpleString(), (kind,), kind)


def const(kind: t.DataType) -> Param:
    return Param(f"constant {kind.simpleString()}", (kind,), kind, const=True)


ANY = Param("any", any=True)
STR, BOOL, DBL, INT, LONG, DATE, BIN, MOMENT = (
    exactly(kind)
    for kind in (t.STRING, t.BOOLEAN, t.DOUBLE, t.INT, t.LONG, t.DATE, t.BINARY, t.TIMESTAMP)
)
STR_CONST, INT_CONST = const(t.STRING), const(t.INT)
NUMBER = Param("number", t.NUMBERS, t.DOUBLE)
INTEGRAL = Param("integral", t.INTEGRALS, t.INT)
ARRAY = Param("array", array=True)
MAP = Param("map", map=True)
ATOM = Param("atomic", t.ATOMS)
SAME = Param("atomic", t.ATOMS, same=True)
SAME_ANY = Param("any", any=True, same=True)
SAME_NUMBER = Param("number", t.NUMBERS, same=True)
SAME_INTEGRAL = Param("integral", t.INTEGRALS, same=True)
BYTES = Param("string or binary", (t.STRING, t.BINARY), t.STRING)


@dataclass(frozen=True)
class Function:
    name: str
    params: tuple[Param, ...]
    result: Result
    kernel: Callable[..., Any]
    rest: Param | None
    optional: int
    fails: bool
    typed: bool
    group: str

    def resolve(self, args: tuple[e.Expr, ...]) -> e.Expr:
        least, most = len(self.params) - self.optional, len(self.params)
        if len(args) < least or (self.rest is None and len(args) > most):
            raise AnalysisException(
                "WRONG_NUM_ARGS", f"{self.name}: {least} to {most} arguments, not {len(args)}"
            )
        params = self.params[: len(args)]
        if self.rest is not None:
            params += (self.rest,) * (len(args) - len(params))
        same: t.DataType | None = t.NULL
        for param, arg in zip(params, args, strict=True):
            if param.same:
                same = same and t.wider(same, e.dtype_of(arg))
        if same is None:
            raise self.misfit(args)
        found = tuple(self._fit(p, a, same, args) for p, a in zip(params, args, strict=True))
        kinds = [e.dtype_of(arg) for arg in found]
        result = self.result if isinstance(self.result, t.DataType) else self.result(*kinds)
        return e.Call(self.name, found, result)

    def _fit(self, param: Param, arg: e.Expr, same: t.DataType, args: tuple[e.Expr, ...]) -> e.Expr:
        kind = e.dtype_of(arg)
        if param.const and not isinstance(arg, e.Lit):
            raise UnsupportedError(self.name, "takes a constant there")
        if param.array or param.map:
            if not isinstance(kind, t.ArrayType if param.array else t.MapType):
                raise self.misfit(args)
            return arg
        if param.any:
            return cast_to(arg, same) if param.same else arg
        if param.same:
            if same not in param.kinds:
                raise UnsupportedError(f"{self.name} of {same.simpleString()}")
            return cast_to(arg, same)
        if kind in param.kinds and not (kind == t.NULL and param.to):
            return arg
        if param.to is not None and t.wider(kind, param.to) == param.to:
            return cast_to(arg, param.to)
        if param.to == t.DATE and kind == t.TIMESTAMP:
            return cast_to(arg, t.DATE)
        raise self.misfit(args)

    def misfit(self, args: tuple[e.Expr, ...]) -> AnalysisException:
        kinds = ", ".join(e.dtype_of(arg).simpleString() for arg in args)
        return AnalysisException(
            "DATATYPE_MISMATCH",
            f"{self.name}({kinds}): takes ({', '.join(p.label for p in self.params)})",
        )


def cast_to(expr: e.Expr, kind: t.DataType) -> e.Expr:
    if e.dtype_of(expr) == kind:
        return expr
    if isinstance(expr, e.Lit) and expr.value is not None and kind in t.INTEGRALS:
        return e.Lit(expr.value, kind)
    return (
        e.Lit(None, kind) if isinstance(expr, e.Lit) and expr.value is None else e.Cast(expr, kind)
    )


FUNCTIONS: dict[str, Function] = {}


def function(
    name: str,
    params: list[Param],
    result: Result,
    *,
    rest: Param | None = None,
    optional: int = 0,
    fails: bool = False,
    typed: bool = False,
    group: str = "",
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def enter(kernel: Callable[..., Any]) -> Callable[..., Any]:
        assert name not in FUNCTIONS, name
        part = group or kernel.__module__.rpartition(".")[2]
        FUNCTIONS[name] = Function(
            name, tuple(params), result, kernel, rest, optional, fails, typed, part
        )
        return kernel

    return enter


def same_type(*kinds: t.DataType) -> t.DataType:
    return kinds[0]


def element_type(array: t.DataType, *_: t.DataType) -> t.DataType:
    assert isinstance(array, t.ArrayType)
    return array.elementType
