"""Python functions of single rows: `F.udf`. They see None for null, and every row: a condition
around them does not keep rows away, as in Spark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from superfs.chukonu import expressions as e
from superfs.chukonu import types as t
from superfs.chukonu.column import Column, column
from superfs.chukonu.ddl import parse_type

if TYPE_CHECKING:
    from collections.abc import Callable


class UserDefinedFunction:
    def __init__(self, func: Callable[..., Any], kind: t.DataType) -> None:
        self.func = func
        self.returnType = kind
        self.__name__ = getattr(func, "__name__", "udf")

    def __call__(self, *args: Column | str) -> Column:
        inner = tuple(column(arg) for arg in args)
        return Column(e.PythonUDF(self.__name__, self.func, inner, self.returnType))


def udf(f: Any = None, returnType: t.DataType | str = t.STRING) -> Any:  # noqa: ANN401
    """`udf(f, type)`, `@udf(type)`, `@udf(returnType=type)` or `@udf`. What it returns must be of
    the type: Spark makes some other values null, here they are errors."""
    if f is None or isinstance(f, (str, t.DataType)):
        kind = returnType if f is None else f
        return lambda func: udf(func, kind)
    kind = parse_type(returnType) if isinstance(returnType, str) else returnType
    return UserDefinedFunction(f, kind)
