"""Types of higher-order functions: what their variables are, and what their bodies give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.chukonu import expressions as e
from superfs.chukonu import types as t
from superfs.chukonu.catalog.base import cast_to
from superfs.chukonu.errors import AnalysisException
from superfs.chukonu.lambdas import refuse_in_body

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Resolve = Callable[[e.Expr, Sequence[e.Ref]], e.Expr]


def _bare(expr: e.Expr) -> e.Expr:
    return expr.child if isinstance(expr, e.Alias) else expr


def _array(expr: e.Expr, name: str) -> t.DataType:
    kind = e.dtype_of(expr)
    if not isinstance(kind, t.ArrayType):
        raise AnalysisException(
            "DATATYPE_MISMATCH", f"{name} of {kind.simpleString()}, not of an array"
        )
    return kind.elementType


def _bound(
    variables: tuple[e.Var, ...], kinds: Sequence[t.DataType], body: e.Expr
) -> tuple[tuple[e.Var, ...], e.Expr]:
    """The variables with their types, in the body too."""
    typed = [e.Var(v.number, k) for v, k in zip(variables, kinds, strict=False)]
    known = {var.number: var for var in typed}

    def bind(part: e.Expr) -> e.Expr:
        if isinstance(part, e.Var):
            return known.get(part.number, part)
        return part.rebuild(bind)

    return tuple(typed), bind(body)


def _body(
    name: str,
    variables: tuple[e.Var, ...],
    kinds: Sequence[t.DataType],
    body: e.Expr,
    fields: Sequence[e.Ref],
    resolve: Resolve,
) -> tuple[tuple[e.Var, ...], e.Expr]:
    typed, bound = _bound(variables, kinds, body)
    found = _bare(resolve(bound, fields))
    refuse_in_body(found, name)
    return typed, found


def resolve_lambda(expr: e.Lambda, fields: Sequence[e.Ref], resolve: Resolve) -> e.Expr:
    name = expr.function
    array = _bare(resolve(expr.child, fields))
    if name in ("transform_keys", "transform_values", "map_filter"):
        return _of_map(expr, array, fields, resolve)
    inner = _array(array, name)
    kinds: tuple[t.DataType, ...] = (inner, t.INT)
    if name == "zip_with":
        assert isinstance(inner, t.StructType)
        kinds = tuple(f.dataType for f in inner)
    typed, body = _body(name, expr.variables, kinds, expr.body, fields, resolve)
    result = e.dtype_of(body)
    if name in ("transform", "zip_with"):
        return e.Lambda(name, array, typed, body, t.ArrayType(result))
    if result not in (t.BOOLEAN, t.NULL):
        raise AnalysisException(
            "DATATYPE_MISMATCH", f"the function of {name} gives {result.simpleString()}"
        )
    whole = e.dtype_of(array) if name == "filter" else t.BOOLEAN
    return e.Lambda(name, array, typed, cast_to(body, t.BOOLEAN), whole)


def _of_map(expr: e.Lambda, child: e.Expr, fields: Sequence[e.Ref], resolve: Resolve) -> e.Expr:
    name, kind = expr.function, e.dtype_of(child)
    if not isinstance(kind, t.MapType):
        raise AnalysisException("DATATYPE_MISMATCH", f"{name} of {kind.simpleString()}")
    kinds = (kind.keyType, kind.valueType)
    typed, body = _body(name, expr.variables, kinds, expr.body, fields, resolve)
    result = e.dtype_of(body)
    if name == "map_filter":
        if result not in (t.BOOLEAN, t.NULL):
            raise AnalysisException(
                "DATATYPE_MISMATCH", f"the function of {name} gives {result.simpleString()}"
            )
        return e.Lambda(name, child, typed, cast_to(body, t.BOOLEAN), kind)
    if name == "transform_values":
        return e.Lambda(name, child, typed, body, t.MapType(kind.keyType, result))
    whole = t.MapType(result, kind.valueType)
    return e.Call("map_checked", (e.Lambda(name, child, typed, body, whole),), whole)


def resolve_fold(expr: e.Fold, fields: Sequence[e.Ref], resolve: Resolve) -> e.Expr:
    array, initial = _bare(resolve(expr.child, fields)), _bare(resolve(expr.initial, fields))
    kind = e.dtype_of(initial)
    kinds = (kind, _array(array, "aggregate"))
    given, merge = _body("aggregate", expr.merge_vars, kinds, expr.merge, fields, resolve)
    if e.dtype_of(merge) != kind:
        raise AnalysisException(
            "DATATYPE_MISMATCH",
            f"aggregate begins with {kind.simpleString()}, and its function gives "
            f"{e.dtype_of(merge).simpleString()}",
        )
    last, finish = _body("aggregate", expr.finish_vars, (kind,), expr.finish, fields, resolve)
    return e.Fold(array, initial, given, merge, last, finish, e.dtype_of(finish))
