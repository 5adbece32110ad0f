"""Array functions that Polars computes for plain elements, against those of Python, which real
Spark's answers are compared with for every type."""

from __future__ import annotations

import random
from typing import Any

import pytest

from superfs.chukonu import Session
from superfs.chukonu import functions as F
from superfs.chukonu.catalog import arrays

NAMES_TEXT = """
array_distinct array_sort array_max array_min array_compact reverse array_except array_intersect
array_union array_contains
"""
NAMES = NAMES_TEXT.split()


def rows() -> list[tuple[Any, ...]]:
    rng = random.Random(3)
    texts = ["a", "b", "ab", "", "é", "😀", "\uffff", None]
    numbers = [0, 1, -1, 2**31 - 1, None, 7]

    def some(values: list[Any]) -> list[Any] | None:
        found = [rng.choice(values) for _ in range(rng.randrange(6))]
        return None if rng.random() < 0.1 else found

    return [
        (some(texts), some(texts), rng.choice(texts), some(numbers), some(numbers))
        for _ in range(400)
    ]


def made(name: str, one: str, other: Any, wanted: Any) -> Any:  # noqa: ANN401
    function = getattr(F, name)
    if name == "array_contains":
        return function(one, wanted)
    two = name in ("array_except", "array_intersect", "array_union")
    return function(one, other) if two else function(one)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_by_both_ways(
    session: Session, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    schema = "a ARRAY<STRING>, b ARRAY<STRING>, s STRING, i ARRAY<INT>, j ARRAY<INT>"
    frame = session.createDataFrame(rows(), schema).repartition(3)
    some = F.array(F.lit("b"), F.lit("é"), F.lit("a"))
    columns = [
        made(name, "a", "b", F.col("s")).alias("x"),
        made(name, "a", some, F.lit("é")).alias("y"),
        made(name, "i", "j", F.lit(7)).alias("z"),
    ]
    found = frame.select("a", "b", "i", "j", *columns).collect()
    with monkeypatch.context() as patched:
        patched.setattr(arrays, "PLAIN", ())
        assert found == frame.select("a", "b", "i", "j", *columns).collect()


def test_explode_beside_other_columns(session: Session) -> None:
    frame = session.createDataFrame([(1, ["a", "b"]), (2, []), (3, None)], "i INT, a ARRAY<STRING>")
    assert frame.select("i", F.explode("a").alias("x"), "a").collect() == [
        (1, "a", ["a", "b"]),
        (1, "b", ["a", "b"]),
    ]
    assert frame.select(F.explode_outer("a").alias("x")).collect() == [
        ("a",),
        ("b",),
        (None,),
        (None,),
    ]
    assert frame.select("i", F.explode_outer("a").alias("x")).groupBy("i").count().count() == 3
    assert frame.select(F.explode("a")).count() == 2
