"""The same scripts under Spark and under Chukonu. What Spark answered is in tests/golden
(`make spark-answers` asks it again); here Chukonu must answer the same, or refuse by name."""

from __future__ import annotations

import inspect
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from harness import (
    chukonucases,
    chukonuchains,
    chukonucsv,
    chukonufiles,
    chukonuprograms,
    chukonuspark,
)
from harness.chukonuagree import GOLDEN, REFUSALS, agree
from superfs.chukonu import Session, Window
from superfs.chukonu import functions as F
from superfs.chukonu.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STRICTER = ("json_permissive", "json_drop_malformed")
"""Spark takes an object with something behind it; a strict parser does not (docs/chukonu.md)."""
REFUSED_MAX = 65
CHAINS_REFUSED_MAX, CHAINS_MORE_MAX = 16, 3
"""Cases of which Chukonu says that it does not support them; Spark has an answer to some."""


@pytest.fixture(scope="module", autouse=True)
def files() -> Iterator[None]:
    yield
    shutil.rmtree(chukonufiles.folder())


@pytest.fixture(scope="module")
def frames(session: Session) -> list[Any]:
    rows, schema = chukonucases.ROWS, chukonucases.SCHEMA
    return [session.createDataFrame(part, schema) for part in (rows, *([row] for row in rows))]


@pytest.mark.parametrize("text", chukonucases.EXPRESSIONS)
def test_expression(text: str, frames: list[Any]) -> None:
    make = chukonucases.EXPRESSIONS[text]
    spark = GOLDEN["expressions"][text]
    parts = spark.get("each", [spark])
    asked = frames[:1] if "each" not in spark else frames[1:]
    for expected, frame in zip(parts, asked, strict=True):
        agree(expected, chukonuspark.attempt(lambda f=frame: f.select(make(F).alias("x"))))
    if "each" in spark:
        whole = chukonuspark.attempt(lambda: frames[0].select(make(F).alias("x")))
        assert "error" in whole


@pytest.mark.parametrize("name", chukonuprograms.PROGRAMS)
def test_program(name: str, session: Session) -> None:
    make: Callable[..., Any] = chukonuprograms.PROGRAMS[name]
    spark, ours = GOLDEN["programs"][name], chukonuspark.attempt(lambda: make(session, F, Window))
    if name in STRICTER:
        for answer in (spark, ours):
            answer["rows"] = [r for r in answer["rows"] if r[0] != 6 and "trail" not in str(r[-1])]
    agree(spark, ours)


@pytest.mark.parametrize("place", range(len(chukonuchains.CHAINS)))
def test_random_program(place: int, session: Session) -> None:
    """The rows of Spark, or an error; and the same rows however they are divided."""
    text = list(chukonuchains.CHAINS)[place]
    make, spark = chukonuchains.CHAINS[text], GOLDEN["chains"][text]
    ours = chukonuspark.attempt(lambda: make(session, F, Window))
    if "error" in ours and ours["error"] not in REFUSALS:
        assert "error" in spark, (text, ours)
        return
    if "error" not in spark:
        agree(spark, ours)
    divided = chukonuspark.attempt(lambda: make(session, F, Window, parts=7))
    agree(ours, divided)


def test_few_random_programs_are_refused(session: Session) -> None:
    """And few that give rows where Spark has an error, which a column that nobody needs has."""
    more = refused = 0
    for text, make in chukonuchains.CHAINS.items():
        ours = chukonuspark.attempt(lambda m=make: m(session, F, Window))
        more += "error" in GOLDEN["chains"][text] and "error" not in ours
        refused += ours.get("error") in REFUSALS
    assert refused <= CHAINS_REFUSED_MAX
    assert more <= CHAINS_MORE_MAX


def test_few_cases_are_refused(frames: list[Any]) -> None:
    made = chukonucases.EXPRESSIONS.values()
    answers = [chukonuspark.attempt(lambda m=m: frames[0].select(m(F).alias("x"))) for m in made]
    assert sum(a.get("error") in REFUSALS for a in answers) <= REFUSED_MAX


def test_every_function_of_the_table_is_asked(session: Session) -> None:
    """A function without a case is not published."""
    asked = " ".join(chukonucases.EXPRESSIONS) + inspect.getsource(chukonuprograms)
    asked += inspect.getsource(chukonucsv)
    missing = {name for name in F.supported() if f"F.{name}(" not in asked}
    others = {"first", "last", "udf", "arrow_udf", "sumDistinct"}  # by order; tried elsewhere
    assert not missing - F._SAME.keys() - others


def test_the_published_table_is_the_table() -> None:
    text = (chukonuspark.GOLDEN.parents[2] / "docs" / "chukonu.md").read_text()
    table = text.partition("### Functions")[2].partition("Regular expressions")[0]
    assert re.findall(r"[A-Za-z_0-9]+", table) == F.supported()
    assert len(F.supported()) >= 80
    assert set(F.supported()) <= set(GOLDEN["functions"])


def test_what_is_not_there_is_refused_by_name() -> None:
    for name in ("from_json", "window", "xxhash64", "anything"):
        with pytest.raises(UnsupportedError, match=name):
            getattr(F, name)
