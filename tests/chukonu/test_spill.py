"""Wide operations that go through files give what they give in memory, and leave no files."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import pytest

from superfs.chukonu import Session, Window
from superfs.chukonu import functions as F
from superfs.chukonu.embedded.exchange import Files
from superfs.chukonu.errors import MemoryExceeded
from superfs.chukonu.sinks.target import LocalTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LITTLE = 100_000
HOWS = ("inner", "left", "right", "outer", "left_semi", "left_anti")
KEYS = [None, 0.0, -0.0, math.nan, 1.5, math.inf]


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Session]:
    folder = tmp_path / "spill"
    folder.mkdir()
    options = Session.builder.config("chukonu.memory.bytes", 50).config("chukonu.threads", 2)
    with options.config("chukonu.local.dir", folder).getOrCreate() as session:
        yield session
    assert not list(folder.iterdir())


def rows(session: Session) -> Any:  # noqa: ANN401
    data = [(KEYS[i % 6], f"g{i % 17}", i, i % 5) for i in range(600)]
    frame = session.createDataFrame(data, "k DOUBLE, g STRING, i INT, m INT")
    return frame.repartition(7)


@pytest.fixture
def tiniest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """All goes to files, and what has been divided is divided again, as often as that helps."""
    folder = tmp_path / "spill"
    folder.mkdir()
    options = Session.builder.config("chukonu.memory.bytes", LITTLE).config("chukonu.threads", 2)
    with options.config("chukonu.local.dir", folder).getOrCreate() as session:
        monkeypatch.setattr(session.executor.budget, "part_bytes", 100)
        monkeypatch.setattr(session.executor.budget, "hold", lambda _: False)
        yield session
    assert not list(folder.iterdir())


def one_key(frame: Any, how: str) -> Any:  # noqa: ANN401
    """Most rows of both sides have one key, some have others, or none."""
    key = F.when(F.col("i") % 7 == 0, F.col("g")).when(F.col("i") % 11 != 0, "all")
    few = frame.filter(F.col("i") % 40 == 3).select(key.alias("h"), F.col("i").alias("j"))
    few = few.union(frame.filter(F.col("i") > 590).select(F.lit("none").alias("h"), "i"))
    return frame.select(key.alias("k"), "i").join(few, F.col("k") == F.col("h"), how)


ordered = Window.orderBy("m", F.desc("i"))
PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "sums": lambda d: d.groupBy("g").agg(F.sum("i"), F.avg("i"), F.count("*"), F.max("k")),
    "floats": lambda d: d.groupBy("k").agg(F.count("*"), F.min("i")),
    "lists": lambda d: d.groupBy("g").agg(F.sort_array(F.collect_list("i"))),
    "distinct": lambda d: d.select("k", "m").distinct(),
    "first of equal": lambda d: d.orderBy("i").dropDuplicates(["g", "m"]),
    "join": lambda d: d.join(d.select("g", F.col("i").alias("j")).filter(F.col("j") < 99), "g"),
    "join floats": lambda d: (
        d.alias("a")
        .join(d.alias("b"), F.col("a.k") == F.col("b.k"))
        .select(F.col("a.i"), F.col("b.i").alias("j"))
    ),
    "outer": lambda d: d.filter(F.col("m") > 2).join(
        d.filter(F.col("m") < 2).select("g", F.col("i").alias("j")), "g", "outer"
    ),
    "left of nothing": lambda d: d.join(d.filter(F.col("i") < 0).select("g", "m"), "g", "left"),
    "anti": lambda d: d.join(d.filter(F.col("g") == "g3").select("g"), "g", "left_anti"),
    **{f"one key {how}": functools.partial(one_key, how=how) for how in HOWS},
    "cross": lambda d: d.filter(F.col("i") < 60).select("i").crossJoin(d.select("m", "g")),
    "statistics": lambda d: d.groupBy("m").agg(F.stddev("i"), F.max_by("g", "i"), F.first("m")),
    "distinct values": lambda d: d.groupBy("m").agg(F.count_distinct("g"), F.sum_distinct("i")),
    "one row of many": lambda d: d.select(F.lit("x").alias("x"), "m").dropDuplicates(["x", "m"]),
    "window of all": lambda d: d.select("i", F.row_number().over(ordered).alias("n")),
    "running": lambda d: d.select("i", F.sum("i").over(ordered), F.lag("g", 2).over(ordered)),
    "counted": lambda d: d.select("g", F.count("*").over(Window.partitionBy(F.lit(1)))),
    "repartition": lambda d: d.repartition(3, "g").coalesce(1),
    "window": lambda d: d.select("i", F.row_number().over(Window.partitionBy("g").orderBy("i"))),
}


def plain(found: list[Any]) -> list[str]:
    return sorted(repr([0.0 if v == 0 else v for v in row]) for row in found)


@pytest.mark.parametrize("name", PROGRAMS)
def test_same_rows(
    name: str, session: Session, tiny: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    added: list[int] = []
    add = Files.add

    def counted(self: Files, frame: Any) -> None:  # noqa: ANN401
        added.append(frame.height)
        add(self, frame)

    monkeypatch.setattr(Files, "add", counted)
    make = PROGRAMS[name]
    expected = plain(make(rows(session)).collect())
    assert not added
    assert plain(make(rows(tiny)).collect()) == expected
    assert sum(added) > 0


@pytest.mark.parametrize("name", PROGRAMS)
def test_same_rows_of_files_that_are_divided_again(
    name: str, session: Session, tiniest: Session
) -> None:
    make = PROGRAMS[name]
    assert plain(make(rows(tiniest)).collect()) == plain(make(rows(session)).collect())


ORDERS: dict[str, list[Any]] = {
    "strings": ["g", F.desc("i")],
    "nulls last": [F.col("k").desc(), F.asc("i")],
    "few values": ["m"],
    "one value": [F.lit(1)],
    "sorted already": ["i"],
    "floats": ["k", F.desc("g")],
}


@pytest.mark.parametrize("kind", ["tiny", "tiniest"])
@pytest.mark.parametrize("name", ORDERS)
def test_order(name: str, kind: str, session: Session, request: pytest.FixtureRequest) -> None:
    """That of the rows of one value is the order in which they came, as in memory."""
    spilling = request.getfixturevalue(kind)
    made = [rows(s).orderBy(*ORDERS[name]).collect() for s in (session, spilling)]
    assert list(map(repr, made[1])) == list(map(repr, made[0]))


def test_a_group_that_is_more_than_the_budget_is_an_error(tiniest: Session) -> None:
    frame = rows(tiniest).crossJoin(rows(tiniest).select(F.col("g").alias("h")))
    frame = frame.groupBy().agg(F.collect_list("h"))
    with pytest.raises(MemoryExceeded, match=r"CHUKONU_MEMORY.*100,000") as found:
        frame.collect()
    del found  # with its trace, in which the files are


def test_parts_of_another_budget_are_not_taken(
    session: Session, tiny: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that stopped with its rows divided among files goes on in memory, where its parts are
    others."""
    source, out = tmp_path / "in", tmp_path / "out"
    rows(session).write.parquet(str(source))

    def job(s: Session) -> Any:  # noqa: ANN401
        return s.read.parquet(str(source)).groupBy("g").agg(F.collect_list("i").alias("n"))

    puts: list[str] = []
    put = LocalTarget.put

    def stopping(self: LocalTarget, path: str, data: bytes) -> None:
        puts.append(path)
        if len(puts) > 20:
            raise OSError(28, "No space left on device")
        put(self, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(LocalTarget, "put", stopping)
        with pytest.raises(OSError, match="No space"):
            job(tiny).write.parquet(str(out))
    job(session).write.parquet(str(out))
    assert plain(session.read.parquet(str(out)).collect()) == plain(job(session).collect())
    assert len(list(out.glob("part-*"))) == 1
    assert not list(tmp_path.glob(".out*"))


def test_an_iterator_that_is_left_holds_up_nobody(tiny: Session) -> None:
    left = rows(tiny).toLocalIterator()
    next(left)
    assert rows(tiny).count() == 600
    left.close()


def test_what_is_finished_in_memory_is_written_by_all_threads(tmp_path: Path) -> None:
    """In order, the same for any number of them, and counted once."""
    text = "some text that makes rows large enough " * 5
    rows = [(i * 7919 % 100_003, text) for i in range(100_000)]
    for threads, parts in ((1, 1), (3, 3)):
        with Session.builder.config("chukonu.threads", threads).getOrCreate() as session:
            frame = session.createDataFrame(rows, "i INT, s STRING")
            out = tmp_path / f"{threads}"
            frame.dropDuplicates(["i"]).orderBy("i").write.parquet(str(out))
            assert len(list(out.glob("part-*"))) == parts
            found = session.read.parquet(str(out)).select("i").toArrow()
            assert found["i"].to_pylist() == sorted(i for i, _ in rows)
            frame.dropDuplicates(["i"]).orderBy("i").count()
            counts = session.executor.last_run.statistics()["operators"]
            wide = [o for o in counts if o["operator"].startswith(("Distinct", "Sort"))]
            assert [o["rows_in"] for o in wide] == [o["rows_out"] for o in wide] == [len(rows)] * 2
