"""Recipes: what is wrong with one is said with its line, before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from superfs.chukonu import Session
from superfs.chukonu import functions as F
from superfs.chukonu.recipe import RecipeError, load
from superfs.chukonu.recipe.recipe import loads
from superfs.cli.main import main

if TYPE_CHECKING:
    from superfs.chukonu.recipe import Recipe

EXAMPLE = Path(__file__).parents[2] / "examples" / "clean_text.yaml"
ROWS = 200


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in"
    path.mkdir()
    lines = [json.dumps({"id": i, "text": "word " * (i % 20) + f"{i % 50}"}) for i in range(ROWS)]
    (path / "a.json").write_text("\n".join([*lines, "junk"]) + "\n")
    (tmp_path / "blocked.json").write_text('{"id": 7}\n{"id": 27}\n')
    return path


def recipe(source: Path, steps: str, write: str = "") -> Recipe:
    top = f"version: 1\nread:\n  format: json\n  path: {source}\n"
    top += "  schema: id INT, text STRING\n  options: {mode: DROPMALFORMED}\n"
    return loads(f"{top}steps:\n{steps}{write}")


STEPS = """\
  - withColumns: {words: 'size(split(text, " "))', kind: "when(id < 50, 1).otherwise(2)"}
  - filter: {keep: 3 < words <= 15 and not text.endswith("13"), reason: words}
  - filter: id not in [40, 41] and text is not None
  - dropDuplicates: [text]
  - join: {with: {read: {format: json, path: BLOCKED, schema: id INT}}, on: id, how: left_anti}
  - groupBy: {by: [kind, {odd: id % 2 == 1}], agg: {n: count("*"), most: max(words)}}
  - withColumns: {r: "row_number().over(Window.partitionBy(kind).orderBy(n.desc(), odd))"}
  - orderBy: [kind, r]
"""


def test_it_does_what_the_program_does(session: Session, source: Path) -> None:
    blocked = source.parent / "blocked.json"
    found = recipe(source, STEPS.replace("BLOCKED", str(blocked))).frame(session)
    from superfs.chukonu import Window

    frame = session.read.option("mode", "DROPMALFORMED").json(str(source), "id INT, text STRING")
    frame = frame.withColumns(
        {
            "words": F.size(F.split("text", " ")),
            "kind": F.when(F.col("id") < 50, 1).otherwise(2),
        }
    )
    frame = frame.filter((F.col("words") > 3) & (F.col("words") <= 15))
    frame = frame.filter(~F.col("text").endswith("13") & ~F.col("id").isin(40, 41))
    frame = frame.dropDuplicates(["text"])
    frame = frame.join(session.read.json(str(blocked), "id INT"), "id", "left_anti")
    frame = frame.groupBy("kind", (F.col("id") % 2 == 1).alias("odd"))
    frame = frame.agg(F.count("*").alias("n"), F.max("words").alias("most"))
    window = Window.partitionBy("kind").orderBy(F.desc("n"), "odd")
    frame = frame.withColumn("r", F.row_number().over(window)).orderBy("kind", "r")
    rows = frame.collect()
    assert found.collect() == rows
    assert found.columns == ["kind", "odd", "n", "most", "r"]
    assert len(rows) == 4


WRONG = {
    "  - filtre: id > 1\n": "8: steps[0].filtre: is no step; there are: select",
    "  - filter: id >\n": "8: steps[0].filter: 'id >': invalid syntax",
    "  - limit: 3\n  - filter: nothing > 1\n": "9: steps[1].filter: [UNRESOLVED_COLUMN]",
    "  - filter: __import__('os')\n": "there is no function __import__",
    "  - filter: id.__class__('os')\n": "there is no method __class__",
    "  - filter: id.expr()\n": "there is no method expr",
    "  - filter: (lambda x=1 -> x)\n": "8: steps[0].filter",
    '  - filter: "[i for i in id]"\n': "is not for recipes",
    "  - filter: udf(id) > 1\n": "there is no function udf",
    "  - filter: id\n": "[DATATYPE_MISMATCH] a filter must be boolean",
    "  - filter: {keep: id > 1, why: no}\n": "8: steps[0].filter.why: is not known",
    "  - limit: many\n": "8: steps[0].limit: must be a whole number, not 'many'",
    "  - limit: true\n": "must be a whole number, not True",
    "  - sample: {fraction: 1.5}\n": "8: steps[0].sample.fraction: must be from 0 to 1",
    "  - groupBy: {by: [id]}\n": "8: steps[0].groupBy: lacks 'agg'",
    "  - select: [id, {x: shape(id)}]\n": "8: steps[0].select[1].x: 'shape(id)': there is no",
    "  - limit: 1\n    drop: id\n": "8: steps[0]: must be one step",
    "  - join: {with: {read: {path: x, format: xml}}, on: id}\n": "'xml' is none of json",
    "  - {limit: 1, limit: 2}\n": "8: steps[0].limit: is there twice",
    "  - [\n": "not YAML",
}


@pytest.mark.parametrize("steps", WRONG)
def test_what_is_wrong_is_said_with_its_line(session: Session, source: Path, steps: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(source, steps).frame(session)
    assert WRONG[steps] in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "recipe: is empty"),
        ("version: 2\nread: {path: x}\n", "recipe:1: version: must be 1"),
        ("version: 1\n", "recipe:1: lacks 'read'"),
        ("version: 1\nread: {path: x, schema: id INTEGRE}\n", "2: read.schema"),
        ("version: 1\nread: {path: x, options: {mood: x}}\n", "options.mood: is not known"),
        ("version: 1\nread: {path: x}\nwrite: {path: y, mode: append}\n", "'append' is none of"),
        ("version: 1\nread: {path: x}\nsession: {memory: much}\n", "no size like 512 MiB"),
        ("version: 1\nread: {path: !!python/name:os.system x}\n", "not YAML"),
    ],
)
def test_the_rest_of_the_document(text: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        loads(text)
    assert words in str(caught.value)


def test_the_example_is_one() -> None:
    found = load(EXAMPLE)
    assert found.settings == {"chukonu.memory.bytes": str(4 << 30)}
    assert found.output is not None


def test_the_example_runs(tmp_path: Path) -> None:
    raw, clean, bad = tmp_path / "raw", tmp_path / "clean", tmp_path / "bad"
    raw.mkdir()
    good = "the quick brown fox jumps over the lazy dog " * 8
    texts = [good, good, good.upper(), "short", good + "{", good + "Lorem Ipsum", "1 " * 90, None]
    lines = [json.dumps({"id": i, "url": "u", "text": x}) for i, x in enumerate(texts)]
    (raw / "docs.json").write_text("\n".join([*lines, "junk"]) + "\n")
    text = EXAMPLE.read_text().replace("0.01", "0.5").replace("/mnt/raw/docs", str(raw))
    text = text.replace("/mnt/clean/docs", str(clean)).replace("/var/tmp/clean_text.bad", str(bad))
    path = tmp_path / "job.yaml"
    path.write_text(text)
    main_ok(["chukonu", "run", str(path), "-q"])
    with Session.builder.getOrCreate() as session:
        assert sorted(r["id"] for r in session.read.parquet(str(clean)).collect()) == [0, 2]
    assert len(list(bad.iterdir())) == 1


def main_ok(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 0


def job(source: Path, **more: Any) -> Path:  # noqa: ANN401
    out = source.parent / "out"
    text = f"version: 1\nread: {{format: json, path: {source}, schema: 'id INT, text STRING',"
    text += f" options: {{mode: DROPMALFORMED, badRecordsPath: {source.parent}/bad}}}}\n"
    text += "steps:\n  - filter: {keep: id % 2 == 0, reason: odd}\n"
    text += f"write: {{path: {out}, mode: {more.get('mode', 'error')}}}\n"
    path = source.parent / "job.yaml"
    path.write_text(text)
    return path


def test_the_command(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = source.parent / "out"
    main_ok(["chukonu", "run", str(job(source)), "--dry-run"])
    shown = capsys.readouterr().out
    assert "nothing written" in shown
    assert "101 odd" not in shown
    assert "100 odd" in shown
    assert not out.exists()
    assert not (source.parent / "bad").exists()
    main_ok(["chukonu", "run", str(job(source)), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 100
    assert found["statistics"]["operators"][1]["dropped"] == {"odd": 100}
    assert (source.parent / "bad").exists()
    with pytest.raises(SystemExit) as caught:
        main(["chukonu", "run", str(job(source))])
    assert caught.value.code == 2
    assert "PATH_ALREADY_EXISTS" in capsys.readouterr().err
    main_ok(["chukonu", "run", str(job(source, mode="overwrite"))])
    shown = capsys.readouterr().out
    assert "100 rows in" in shown
    assert "by directory" in shown
    main_ok(["chukonu", "run", str(job(source, mode="ignore"))])
    assert "is there already" in capsys.readouterr().out


def test_a_sample_is_read_here_and_there(session: Session, tmp_path: Path) -> None:
    lines = "".join(json.dumps({"i": i, "s": "x" * 1000}) + "\n" for i in range(6000))
    (tmp_path / "a.json").write_text(lines)
    text = f"version: 1\nread: {{format: json, path: {tmp_path}}}\n"
    found = loads(text).frame(session, 2 << 20).collect()
    numbers = {row["i"] for row in found}
    assert 1500 < len(numbers) < 3000
    assert min(numbers) == 0
    assert max(numbers) > 3000


def test_csv_has_its_options(session: Session, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id;when\n1;2024-02-29 10:00:00\n2;2024-03-01\n")
    text = f"""version: 1
read:
  format: csv
  path: {tmp_path}/in.csv
  options: {{header: true, sep: ;, inferSchema: true}}
steps:
  - withColumns: {{day: 'date_format(when, "yyyy/MM/dd")'}}
write:
  format: csv
  path: {tmp_path}/out
  options: {{header: true, quoteAll: true}}
"""
    loads(text).run(session)
    (part,) = (tmp_path / "out").glob("part-*")
    lines = part.read_text().splitlines()
    assert lines[0] == '"id","when","day"'
    assert lines[1] == '"1","2024-02-29T10:00:00.000Z","2024/02/29"'
    with pytest.raises(RecipeError, match=r"options\.header: is not known"):
        loads(text.replace("format: csv", "format: json"))
