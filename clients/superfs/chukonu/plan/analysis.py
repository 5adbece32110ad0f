"""Analysis: names become columns, functions are looked up, every expression gets its type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.chukonu import expressions as e
from superfs.chukonu import types as t
from superfs.chukonu.catalog import AGGREGATES, FUNCTIONS, decimals
from superfs.chukonu.catalog.base import cast_to
from superfs.chukonu.errors import AnalysisException, UnsupportedError
from superfs.chukonu.naming import name_of
from superfs.chukonu.plan import higher

if TYPE_CHECKING:
    from collections.abc import Sequence

RANKS = {"row_number": t.INT, "rank": t.INT, "dense_rank": t.INT, "percent_rank": t.DOUBLE}
RANKS |= {"cume_dist": t.DOUBLE}
SHIFTS = ("lag", "lead")
_OF_MAPS = {"size": "map_size", "element_at": "map_get", "map_get": "map_get"}
_OF_MAPS |= {"map_contains_key": "map_contains_key"}


def resolve(expr: e.Expr, fields: Sequence[e.Ref]) -> e.Expr:
    """The typed form over columns `fields`; AnalysisException says what does not fit."""
    match expr:
        case e.Name(text):
            return lookup(text, fields)
        case e.Ref():
            if expr.number not in {f.number for f in fields}:
                raise AnalysisException(
                    "MISSING_ATTRIBUTES", f"{expr.name} is not a column of this DataFrame"
                )
            return expr
        case e.Lit() | e.Var():
            return expr
        case e.Lambda():
            return higher.resolve_lambda(expr, fields, resolve)
        case e.Fold():
            return higher.resolve_fold(expr, fields, resolve)
        case e.Case():
            return _case(expr, fields)
        case e.Over():
            return _over(expr, fields)
        case e.Star():
            raise UnsupportedError("* there")
    inner = expr.rebuild(lambda child: resolve(child, fields))
    match inner:
        case e.Call(function, args):
            return _call(function, tuple(_bare(a) for a in args), args)
        case e.Aggregate(function, args, distinct):
            if function in RANKS or function in SHIFTS:
                return _window_function(function, args)
            if function not in AGGREGATES:
                raise UnsupportedError(f"function {function}")
            return AGGREGATES[function].resolve(tuple(map(_bare, args)), distinct=distinct)
        case e.Cast(child, kind, attempt):
            from superfs.chukonu.catalog.casts import compile_cast
            from superfs.chukonu.native import pl

            compile_cast(pl.lit(None), e.dtype_of(child), kind)  # refuses what it cannot do
            return child if e.dtype_of(child) == kind else e.Cast(_bare(child), kind, attempt)
        case e.Alias(child, name):
            return e.Alias(child, name, e.dtype_of(child))
        case e.Explode(child):
            kind = e.dtype_of(child)
            if isinstance(kind, t.MapType):
                return e.Explode(_bare(child), inner.outer, inner.position, kind.entry)
            if not isinstance(kind, t.ArrayType):
                raise AnalysisException("DATATYPE_MISMATCH", f"explode of {kind.simpleString()}")
            return e.Explode(_bare(child), inner.outer, inner.position, kind.elementType)
    return inner


def _bare(expr: e.Expr) -> e.Expr:
    return expr.child if isinstance(expr, e.Alias) else expr


def parts_of(text: str) -> list[str]:
    """`a.b` is two parts, in backticks it is one."""
    found, place = [], 0
    while place <= len(text):
        if text[place : place + 1] == "`":
            end = text.find("`", place + 1)
            if end < 0 or text[end + 1 : end + 2] not in ("", "."):
                raise AnalysisException("PARSE_SYNTAX_ERROR", f"column {text!r}")
            found.append(text[place + 1 : end])
            place = end + 2
        else:
            end = text.find(".", place)
            end = len(text) if end < 0 else end
            found.append(text[place:end])
            place = end + 1
    return found


def lookup(text: str, fields: Sequence[e.Ref]) -> e.Expr:
    parts = parts_of(text)
    first = parts[0].lower()
    matches = [f for f in fields if f.name.lower() == first]
    path = parts[1:]
    if len(parts) > 1:
        qualified = [
            f for f in fields if f.qualifier.lower() == first and f.name.lower() == parts[1].lower()
        ]
        if qualified:
            matches, path = qualified, parts[2:]
    if not matches:
        names = ", ".join(f.name for f in fields)
        raise AnalysisException("UNRESOLVED_COLUMN", f"{text!r}; there are: {names}")
    if len(matches) > 1:
        raise AnalysisException("AMBIGUOUS_REFERENCE", f"{text!r} is {len(matches)} columns")
    found: e.Expr = matches[0]
    for part in path:
        found = _field(found, part)
    return found


def _field(expr: e.Expr, name: str) -> e.Expr:
    kind = e.dtype_of(expr)
    if not isinstance(kind, t.StructType):
        raise AnalysisException(
            "INVALID_EXTRACT_BASE_FIELD_TYPE", f"{name!r} of {kind.simpleString()}"
        )
    matches = [f for f in kind if f.name.lower() == name.lower()]
    if len(matches) != 1:
        raise AnalysisException("FIELD_NOT_FOUND", f"{name!r} of {kind.simpleString()}")
    found = matches[0]
    return e.Call("getfield", (expr, e.Lit(found.name, t.STRING)), found.dataType)


def _call(function: str, args: tuple[e.Expr, ...], named: tuple[e.Expr, ...]) -> e.Expr:
    if function == "getitem":
        base, key = args
        if isinstance(e.dtype_of(base), t.StructType):
            if not isinstance(key, e.Lit) or not isinstance(key.value, str):
                raise UnsupportedError("a field of a struct by something other than its name")
            return _field(base, key.value)
        function = "map_get" if isinstance(e.dtype_of(base), t.MapType) else "getarray"
    if function == "reverse":
        is_array = isinstance(e.dtype_of(args[0]), t.ArrayType)
        function = "reverse_array" if is_array else "reverse_string"
    if function in _OF_MAPS and isinstance(e.dtype_of(args[0]), t.MapType):
        function = _OF_MAPS[function]
        if function == "map_get" and len(args) == 2 and isinstance(args[1], e.Lit):
            kind = e.dtype_of(args[0]).keyType  # type: ignore[attr-defined]
            wide = t.wider(e.dtype_of(args[1]), kind)
            args = (args[0], cast_to(args[1], kind) if wide == kind else args[1])
    if function == "nullif" and len(args) == 2 and e.dtype_of(args[0]) != e.dtype_of(args[1]):
        kind = e.dtype_of(args[0])  # only to be compared they are made alike
        return e.Case(((FUNCTIONS["="].resolve(args), e.Lit(None, kind)),), args[0], kind)
    if function in decimals.OPERATIONS and (exact := decimals.resolve(function, args)):
        return exact
    if function in ("negative", "abs") and isinstance(e.dtype_of(args[0]), t.DecimalType):
        function = f"decimal_{function}"
    if function == "unix_timestamp":
        if e.dtype_of(args[0]) in (t.DATE, t.TIMESTAMP):
            return FUNCTIONS["unix_seconds"].resolve(args[:1])
        function = "to_unix"
    if function == "struct":
        fields = [
            t.StructField(name_of(n), e.dtype_of(a)) for n, a in zip(named, args, strict=True)
        ]
        return e.Call("struct", args, t.StructType(fields))
    if function not in FUNCTIONS:
        raise UnsupportedError(f"function {function}")
    return FUNCTIONS[function].resolve(args)


def _case(expr: e.Case, fields: Sequence[e.Ref]) -> e.Expr:
    branches = [(resolve(c, fields), resolve(v, fields)) for c, v in expr.branches]
    otherwise = resolve(expr.otherwise, fields)
    kind: t.DataType | None = e.dtype_of(otherwise)
    for condition, value in branches:
        if e.dtype_of(condition) not in (t.BOOLEAN, t.NULL):
            raise AnalysisException("DATATYPE_MISMATCH", "a condition of when() must be boolean")
        kind = kind and t.wider(e.dtype_of(value), kind)
    if kind is None:
        kinds = [e.dtype_of(v).simpleString() for _, v in branches]
        raise AnalysisException(
            "DATATYPE_MISMATCH",
            f"when() of {', '.join([*kinds, e.dtype_of(otherwise).simpleString()])}",
        )
    cast = tuple((cast_to(_bare(c), t.BOOLEAN), cast_to(_bare(v), kind)) for c, v in branches)
    return e.Case(cast, cast_to(_bare(otherwise), kind), kind)


def _window_function(function: str, args: tuple[e.Expr, ...]) -> e.Expr:
    if function in RANKS:
        return e.Aggregate(function, args, False, RANKS[function])
    value, offset, default = args
    kind = e.dtype_of(value)
    if not isinstance(offset, e.Lit) or e.dtype_of(offset) != t.INT:
        raise UnsupportedError(f"{function} by something other than a constant")
    if t.wider(kind, e.dtype_of(default)) != kind or not isinstance(default, e.Lit):
        raise UnsupportedError(f"{function} with that default")
    return e.Aggregate(function, (value, offset, cast_to(default, kind)), False, kind)


def _over(expr: e.Over, fields: Sequence[e.Ref]) -> e.Expr:
    function = resolve(expr.function, fields)
    if not isinstance(function, e.Aggregate):
        raise AnalysisException("UNSUPPORTED_EXPR_FOR_WINDOW", name_of(function))
    partition = tuple(_bare(resolve(p, fields)) for p in expr.partition)
    order = tuple(
        e.Order(_bare(resolve(o.child, fields)), o.descending, o.nulls_last) for o in expr.order
    )
    name = function.function
    if name in RANKS or name in SHIFTS:
        if not order:
            raise AnalysisException("WINDOW_FUNCTION_WITHOUT_ORDER", f"{name} needs orderBy")
        if expr.frame is not None:
            raise UnsupportedError(f"{name} over a frame")
    elif (
        not AGGREGATES[name].windowed
        or function.distinct
        or isinstance(function.dtype, t.DecimalType)
    ):
        raise UnsupportedError(f"{name} over a window")
    return e.Over(function, partition, order, expr.frame, function.dtype)


def condition(expr: e.Expr, fields: Sequence[e.Ref]) -> e.Expr:
    found = _bare(resolve(expr, fields))
    if e.dtype_of(found) not in (t.BOOLEAN, t.NULL):
        kind = e.dtype_of(found).simpleString()
        raise AnalysisException("DATATYPE_MISMATCH", f"a filter must be boolean, not {kind}")
    forbid(found, (e.Aggregate, e.Over, e.Explode), "filter")
    return cast_to(found, t.BOOLEAN)


def forbid(expr: e.Expr, kinds: tuple[type[e.Expr], ...], where: str) -> None:
    for part in expr.walk():
        if isinstance(part, kinds):
            raise AnalysisException("INVALID_EXPRESSION", f"{name_of(part)} in {where}")
