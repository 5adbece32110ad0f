"""`from superfs.chukonu import functions as F`: PySpark's functions, as far as the table goes.

Asking for one that is not in the table is an `UnsupportedError` with its name.
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

from superfs.chukonu import expressions as e
from superfs.chukonu import lambdas, moments
from superfs.chukonu.column import Column, call, column, literal
from superfs.chukonu.errors import UnsupportedError
from superfs.chukonu.lambdas import LAMBDAS
from superfs.chukonu.moments import MOMENTS
from superfs.chukonu.udf import arrow_udf as arrow_udf_
from superfs.chukonu.udf import udf as udf_

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.chukonu.types import DataType

C = Column | str


def col(name: str) -> Column:
    return Column(column(name))


column_ = col


def lit(value: Any) -> Column:  # noqa: ANN401
    return Column(literal(value))


def expr(text: str) -> Column:
    raise UnsupportedError("expr (SQL strings)")


def when(condition: Column, value: Any) -> Column:  # noqa: ANN401
    return Column(e.Case(((condition.expr, literal(value)),), e.Lit(None, _null())))


def _null() -> DataType:
    from superfs.chukonu.types import NULL

    return NULL


def _columns(function: str, *args: C) -> Column:
    return Column(e.Call(function, tuple(column(arg) for arg in args)))


def asc(name: C) -> Column:
    return Column(column(name)).asc()


def desc(name: C) -> Column:
    return Column(column(name)).desc()


def broadcast(frame: Any) -> Any:  # noqa: ANN401
    """A hint to Spark; the embedded executor joins in memory in any case."""
    return frame.hint("broadcast")


# ---- functions whose arguments are not all columns


def substring(text: C, pos: Any, len: Any) -> Column:  # noqa: A002, ANN401
    return call("substring", Column(column(text)), pos, len)


def substr(text: C, pos: C, len: C | None = None) -> Column:  # noqa: A002
    return _columns("substring", *(a for a in (text, pos, len) if a is not None))


def lpad(text: C, len: Any, pad: Any) -> Column:  # noqa: A002, ANN401
    return call("lpad", Column(column(text)), len, pad)


def rpad(text: C, len: Any, pad: Any) -> Column:  # noqa: A002, ANN401
    return call("rpad", Column(column(text)), len, pad)


def repeat(text: C, n: Any) -> Column:  # noqa: ANN401
    return call("repeat", Column(column(text)), Column(column(n)) if isinstance(n, str) else n)


def instr(text: C, substr: Any) -> Column:  # noqa: ANN401
    return call("instr", Column(column(text)), substr)


def locate(substr: str, text: C, pos: int = 1) -> Column:
    return call("locate", substr, Column(column(text)), pos)


def substring_index(text: C, delim: str, count: int) -> Column:
    return call("substring_index", Column(column(text)), delim, count)


def split(text: C, pattern: Any, limit: Any = -1) -> Column:  # noqa: ANN401
    return call("split", Column(column(text)), pattern, limit)


def regexp_replace(text: C, pattern: Any, replacement: Any) -> Column:  # noqa: ANN401
    return call("regexp_replace", Column(column(text)), pattern, replacement)


def regexp_extract(text: C, pattern: str, idx: int) -> Column:
    return call("regexp_extract", Column(column(text)), pattern, idx)


def regexp_extract_all(text: C, regexp: Column, idx: Any = None) -> Column:  # noqa: ANN401
    return call("regexp_extract_all", Column(column(text)), regexp, 1 if idx is None else idx)


def translate(text: C, matching: str, replace: str) -> Column:
    return call("translate", Column(column(text)), matching, replace)


def concat_ws(sep: str, *texts: C) -> Column:
    return call("concat_ws", sep, *(Column(column(text)) for text in texts))


def sha2(text: C, numBits: int) -> Column:
    return call("sha2", Column(column(text)), numBits)


def encode(text: C, charset: str) -> Column:
    return call("encode", Column(column(text)), charset)


def round(a: C, scale: Any = None) -> Column:  # noqa: A001, ANN401
    return call("round", Column(column(a)), 0 if scale is None else scale)


def bround(a: C, scale: Any = None) -> Column:  # noqa: ANN401
    return call("bround", Column(column(a)), 0 if scale is None else scale)


def pow(a: Any, b: Any) -> Column:  # noqa: A001, ANN401
    return call("power", *(Column(column(v)) if isinstance(v, str) else v for v in (a, b)))


power = pow


def atan2(a: Any, b: Any) -> Column:  # noqa: ANN401
    return call("atan2", *(Column(column(v)) if isinstance(v, str) else v for v in (a, b)))


def pmod(a: Any, b: Any) -> Column:  # noqa: ANN401
    return call("pmod", *(Column(column(v)) if isinstance(v, str) else v for v in (a, b)))


def log(arg1: Any, arg2: C | None = None) -> Column:  # noqa: ANN401
    if arg2 is not None:
        raise UnsupportedError("log with a base")
    return _columns("ln", arg1)


def shiftleft(a: C, numBits: int) -> Column:
    return call("shiftleft", Column(column(a)), numBits)


def shiftright(a: C, numBits: int) -> Column:
    return call("shiftright", Column(column(a)), numBits)


def date_add(start: C, days: Any) -> Column:  # noqa: ANN401
    return call("date_add", Column(column(start)), _column_or(days))


def date_sub(start: C, days: Any) -> Column:  # noqa: ANN401
    return call("date_sub", Column(column(start)), _column_or(days))


def add_months(start: C, months: Any) -> Column:  # noqa: ANN401
    return call("add_months", Column(column(start)), _column_or(months))


def _column_or(value: Any) -> Any:  # noqa: ANN401
    return Column(column(value)) if isinstance(value, str) else value


def next_day(date: C, dayOfWeek: str) -> Column:
    return call("next_day", Column(column(date)), dayOfWeek)


def array_contains(array: C, value: Any) -> Column:  # noqa: ANN401
    return call("array_contains", Column(column(array)), value)


def array_position(array: C, value: Any) -> Column:  # noqa: ANN401
    return call("array_position", Column(column(array)), value)


def array_join(array: C, delimiter: str, null_replacement: str | None = None) -> Column:
    extra = () if null_replacement is None else (null_replacement,)
    return call("array_join", Column(column(array)), delimiter, *extra)


def sort_array(array: C, asc: bool = True) -> Column:
    return call("sort_array", Column(column(array)), asc)


def create_map(*columns: Any) -> Column:  # noqa: ANN401
    if builtins.len(columns) == 1 and isinstance(columns[0], (list, tuple)):
        columns = tuple(columns[0])
    return _columns("create_map", *columns)


def map_contains_key(map: C, value: Any) -> Column:  # noqa: A002, ANN401
    return call("map_contains_key", Column(column(map)), value)


def element_at(array: C, extraction: Any) -> Column:  # noqa: ANN401
    return call("element_at", Column(column(array)), extraction)


def slice(array: C, start: Any, length: Any) -> Column:  # noqa: A001, ANN401
    return call("slice", Column(column(array)), _column_or(start), _column_or(length))


def array(*columns: Any) -> Column:  # noqa: ANN401
    if builtins.len(columns) == 1 and isinstance(columns[0], (list, tuple)):
        columns = tuple(columns[0])
    return _columns("array", *columns)


def struct(*columns: Any) -> Column:  # noqa: ANN401
    if builtins.len(columns) == 1 and isinstance(columns[0], (list, tuple)):
        columns = tuple(columns[0])
    return _columns("struct", *columns)


def nvl2(condition: C, some: C, none: C) -> Column:
    test = Column(column(condition)).isNotNull()
    return when(test, Column(column(some))).otherwise(Column(column(none)))


def raise_error(message: Any) -> Column:  # noqa: ANN401
    return call("raise_error", _column_or(message) if isinstance(message, Column) else message)


udf, arrow_udf = udf_, arrow_udf_


# ---- rows from arrays


def explode(array: C) -> Column:
    return Column(e.Explode(column(array)))


def explode_outer(array: C) -> Column:
    return Column(e.Explode(column(array), outer=True))


# ---- groups and windows


def _aggregate(function: str, *args: e.Expr, distinct: bool = False) -> Column:
    return Column(e.Aggregate(function, args, distinct))


def count(column_: C) -> Column:
    inner = column(column_)
    return Column(e.COUNT_ROWS) if isinstance(inner, e.Star) else _aggregate("count", inner)


def count_distinct(first_: C, *more: C) -> Column:
    if more:
        raise UnsupportedError("count_distinct of several columns")
    return _aggregate("count", column(first_), distinct=True)


countDistinct = count_distinct


def sum_distinct(a: C) -> Column:
    return _aggregate("sum", column(a), distinct=True)


sumDistinct = sum_distinct


def first(a: C, ignorenulls: bool = False) -> Column:
    if ignorenulls:
        raise UnsupportedError("first with ignorenulls")
    return _aggregate("first", column(a))


def last(a: C, ignorenulls: bool = False) -> Column:
    if ignorenulls:
        raise UnsupportedError("last with ignorenulls")
    return _aggregate("last", column(a))


def lag(a: C, offset: int = 1, default: Any = None) -> Column:  # noqa: ANN401
    return _aggregate("lag", column(a), literal(offset), literal(default))


def lead(a: C, offset: int = 1, default: Any = None) -> Column:  # noqa: ANN401
    return _aggregate("lead", column(a), literal(offset), literal(default))


_COLUMNS_TEXT = """
upper lower char_length ascii length octet_length bit_length trim ltrim rtrim left right
contains startswith endswith like ilike rlike regexp_count concat replace initcap md5 sha1 crc32
base64 hex unhex abs ceil floor negative sqrt cbrt exp sin cos tan asin acos atan sinh cosh tanh
degrees radians signum ln log10 log2 log1p hypot bitwise_not bit_count isnull isnotnull isnan
nanvl coalesce nullif greatest least year quarter month dayofmonth dayofyear weekofyear
dayofweek weekday datediff last_day make_date hour minute second unix_date unix_seconds
unix_millis unix_micros timestamp_seconds timestamp_millis timestamp_micros date_from_unix_date
dayname monthname size array_distinct array_sort array_max array_min flatten array_compact
map_from_arrays map_from_entries map_keys map_values map_entries map_concat arrays_overlap
array_except array_intersect array_union reverse
"""
_COLUMNS = _COLUMNS_TEXT.split()
_AGGREGATES_TEXT = """
count_if sum avg min max bool_and bool_or stddev_samp stddev_pop var_samp var_pop collect_list
collect_set max_by min_by row_number rank dense_rank percent_rank cume_dist
"""
_AGGREGATES = _AGGREGATES_TEXT.split()
_SAME = {
    "ucase": "upper",
    "lcase": "lower",
    "character_length": "char_length",
    "sha": "sha1",
    "ceiling": "ceil",
    "negate": "negative",
    "sign": "signum",
    "toDegrees": "degrees",
    "toRadians": "radians",
    "bitwiseNOT": "bitwise_not",
    "ifnull": "coalesce",
    "nvl": "coalesce",
    "day": "dayofmonth",
    "date_diff": "datediff",
    "cardinality": "size",
    "array_size": "size",
    "regexp": "rlike",
    "regexp_like": "rlike",
    "mean": "avg",
    "every": "bool_and",
    "some": "bool_or",
    "stddev": "stddev_samp",
    "std": "stddev_samp",
    "variance": "var_samp",
    "dateadd": "date_add",
}


def _maker(name: str) -> Callable[..., Column]:
    target = _SAME.get(name, name)
    if target in _AGGREGATES:
        return lambda *args: _aggregate(target, *(column(arg) for arg in args))
    if target in _COLUMNS:
        return lambda *args: _columns(target, *args)
    found = globals().get(target)
    assert found is not None, target
    return found


_ELSEWHERE = {**dict.fromkeys(LAMBDAS, lambdas), **dict.fromkeys(MOMENTS, moments)}
for _name, _module in _ELSEWHERE.items():
    globals()[_name] = getattr(_module, _name)
for _name in (*_COLUMNS, *_AGGREGATES, *_SAME):
    globals()[_name] = _maker(_name)


def supported() -> list[str]:
    """The names that PySpark's functions module and this one share: the published table."""
    hidden = {"supported", "column_", "expr"}
    own = globals()
    return sorted(
        name
        for name, value in own.items()
        if callable(value)
        and not name.startswith("_")
        and name not in hidden
        and (
            name in {*_COLUMNS, *_AGGREGATES, *_SAME, *_ELSEWHERE, "udf", "arrow_udf"}
            or getattr(value, "__module__", "") == __name__
        )
    )


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name.startswith("__"):
        raise AttributeError(name)
    raise UnsupportedError(f"function {name}")
