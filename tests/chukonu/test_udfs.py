"""Python functions in plans: rows, Arrow arrays, and classes that are set up once a worker."""

from __future__ import annotations

import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest

from superfs.chukonu import functions as F
from superfs.chukonu.errors import RuntimeException, UnsupportedError
from superfs.chukonu.native import pa
from superfs.chukonu.udf import PerWorker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.chukonu import Session


class Counting:
    made = 0
    lock = threading.Lock()

    def __init__(self) -> None:
        with self.lock:
            type(self).made += 1
        self.before = "<"

    def __call__(self, value: str | None) -> str | None:
        return None if value is None else f"{self.before}{value}>"


class Doubled:
    def __init__(self) -> None:
        self.times = 2

    def __call__(self, values: Any) -> Any:  # noqa: ANN401
        assert isinstance(values, pa.Array)
        return pa.array([None if v is None else v * self.times for v in values.to_pylist()])


def frame(session: Session) -> Any:  # noqa: ANN401
    rows = [("a", 1, [1, None], {"k": 1}), (None, None, None, None), ("é😀", -5, [], {})]
    return session.createDataFrame(rows, "s STRING, i INT, a ARRAY<INT>, m MAP<STRING, INT>")


def test_arrow_arrays_have_the_small_types(session: Session) -> None:
    seen: list[str] = []

    def look(*arrays: Any) -> Any:  # noqa: ANN401
        seen[:] = [str(array.type) for array in arrays]
        return arrays[0]

    made = F.arrow_udf(look, "string")("s", "i", "a", F.lit(7))
    found = frame(session).select(made.alias("x")).collect()
    assert [row["x"] for row in found] == ["a", None, "é😀"]
    assert seen[:2] == ["string", "int32"]
    assert seen[2].startswith("list<")


def test_what_an_arrow_function_gives_is_checked(session: Session) -> None:
    d = frame(session)
    wrong = {
        "gave 2 values for 3 rows": lambda a: a.slice(1),
        "gave a list": lambda a: a.to_pylist(),
        "Failed to parse": lambda _: pa.array(["1", "x", "2"]),
        "out of bounds|not in range|Integer value": lambda _: pa.array([1, 2**40, 3]),
    }
    for text, function in wrong.items():
        with pytest.raises(RuntimeException, match=text):
            d.select(F.arrow_udf(function, "int")("i")).collect()
    assert d.select(F.arrow_udf(lambda a: a.cast("int64"), "int")("i").alias("x")).count() == 3


def test_arrow_functions_may_be_decorators_and_stand_in_filters(session: Session) -> None:
    @F.arrow_udf("boolean")  # type: ignore[untyped-decorator]
    def positive(values: Any) -> Any:  # noqa: ANN401
        return pa.array([v is not None and v > 0 for v in values.to_pylist()])

    assert [row["i"] for row in frame(session).filter(positive("i")).collect()] == [1]
    assert frame(session).filter(positive(F.lit(1))).count() == 3


def test_classes_are_set_up_once_for_each_worker(session: Session) -> None:
    Counting.made = 0
    marked = F.udf(Counting, "string")
    d = frame(session)
    for _ in range(3):
        found = d.repartition(5).select(marked("s").alias("x")).collect()
        assert sorted(row["x"] or "" for row in found) == ["", "<a>", "<é😀>"]
    assert 1 <= Counting.made <= session.threads
    twice = F.arrow_udf(Doubled, "int")
    assert [row[0] for row in d.select(twice("i")).collect()] == [2, None, -10]


def test_copies_of_one_class_are_one_in_a_process() -> None:
    marked = PerWorker(Counting, "some key")
    copies = [pickle.loads(pickle.dumps(marked)) for _ in range(2)]
    assert copies[0] is copies[1]
    assert copies[0]("x") == "<x>"


def test_what_is_not_there_is_refused(session: Session) -> None:
    def many(parts: Iterator[Any]) -> Iterator[Any]:
        yield from parts

    with pytest.raises(UnsupportedError, match="iterators"):
        F.arrow_udf(many, "int")
    with pytest.raises(UnsupportedError, match="without a return type"):
        F.arrow_udf(len)
    with pytest.raises(UnsupportedError, match="without arguments"):
        F.arrow_udf(len, "int")()
    with pytest.raises(UnsupportedError, match="scalar"):
        F.arrow_udf(len, "int", 252)
