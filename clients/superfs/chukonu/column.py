"""Column: what PySpark calls an expression. Operators build trees and look at nothing."""

from __future__ import annotations

import datetime
import decimal
from typing import TYPE_CHECKING, Any

from superfs.chukonu import expressions as e
from superfs.chukonu import types as t
from superfs.chukonu.ddl import parse_type
from superfs.chukonu.errors import AnalysisException, UnsupportedError

if TYPE_CHECKING:
    from superfs.chukonu.windows import WindowSpec


class Column:
    def __init__(self, expr: e.Expr) -> None:
        self.expr = expr

    def __repr__(self) -> str:
        from superfs.chukonu.naming import name_of

        return f"Column<'{name_of(self.expr)}'>"

    def __bool__(self) -> bool:
        raise AnalysisException(
            "CANNOT_CONVERT_COLUMN_INTO_BOOL", "use '&' for 'and', '|' for 'or', '~' for 'not'"
        )

    def __iter__(self) -> None:
        raise TypeError("Column is not iterable")

    # ---- operators

    def __add__(self, other: Any) -> Column:  # noqa: ANN401
        return call("+", self, other)

    def __radd__(self, other: Any) -> Column:  # noqa: ANN401
        return call("+", other, self)

    def __sub__(self, other: Any) -> Column:  # noqa: ANN401
        return call("-", self, other)

    def __rsub__(self, other: Any) -> Column:  # noqa: ANN401
        return call("-", other, self)

    def __mul__(self, other: Any) -> Column:  # noqa: ANN401
        return call("*", self, other)

    def __rmul__(self, other: Any) -> Column:  # noqa: ANN401
        return call("*", other, self)

    def __truediv__(self, other: Any) -> Column:  # noqa: ANN401
        return call("/", self, other)

    def __rtruediv__(self, other: Any) -> Column:  # noqa: ANN401
        return call("/", other, self)

    def __mod__(self, other: Any) -> Column:  # noqa: ANN401
        return call("%", self, other)

    def __rmod__(self, other: Any) -> Column:  # noqa: ANN401
        return call("%", other, self)

    def __pow__(self, other: Any) -> Column:  # noqa: ANN401
        return call("power", self, other)

    def __neg__(self) -> Column:
        return call("negative", self)

    def __invert__(self) -> Column:
        return call("not", self)

    def __and__(self, other: Any) -> Column:  # noqa: ANN401
        return call("and", self, other)

    __rand__ = __and__

    def __or__(self, other: Any) -> Column:  # noqa: ANN401
        return call("or", self, other)

    __ror__ = __or__

    def __eq__(self, other: Any) -> Column:  # type: ignore[override]  # noqa: ANN401
        return call("=", self, other)

    def __ne__(self, other: Any) -> Column:  # type: ignore[override]  # noqa: ANN401
        return call("not", call("=", self, other))

    __hash__ = None  # type: ignore[assignment]

    def __lt__(self, other: Any) -> Column:  # noqa: ANN401
        return call("<", self, other)

    def __le__(self, other: Any) -> Column:  # noqa: ANN401
        return call("<=", self, other)

    def __gt__(self, other: Any) -> Column:  # noqa: ANN401
        return call(">", self, other)

    def __ge__(self, other: Any) -> Column:  # noqa: ANN401
        return call(">=", self, other)

    def eqNullSafe(self, other: Any) -> Column:  # noqa: ANN401
        return call("<=>", self, other)

    def bitwiseAND(self, other: Any) -> Column:  # noqa: ANN401
        return call("&", self, other)

    def bitwiseOR(self, other: Any) -> Column:  # noqa: ANN401
        return call("|", self, other)

    def bitwiseXOR(self, other: Any) -> Column:  # noqa: ANN401
        return call("^", self, other)

    # ---- tests

    def isNull(self) -> Column:
        return call("isnull", self)

    def isNotNull(self) -> Column:
        return call("isnotnull", self)

    def isNaN(self) -> Column:
        return call("isnan", self)

    def isin(self, *values: Any) -> Column:  # noqa: ANN401
        if len(values) == 1 and isinstance(values[0], (list, set, tuple)):
            values = tuple(values[0])
        return call("in", self, *values)

    def between(self, low: Any, high: Any) -> Column:  # noqa: ANN401
        return (self >= low) & (self <= high)

    def like(self, pattern: str) -> Column:
        return call("like", self, pattern)

    def ilike(self, pattern: str) -> Column:
        return call("ilike", self, pattern)

    def rlike(self, pattern: str) -> Column:
        return call("rlike", self, pattern)

    def contains(self, other: Any) -> Column:  # noqa: ANN401
        return call("contains", self, other)

    def startswith(self, other: Any) -> Column:  # noqa: ANN401
        return call("startswith", self, other)

    def endswith(self, other: Any) -> Column:  # noqa: ANN401
        return call("endswith", self, other)

    def substr(self, start: Any, length: Any) -> Column:  # noqa: ANN401
        return call("substring", self, start, length)

    # ---- parts

    def __getitem__(self, key: Any) -> Column:  # noqa: ANN401
        return call("getitem", self, key)

    getItem = __getitem__

    def getField(self, name: str) -> Column:
        return call("getitem", self, name)

    # ---- names, types, order

    def alias(self, *names: str) -> Column:
        if len(names) != 1:
            raise UnsupportedError("alias with several names")
        return Column(e.Alias(self.expr, names[0]))

    name = alias

    def cast(self, kind: t.DataType | str) -> Column:
        return Column(e.Cast(self.expr, parse_type(kind) if isinstance(kind, str) else kind))

    astype = cast

    def try_cast(self, kind: t.DataType | str) -> Column:
        kind = parse_type(kind) if isinstance(kind, str) else kind
        return Column(e.Cast(self.expr, kind, attempt=True))

    def asc(self) -> Column:
        return Column(e.Order(self.expr))

    asc_nulls_first = asc

    def asc_nulls_last(self) -> Column:
        return Column(e.Order(self.expr, nulls_last=True))

    def desc(self) -> Column:
        return Column(e.Order(self.expr, descending=True, nulls_last=True))

    desc_nulls_last = desc

    def desc_nulls_first(self) -> Column:
        return Column(e.Order(self.expr, descending=True))

    def when(self, condition: Column, value: Any) -> Column:  # noqa: ANN401
        case = self.expr
        if not isinstance(case, e.Case) or case.otherwise != _NO_VALUE:
            raise AnalysisException("INVALID_WHEN_USAGE", "when() comes after when() only")
        branch = (condition.expr, literal(value))
        return Column(e.Case((*case.branches, branch), _NO_VALUE))

    def otherwise(self, value: Any) -> Column:  # noqa: ANN401
        if not isinstance(self.expr, e.Case) or self.expr.otherwise != _NO_VALUE:
            raise AnalysisException("INVALID_WHEN_USAGE", "otherwise() comes after when() only")
        return Column(e.Case(self.expr.branches, literal(value)))

    def over(self, window: WindowSpec) -> Column:
        return Column(e.Over(self.expr, window.partition, window.order, window.frame))


_NO_VALUE = e.Lit(None, t.NULL)


def literal(value: Any) -> e.Expr:  # noqa: ANN401
    """What a Python value is in an expression; a Column is itself."""
    if isinstance(value, Column):
        return value.expr
    if isinstance(value, (list, tuple)):
        return e.Call("array", tuple(literal(v) for v in value))
    if isinstance(value, datetime.datetime):
        return e.Lit(in_utc(value), t.TIMESTAMP)
    return e.Lit(value, type_of_value(value))


def in_utc(value: datetime.datetime) -> datetime.datetime:
    """Without a zone, as moments are here; one that has none is in UTC already."""
    if value.tzinfo is None:
        return value
    return value.astimezone(datetime.UTC).replace(tzinfo=None)


def type_of_value(value: Any) -> t.DataType:  # noqa: ANN401
    if value is None:
        return t.NULL
    if isinstance(value, bool):
        return t.BOOLEAN
    if isinstance(value, int):
        for kind in (t.INT, t.LONG):
            if kind.smallest <= value <= kind.largest:
                return kind
        raise UnsupportedError("an integer literal beyond bigint")
    if isinstance(value, datetime.date):
        return t.TIMESTAMP if isinstance(value, datetime.datetime) else t.DATE
    if isinstance(value, decimal.Decimal) and value.is_finite():
        _, digits, exponent = value.as_tuple()
        assert isinstance(exponent, int)
        scale = max(0, -exponent)
        precision = max(len(digits) + max(0, exponent), scale)
        if precision <= t.DIGITS_MAX:
            return t.DecimalType(precision, scale)
    plain: dict[type, t.DataType] = {float: t.DOUBLE, str: t.STRING, bytes: t.BINARY}
    for python, found in plain.items():
        if isinstance(value, python):
            return found
    raise UnsupportedError(f"a literal of type {type(value).__name__}")


def call(function: str, *args: Any) -> Column:  # noqa: ANN401
    return Column(e.Call(function, tuple(literal(arg) for arg in args)))


def column(value: Column | str) -> e.Expr:
    """Where PySpark takes a column or its name."""
    if isinstance(value, Column):
        return value.expr
    if isinstance(value, str):
        return e.Star() if value == "*" else e.Name(value)
    raise AnalysisException("NOT_COLUMN_OR_STR", f"{value!r} is neither a Column nor a name")
