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
LAMBDAS = ("transform", "filter", "exists", "forall")


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


def _made(name: str, array: C, f: Callable[..., Column], most: int) -> Column:
    parameters = inspect.signature(f).parameters.values()
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(p.kind not in plain for p in parameters):
        raise AnalysisException("UNSUPPORTED_PARAM_TYPE_FOR_HIGHER_ORDER_FUNCTION", name)
    if not 1 <= len(parameters) <= most:
        raise AnalysisException(
            "WRONG_NUM_ARGS_FOR_HIGHER_ORDER_FUNCTION", f"{name}: a function of {len(parameters)}"
        )
    given = tuple(e.new_var() for _ in parameters)
    body = f(*(Column(var) for var in given))
    if not isinstance(body, Column):
        raise AnalysisException("HIGHER_ORDER_FUNCTION_SHOULD_RETURN_COLUMN", name)
    return Column(e.Lambda(name, column(array), given, body.expr))


def refuse_in_body(body: e.Expr, name: str) -> None:
    for part in body.walk():
        if isinstance(part, (e.PythonUDF, e.Aggregate, e.Over, e.Explode)):
            raise UnsupportedError(f"{type(part).__name__} in the function of {name}")
