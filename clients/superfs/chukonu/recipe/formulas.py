"""Expressions in recipes: PySpark's, as Python writes them, without `F.` and `col`.

    length(text).between(200, 100000) and not lower(text).contains("lorem ipsum")

They are parsed, never evaluated: names are columns, calls are functions of the table or methods
of columns, and nothing else can be written. As in PySpark a string where a function takes a column
is a column's name: `lit("x")` is the string. `and`, `or`, `not`, `in`, `is None` and chained
comparisons mean what they say.
"""

from __future__ import annotations

import ast
import operator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from superfs.chukonu import functions
from superfs.chukonu.column import Column
from superfs.chukonu.errors import ChukonuError
from superfs.chukonu.lambdas import LAMBDAS
from superfs.chukonu.windows import Window, WindowSpec

if TYPE_CHECKING:
    from superfs.chukonu.recipe.document import Item

_BINARY: dict[type[ast.operator], Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
}
_COMPARED: dict[type[ast.cmpop], Any] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_OF_COLUMNS = {name for name in vars(Column) if not name.startswith("_")} - {"expr"}
_OF_WINDOWS = {"partitionBy", "orderBy", "rowsBetween", "rangeBetween"}
_SUPPORTED = frozenset(
    {*functions.supported(), "col", "lit", "when"} - {"udf", "arrow_udf", "broadcast", *LAMBDAS}
)
LENGTH_MAX, DEPTH_MAX = 100_000, 100


class _Wrong(Exception):
    pass


def formula(item: Item) -> Column:
    """A column from the text of an item; a number or a boolean stands for itself."""
    if isinstance(item.value, (int, float, bool)) or item.value is None:
        return functions.lit(item.value)
    text = item.text()
    try:
        if len(text) > LENGTH_MAX:
            raise _Wrong(f"is longer than {LENGTH_MAX} characters")
        found = _made(ast.parse(text.strip(), mode="eval").body, 0)
    except SyntaxError as error:
        raise item.error(f"{text!r}: {error.msg}, at character {error.offset}") from None
    except (_Wrong, ChukonuError, TypeError, ValueError) as error:
        raise item.error(f"{text!r}: {error}") from None
    return found if isinstance(found, Column) else functions.lit(found)


def _made(node: ast.AST, depth: int) -> Any:  # noqa: ANN401
    if depth > DEPTH_MAX:
        raise _Wrong(f"is nested deeper than {DEPTH_MAX}")

    def inner(part: ast.AST) -> Any:  # noqa: ANN401
        return _made(part, depth + 1)

    match node:
        case ast.Constant(value):
            return value
        case ast.Name("Window"):
            return Window
        case ast.Name(name):
            return functions.col(f"`{name}`")
        case ast.List(items) | ast.Tuple(items):
            return [inner(one) for one in items]
        case ast.Attribute(value, name):
            return _column(inner(value)).getField(name)
        case ast.Subscript(value, key):
            return _column(inner(value))[inner(key)]
        case ast.UnaryOp(ast.USub(), operand):
            return -inner(operand)
        case ast.UnaryOp(ast.Not() | ast.Invert(), operand):
            return ~_column(inner(operand))
        case ast.BinOp(left, op, right) if type(op) in _BINARY:
            return _BINARY[type(op)](inner(left), inner(right))
        case ast.BoolOp(op, values):
            return _joined([_column(inner(value)) for value in values], op)
        case ast.Compare(left, ops, rights):
            return _compared([inner(left), *map(inner, rights)], ops)
        case ast.Call(called, args, keywords):
            given = [inner(arg) for arg in args]
            named = {k.arg: inner(k.value) for k in keywords if k.arg is not None}
            if len(named) < len(keywords):
                raise _Wrong("** is not for recipes")
            return _called(called, inner)(*given, **named)
    raise _Wrong(f"{ast.unparse(node)!r:.60} is not for recipes")


def _column(value: Any) -> Column:  # noqa: ANN401
    return value if isinstance(value, Column) else functions.lit(value)


def _joined(parts: list[Column], op: ast.boolop) -> Column:
    whole = parts[0]
    for part in parts[1:]:
        whole = whole & part if isinstance(op, ast.And) else whole | part
    return whole


def _compared(values: list[Any], ops: list[ast.cmpop]) -> Column:
    parts = []
    for (left, right), op in zip(pairwise(values), ops, strict=True):
        if isinstance(op, (ast.In, ast.NotIn)):
            if not isinstance(right, list):
                raise _Wrong("`in` takes a list")
            test = _column(left).isin(right)
            parts.append(~test if isinstance(op, ast.NotIn) else test)
        elif isinstance(op, (ast.Is, ast.IsNot)):
            if right is not None:
                raise _Wrong("`is` takes None")
            known = _column(left)
            parts.append(known.isNull() if isinstance(op, ast.Is) else known.isNotNull())
        else:
            parts.append(_COMPARED[type(op)](_column(left), right))
    return _joined(parts, ast.And())


def _called(node: ast.AST, inner: Any) -> Any:  # noqa: ANN401
    match node:
        case ast.Name(name) | ast.Attribute(ast.Name("F"), name):
            if name not in _SUPPORTED:
                raise _Wrong(f"there is no function {name}")
            return getattr(functions, name)
        case ast.Attribute(value, name):
            owner = inner(value)
            if isinstance(owner, Column) and name in _OF_COLUMNS:
                return getattr(owner, name)
            windows = owner is Window or isinstance(owner, WindowSpec)
            if windows and name in _OF_WINDOWS:
                return getattr(owner, name)
            raise _Wrong(f"there is no method {name}")
    raise _Wrong(f"{ast.unparse(node)!r:.60} cannot be called")
