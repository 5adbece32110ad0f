"""Wide operations that go through files give what they give in memory, and leave no files."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from superfs.chukonu import Session, Window
from superfs.chukonu import functions as F
from superfs.chukonu.embedded import spill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

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
    "window": lambda d: d.select("i", F.row_number().over(Window.partitionBy("g").orderBy("i"))),
}


def plain(found: list[Any]) -> list[str]:
    return sorted(repr([0.0 if v == 0 else v for v in row]) for row in found)


@pytest.mark.parametrize("name", PROGRAMS)
def test_same_rows(
    name: str, session: Session, tiny: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    added: list[int] = []
    add = spill.Spill.add

    def counted(self: spill.Spill, frame: Any) -> None:  # noqa: ANN401
        added.append(frame.height)
        add(self, frame)

    monkeypatch.setattr(spill.Spill, "add", counted)
    make = PROGRAMS[name]
    expected = plain(make(rows(session)).collect())
    assert not added
    assert plain(make(rows(tiny)).collect()) == expected
    assert sum(added) > 0
