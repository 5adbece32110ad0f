"""What Spark 4 promises of values, against models in plain Python."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superfs.chukonu import Session
from superfs.chukonu import functions as F
from superfs.chukonu import types as t
from superfs.chukonu.catalog.casts import java_double
from superfs.chukonu.catalog.regex import translate
from superfs.chukonu.errors import (
    AnalysisException,
    ArithmeticException,
    ChukonuError,
    NumberFormatException,
    UnsupportedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = {k.simpleString(): k for k in t.INTEGRALS}
TEXT = st.text(st.sampled_from("ab é😀ßΣ,\n0"), max_size=8)
FLOATS = st.floats() | st.sampled_from([0.0, -0.0, math.nan, 2.0**63, -(2.0**63), 1e300])


def values(
    session: Session,
    schema: str,
    rows: list[tuple[Any, ...]],
    make: Any,  # noqa: ANN401
) -> list[Any]:
    return [row[0] for row in session.createDataFrame(rows, schema).select(make).collect()]


def attempt(run: Callable[[], Any]) -> Any:  # noqa: ANN401
    try:
        return run()
    except ChukonuError as error:
        return error.condition


def java_remainder(a: int, b: int) -> int:
    return abs(a) % abs(b) * (-1 if a < 0 else 1)


EDGES = [0, 1, -1, 2, -7]


@pytest.mark.parametrize("symbol", ["+", "-", "*", "%"])
@pytest.mark.parametrize("name", KINDS)
def test_integers_never_wrap(session: Session, symbol: str, name: str) -> None:
    kind = KINDS[name]
    edges = [*EDGES, kind.largest, kind.smallest, kind.largest // 2 + 1]
    c = F.col
    made: Any = {"+": c("a") + c("b"), "-": c("a") - c("b"), "*": c("a") * c("b")}
    made = made.get(symbol, c("a") % c("b"))
    for a in edges:
        for b in edges:
            if symbol == "%":
                expected: Any = java_remainder(a, b) if b else "REMAINDER_BY_ZERO"
            else:
                exact = {"+": a + b, "-": a - b, "*": a * b}[symbol]
                fits = kind.smallest <= exact <= kind.largest
                small = "BINARY_" if kind in (t.BYTE, t.SHORT) else ""
                expected = exact if fits else f"{small}ARITHMETIC_OVERFLOW"
            frame = session.createDataFrame([(a, b)], f"a {name}, b {name}").select(made)
            found = attempt(lambda f=frame: f.collect()[0][0])  # type: ignore[misc]
            assert found == expected, (a, b)


@given(st.lists(FLOATS | st.none(), max_size=12))
def test_order_of_floats(session: Session, found: list[float | None]) -> None:
    """Nulls first, then numbers, then NaN; descending the other way round."""

    def key(value: float | None) -> tuple[int, float]:
        if value is None:
            return (0, 0)
        return (2, 0) if math.isnan(value) else (1, value)

    frame = session.createDataFrame([(v,) for v in found], "v DOUBLE")
    up = [key(r.v) for r in frame.orderBy("v").collect()]
    assert up == sorted(map(key, found))
    down = [key(r.v) for r in frame.orderBy(F.desc("v")).collect()]
    assert down == sorted(map(key, found), reverse=True)
    real = [v for v in found if v is not None]
    (row,) = frame.agg(F.min("v").alias("low"), F.max("v").alias("high")).collect()
    assert key(row.low) == (key(min(real, key=key)) if real else (0, 0))
    assert key(row.high) == (key(max(real, key=key)) if real else (0, 0))
    groups = frame.groupBy("v").count().collect()
    assert len(groups) == len({key(v) for v in found})


@given(st.lists(FLOATS, min_size=1, max_size=5), st.sampled_from(list(KINDS)))
def test_cast_of_floats_to_integers(session: Session, found: list[float], name: str) -> None:
    kind = KINDS[name]
    for value in found:
        whole = None if not math.isfinite(value) else math.trunc(value)
        if whole is not None and kind.smallest <= whole <= kind.largest:
            expected: Any = whole
        else:
            expected = kind.largest if value == 2.0**63 and kind == t.LONG else "CAST_OVERFLOW"
        made = F.col("v").cast(name)
        frame = session.createDataFrame([(value,)], "v DOUBLE").select(made)
        assert attempt(lambda f=frame: f.collect()[0][0]) == expected, value  # type: ignore[misc]
        tried = values(session, "v DOUBLE", [(value,)], F.col("v").try_cast(name))[0]
        assert tried == (None if expected == "CAST_OVERFLOW" else expected)


@given(st.text(st.sampled_from("0123456789+-. eEdx\t\n\x7f\u00a0٣"), max_size=6))
def test_cast_of_strings_to_integers(session: Session, text: str) -> None:
    bare = text.strip("".join(map(chr, range(0x21))) + "\x7f")
    good = re.fullmatch(r"[+-]?[0-9]+", bare)
    found = values(session, "v STRING", [(text,)], F.col("v").try_cast("int"))[0]
    assert found == (int(bare) if good else None)
    if not good:
        with pytest.raises(NumberFormatException, match="CAST_INVALID_INPUT"):
            values(session, "v STRING", [(text,)], F.col("v").cast("int"))


@settings(max_examples=60)
@given(TEXT, st.integers(-10, 10), st.integers(-3, 10))
def test_strings_count_code_points(session: Session, text: str, start: int, count: int) -> None:
    row = [(text, start, count)]
    schema = "s STRING, a INT, n INT"
    assert values(session, schema, row, F.length("s")) == [len(text)]
    begin = start - 1 if start > 0 else len(text) + start if start < 0 else 0
    picked = "".join(ch for i, ch in enumerate(text) if begin <= i < begin + count)
    assert values(session, schema, row, F.substr("s", "a", "n")) == [picked]
    assert values(session, schema, row, F.reverse("s")) == [text[::-1]]


def spark_double(text: str) -> float:
    return float(text.replace("Infinity", "inf"))


@given(FLOATS)
def test_doubles_as_text(value: float) -> None:
    text = java_double(value)
    back = spark_double(text)
    assert back == value or (math.isnan(back) and math.isnan(value))
    assert math.copysign(1, back) == math.copysign(1, value) or math.isnan(value)
    plain = value == 0 or 1e-3 <= abs(value) < 1e7
    assert ("E" in text) == (math.isfinite(value) and not plain)
    assert re.fullmatch(r"-?(\d+\.\d+|\d\.\d+E-?\d+|Infinity)|NaN", text), text


@given(st.lists(st.integers(t.LONG.smallest, t.LONG.largest) | st.none(), max_size=6))
def test_sums_are_exact_or_errors(session: Session, found: list[int | None]) -> None:
    frame = session.createDataFrame([(v,) for v in found], "v BIGINT").repartition(3)
    real = [v for v in found if v is not None]
    total = sum(real)
    if not t.LONG.smallest <= total <= t.LONG.largest:
        with pytest.raises(ArithmeticException, match="ARITHMETIC_OVERFLOW"):
            frame.agg(F.sum("v")).collect()
        return
    (row,) = frame.agg(F.sum("v").alias("s"), F.avg("v").alias("a")).collect()
    assert row.s == (total if real else None)
    if real:
        assert math.isclose(row.a, Fraction(total, len(real)), rel_tol=1e-9, abs_tol=1e-300 + 4096)


def test_names_do_not_mind_case(session: Session) -> None:
    frame = session.createDataFrame([(1, (2,))], "Id INT, s STRUCT<Part: INT>")
    assert frame.select("ID", frame.id, frame["iD"], "S.part").columns == ["Id", "Id", "Id", "part"]
    assert frame.withColumn("ID", F.lit(5)).columns == ["ID", "s"]
    with pytest.raises(AnalysisException, match="AMBIGUOUS_REFERENCE"):
        frame.select("id", F.lit(1).alias("ID")).select("id")
    with pytest.raises(UnsupportedError, match=r"DataFrame\.rollup"):
        frame.rollup  # noqa: B018


def test_faults_stay_where_they_are_not_reached(session: Session) -> None:
    c = F.col
    rows = [(0, 1), (2, 4), (None, 3)]
    schema = "a INT, b INT"
    guarded = F.when(c("a") != 0, c("b") / c("a")).otherwise(-1.0)
    assert values(session, schema, rows, guarded) == [-1.0, 2.0, -1.0]
    assert values(session, schema, rows, (c("a") == 0) | (c("b") / c("a") > 1)) == [
        True,
        True,
        None,
    ]
    filtered = session.createDataFrame(rows, schema).filter(c("a") != 0)
    assert [r[0] for r in filtered.select(c("b") / c("a")).collect()] == [2.0]
    with pytest.raises(ArithmeticException, match="DIVIDE_BY_ZERO"):
        session.createDataFrame(rows, schema).withColumn("q", c("b") / c("a")).filter(
            c("q") > 9
        ).collect()


PATTERNS = [
    "a",
    "[^a]b",
    r"\d+",
    r"\w\W",
    "a|b",
    "(a|é)+",
    "a{1,2}b?",
    "^a",
    "b$",
    r"\s",
    ".",
    "a.b",
]


@given(st.sampled_from(PATTERNS), TEXT)
def test_patterns(session: Session, pattern: str, text: str) -> None:
    """Python's engine, told to be ASCII, is close enough to Java's for these."""
    python = pattern.replace(".", "[^\n\r\u0085\u2028\u2029]")
    expected = re.search(python, text, re.ASCII) is not None
    assert values(session, "s STRING", [(text,)], F.col("s").rlike(pattern)) == [expected]


@pytest.mark.parametrize(
    "pattern",
    ["(?=a)", r"(a)\1", "a++", r"\bword", "[a&&b]", "[[a]]", "(?i)a", "a{,3}", "(a*)*", "a$|b", "(",
     r"\p{L}", "a)", "*a", r"[\D]"],
)  # fmt: skip
def test_patterns_that_mean_something_else_are_refused(pattern: str) -> None:
    with pytest.raises(UnsupportedError, match="regular expression"):
        translate(pattern)


def test_patterns_that_match_nothing_are_refused(session: Session) -> None:
    frame = session.createDataFrame([("ab",)], "s STRING")
    with pytest.raises(UnsupportedError, match="regexp_replace"):
        frame.select(F.regexp_replace("s", "a*", "-")).collect()
