"""Higher-order functions of arrays: `F.transform("a", lambda x: x + F.col("b"))`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from superfs.chukonu import expressions as e
from superfs.chukonu.column import Column, column
from superfs.chukonu.errors import AnalysisException, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

C = Column | str
LAMBDAS: tuple[str, ...] = ("transform", "filter", "exists", "forall", "aggregate", "reduce")
LAMBDAS += ("zip_with", "transform_keys", "transform_values", "map_filter")


def transform(col: C, f: Callable[..., Column]) -> Column:
    """`f` is given an element, or an element and its place from 0."""
    return _made("transform", col, f, 2)


def filter(col: C, f: Callable[..., Column]) -> Column:  # noqa: A001
    """Those elements for which `f`, given one, or one and its place from 0, is true."""
    return _made("filter", col, f, 2)


def exists(col: C, f: Callable[[Column], Column]) -> Column:
    """Null where it is true for none and null for some."""
    return _made("exists", col, f, 1)


def forall(col: C, f: Callable[[Column], Column]) -> Column:
    """Null where it is false for none and null for some."""
    return _made("forall", col, f, 1)


def zip_with(left: C, right: C, f: Callable[[Column, Column], Column]) -> Column:
    """`f` is given the elements that stand at one place in both, null for one that is not there."""
    variables, body = _function("zip_with", f, 2, 2)
    pairs = e.Call("zip_pairs", (column(left), column(right)))
    return Column(e.Lambda("zip_with", pairs, variables, body))


def transform_keys(col: C, f: Callable[[Column, Column], Column]) -> Column:
    """A map whose keys are what `f`, given a key and its value, makes of them."""
    variables, body = _function("transform_keys", f, 2, 2)
    return Column(e.Lambda("transform_keys", column(col), variables, body))


def transform_values(col: C, f: Callable[[Column, Column], Column]) -> Column:
    variables, body = _function("transform_values", f, 2, 2)
    return Column(e.Lambda("transform_values", column(col), variables, body))


def map_filter(col: C, f: Callable[[Column, Column], Column]) -> Column:
    """Those entries for which `f`, given key and value, is true."""
    variables, body = _function("map_filter", f, 2, 2)
    return Column(e.Lambda("map_filter", column(col), variables, body))


def aggregate(
    col: C,
    initialValue: C,
    merge: Callable[[Column, Column], Column],
    finish: Callable[[Column], Column] | None = None,
) -> Column:
    """`merge` is given what came of the elements before, at first `initialValue`, and the next
    one, and must give the same type; `finish` what came of all."""
    given, body = _function("aggregate", merge, 2, 2)
    last: tuple[e.Var, ...] = (e.new_var(),)
    end: e.Expr = last[0]
    if finish is not None:
        last, end = _function("aggregate", finish, 1, 1)
    return Column(e.Fold(column(col), column(initialValue), given, body, last, end))


reduce = aggregate


def _made(name: str, array: C, f: Callable[..., Column], most: int) -> Column:
    variables, body = _function(name, f, 1, most)
    return Column(e.Lambda(name, column(array), variables, body))


def _function(
    name: str, f: Callable[..., Column], least: int, most: int
) -> tuple[tuple[e.Var, ...], e.Expr]:
    parameters = inspect.signature(f).parameters.values()
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(p.kind not in plain for p in parameters):
        raise AnalysisException("UNSUPPORTED_PARAM_TYPE_FOR_HIGHER_ORDER_FUNCTION", name)
    if not least <= len(parameters) <= most:
        raise AnalysisException(
            "WRONG_NUM_ARGS_FOR_HIGHER_ORDER_FUNCTION", f"{name}: a function of {len(parameters)}"
        )
    given = tuple(e.new_var() for _ in parameters)
    body = f(*(Column(var) for var in given))
    if not isinstance(body, Column):
        raise AnalysisException("HIGHER_ORDER_FUNCTION_SHOULD_RETURN_COLUMN", name)
    return given, body.expr


def refuse_in_body(body: e.Expr, name: str) -> None:
    for part in body.walk():
        if isinstance(part, (e.PythonUDF, e.Aggregate, e.Over, e.Explode)):
            raise UnsupportedError(f"{type(part).__name__} in the function of {name}")
