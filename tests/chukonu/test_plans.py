"""What is planned: only needed columns are read, segments are fused, and it can be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from superfs.chukonu import Session
from superfs.chukonu import functions as F
from superfs.chukonu import types as t
from superfs.chukonu.ddl import parse_schema, parse_type
from superfs.chukonu.errors import AnalysisException, ParseException, UnsupportedError
from superfs.chukonu.plan import logical as p
from superfs.chukonu.plan.explain import explained
from superfs.chukonu.plan.fingerprint import fingerprint
from superfs.chukonu.plan.pruning import prune
from superfs.chukonu.plan.stages import cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def docs(session: Session, tmp_path: Path) -> Any:  # noqa: ANN401
    path = tmp_path / "in.json"
    path.write_text('{"id": 1, "text": "a b", "url": "u"}\n{"id": 2, "text": "c", "url": "v"}\n')
    return session.read.json(str(path), schema="id LONG, text STRING, url STRING")


def scans(plan: p.Node) -> Iterator[p.Scan]:
    if isinstance(plan, p.Scan):
        yield plan
    for child in plan.children:
        yield from scans(child)


def read(plan: p.Node) -> list[list[str]]:
    return [[c.name for c in scan.columns] for scan in scans(prune(plan))]


def test_only_needed_columns_are_read(docs: Any) -> None:  # noqa: ANN401
    assert read(docs.select("id").plan) == [["id"]]
    assert read(docs.withColumn("n", F.length("text")).select("id").plan) == [["id"]]
    assert read(docs.filter(F.col("url") == "u").select("id").plan) == [["id", "url"]]
    assert read(docs.groupBy("url").agg(F.count("*").alias("n"), F.sum("id")).drop("sum(id)").plan)
    assert read(docs.join(docs.select("id", "text"), "id").select("url").plan) == [
        ["id", "url"],
        ["id"],
    ]
    assert read(docs.union(docs).select("text").plan) == [["text"], ["text"]]
    assert read(docs.agg(F.count("*")).plan) == [["id"]]


def test_narrow_steps_are_one_segment(docs: Any) -> None:  # noqa: ANN401
    words = docs.filter(F.length("text") > 1).select(F.explode(F.split("text", " ")).alias("w"))
    counted = words.withColumn("w", F.upper("w")).groupBy("w").count()
    stage = cut(prune(counted.plan))
    assert isinstance(stage.root, p.Group)
    (below,) = stage.inputs
    assert isinstance(below.root, p.Scan)
    kinds = [type(step) for step in below.steps]
    assert kinds.count(p.Filter) == 1
    assert kinds.count(p.Generate) == 1
    text = explained(counted.plan)
    assert "stage (wide" in text
    assert "1 of 3 columns [text]" in text
    assert "shuffle of [w]" in text
    assert sorted(counted.collect()) == [("A", 1), ("B", 1)]


def test_fingerprints(docs: Any, session: Session) -> None:  # noqa: ANN401
    def job(limit: int) -> Any:  # noqa: ANN401
        return docs.filter(F.col("id") > limit).select((F.col("id") + 1).alias("x"))

    assert fingerprint(job(1).plan) == fingerprint(job(1).plan)
    assert fingerprint(job(1).plan) != fingerprint(job(2).plan)
    assert fingerprint(docs.select("id").plan) != fingerprint(docs.select("url").plan)
    rows = [session.createDataFrame([(i,)], "v INT").plan for i in (1, 1, 2)]
    assert fingerprint(rows[0]) == fingerprint(rows[1])
    assert fingerprint(rows[0]) != fingerprint(rows[2])
    assert fingerprint(docs.mapInArrow(lambda b: b, "id LONG").plan) is None


def test_map_in_arrow(docs: Any) -> None:  # noqa: ANN401
    import pyarrow as pa

    def run(batches: Any) -> Iterator[Any]:  # noqa: ANN401
        for batch in batches:
            sizes = pa.array([len(s.as_py()) for s in batch["text"]], pa.int32())
            yield pa.RecordBatch.from_arrays([batch["id"], sizes], ["id", "n"])

    assert docs.mapInArrow(run, "n INT, id LONG").orderBy("id").collect() == [(3, 1), (1, 2)]


def test_python_functions(session: Session) -> None:
    frame = session.createDataFrame([(1, "a"), (2, None)], "i INT, s STRING")
    twice = F.udf(lambda i: i * 2, "int")
    size = F.udf(lambda s: None if s is None else len(s), t.IntegerType())
    made = frame.select(twice("i").alias("x"), size("s").alias("n"), F.udf(lambda: "c")())
    assert made.collect() == [(2, 1, "c"), (4, None, "c")]
    with pytest.raises(AnalysisException, match="is not int"):
        frame.select(F.udf(lambda i: "x", "int")("i")).collect()


def test_limit_does_not_run_what_it_does_not_need(session: Session, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}.json").write_text('{"i": 1}\n' * 10)
    (tmp_path / "19.json").write_text("junk\n")
    reader = session.read.options(splitBytes=50, mode="FAILFAST")
    assert len(reader.json(str(tmp_path), schema="i INT").take(15)) == 15


def test_sample_is_the_same_for_any_cut(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text("".join(f'{{"i": {i}}}\n' for i in range(2000)))
    found = []
    for split_bytes in (100, 7000, 1 << 20):
        frame = session.read.option("splitBytes", split_bytes).json(str(path), schema="i INT")
        found.append([r.i for r in frame.sample(0.3, seed=5).collect()])
    assert found[0] == found[1] == found[2]
    assert 450 < len(found[0]) < 750
    assert found[0] != [r.i for r in frame.sample(0.3, seed=6).collect()]


@pytest.mark.parametrize("split_bytes", [30, 200, 1 << 20])
def test_survivors_are_the_first(session: Session, tmp_path: Path, split_bytes: int) -> None:
    """Of equal rows the one with the smallest path and offset stays, however files are cut."""
    for name in ("b", "a", "c"):
        text = "".join(f'{{"k": {i % 5}, "v": "{name}{i}"}}\n' for i in range(20))
        (tmp_path / f"{name}.json").write_text(text)
    reader = session.read.option("splitBytes", split_bytes)
    frame = reader.json(str(tmp_path), schema="k INT, v STRING")
    kept = frame.dropDuplicates(["k"]).collect()
    assert sorted(kept) == [(i, f"a{i}") for i in range(5)]


def test_schemas() -> None:
    text = "a INT, `b c` ARRAY<STRUCT<x: DOUBLE, y: STRING>> COMMENT 'z', d BIGINT NOT NULL"
    schema = parse_schema(text)
    assert schema.simpleString() == "struct<a:int,b c:array<struct<x:double,y:string>>,d:bigint>"
    assert schema == t.StructType().add("a", "int").add(
        "b c", parse_type("array<struct<x double, y string>>")
    ).add(t.StructField("d", t.LongType()))
    for wrong in ("a", "a INT,", "a INT b INT", "a ARRAY<INT", "a FOO", "a INT)"):
        with pytest.raises(ParseException):
            parse_schema(wrong)
    for refused in ("a TIMESTAMP_NTZ", "a VARCHAR(3)", "a INTERVAL"):
        with pytest.raises(UnsupportedError):
            parse_schema(refused)


def test_what_makes_no_sense_is_refused_before_it_runs(docs: Any) -> None:  # noqa: ANN401
    makers: tuple[Callable[[], Any], ...] = (
        lambda: docs.select("nope"),
        lambda: docs.filter(F.col("id")),
        lambda: docs.select(F.col("text") + 1),
        lambda: docs.select(F.upper("id")),
        lambda: docs.filter(F.count("*") > 1),
        lambda: docs.groupBy("id").agg(F.col("text")),
        lambda: docs.select(F.row_number()),
        lambda: docs.union(docs.select("id")),
        lambda: docs.select(F.col("text") == 1),
        lambda: docs.select(F.explode("text")),
        lambda: docs.dropDuplicates(["nope"]),
    )
    for make in makers:
        with pytest.raises(AnalysisException):
            make()
