"""What a run counts: rows by operator and reason, bytes by way, how far it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from superfs.chukonu import functions as F
from superfs.chukonu.counters import Counts, Run, Tally
from superfs.chukonu.sinks.target import LocalTarget

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.chukonu import Session

ROWS = 1000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in"
    path.mkdir()
    for part in range(4):
        lines = [json.dumps({"i": i, "s": f"text {i % 7}"}) for i in range(part, ROWS, 4)]
        lines += ['{"i": "x"}', '{"i": "yy"}', "junk"]
        (path / f"{part}.json").write_text("".join(line + "\n" for line in lines))
    return path


def clean(session: Session, source: Path) -> Any:  # noqa: ANN401
    reader = session.read.schema("i INT, s STRING").option("splitBytes", 4000)
    frame = reader.option("mode", "DROPMALFORMED").json(str(source))
    frame = frame.filter((F.col("i") % 2 == 0).alias("odd")).filter(F.col("i") < 900)
    return frame.withColumn("u", F.upper("s"))


def counted(session: Session) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    run = session.executor.last_run
    assert run is not None
    found = run.statistics()
    return found, {one["operator"]: one for one in found["operators"]}


def test_rows_in_out_and_dropped_by_reason(session: Session, source: Path) -> None:
    assert len(clean(session, source).collect()) == 450
    found, _ = counted(session)
    scan, odd, small, *_ = found["operators"]
    assert (scan["rows_in"], scan["rows_out"]) == (ROWS + 12, ROWS)
    assert scan["dropped"] == {"column i is not int": 8, "not JSON": 4}
    assert (odd["rows_in"], odd["rows_out"], odd["dropped"]) == (ROWS, 500, {"odd": 500})
    assert (small["rows_in"], small["rows_out"]) == (500, 450)
    assert small["dropped"] == {"not (i < 900)": 50}
    size = sum(p.stat().st_size for p in source.iterdir())
    assert size <= found["bytes_read"] <= 3 * size  # what is around cuts is read from both sides
    assert found["bytes_by_way"] == {"directory": found["bytes_read"]}
    shares = sum(one["cpu_seconds"] for one in found["operators"])
    assert shares == pytest.approx(found["cpu_seconds"], abs=0.01)


def test_wide_operators(session: Session, source: Path) -> None:
    frame = clean(session, source)
    sides = frame.dropDuplicates(["s"]).select("s", F.col("i").alias("j"))
    joined = frame.join(sides, "s").groupBy("s").agg(F.count("*").alias("n")).limit(3)
    assert len(joined.collect()) == 3
    _, operators = counted(session)
    distinct = operators["Distinct by [s]"]
    assert (distinct["rows_in"], distinct["rows_out"]) == (450, 7)
    assert distinct["dropped"] == {"duplicate": 443}
    join = next(one for name, one in operators.items() if name.startswith("Join"))
    assert (join["rows_in"], join["rows_out"]) == (457, 450)
    group = next(one for name, one in operators.items() if name.startswith("Group"))
    assert (group["rows_in"], group["rows_out"]) == (450, 7)
    limit = operators["Limit 3"]
    assert (limit["rows_in"], limit["dropped"]) == (7, {"beyond the limit": 4})


class Stopping(LocalTarget):
    def __init__(self, puts: int) -> None:
        self.puts = puts

    def put(self, path: str, data: bytes) -> None:
        self.puts -= 1
        if self.puts < 0:
            raise OSError(28, "No space left on device")
        super().put(path, data)


def rows_of(statistics: dict[str, Any]) -> Any:  # noqa: ANN401
    found = [(o["rows_in"], o["rows_out"], o["dropped"]) for o in statistics["operators"]]
    return found, statistics["bytes_read"]


def test_a_job_that_goes_on_has_the_statistics_of_one_that_was_not_stopped(
    session: Session, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = clean(session, source).write.save(str(source.parent / "whole"))
    with monkeypatch.context() as patched:
        stopping = Stopping(5)
        patched.setattr("superfs.chukonu.sinks.target.target_for", lambda *_: stopping)
        with pytest.raises(OSError, match="No space"):
            clean(session, source).write.parquet(str(source.parent / "out"))
    resumed = clean(session, source).write.save(str(source.parent / "out"))
    assert rows_of(resumed["statistics"]) == rows_of(whole["statistics"])
    kept = json.loads((source.parent / "out" / "_manifest.json").read_text())
    assert rows_of(kept["statistics"]) == rows_of(whole["statistics"])


def test_what_failed_is_not_counted() -> None:
    """A tally counts when it is merged."""
    node = object()
    run = Run([(node, "it")], clock=lambda: 0.0, cpu=lambda: 0.0)
    run.tally().of(node).rows_in = 5
    assert run.statistics()["operators"][0]["rows_in"] == 0
    tally = run.tally()
    tally.of(node).merge(Counts(2, 1, 0.5, {"x": 1}))
    run.merge(tally)
    again = Tally()
    again.recall(json.loads(json.dumps(tally.record())))
    run.merge(again)
    (one,) = run.statistics()["operators"]
    assert (one["rows_in"], one["rows_out"], one["dropped"]) == (4, 2, {"x": 2})


def test_progress_is_in_bytes_and_then_in_parts() -> None:
    now = 100.0
    run = Run([], 1000, clock=lambda: now, cpu=lambda: 0.0)
    run.tasks_total = 4
    assert run.progress().eta_seconds is None
    now = 110.0
    run.tally().read(250, 260, "directory")
    found = run.progress()
    assert (found.title, found.done, found.total) == ("reading", 250, 1000)
    assert found.eta_seconds == pytest.approx(30)
    now = 140.0
    run.tally().read(750, 770, "directory")
    now = 141.0
    run.merge(run.tally(), last=True)
    found = run.progress()
    assert (found.title, found.done, found.total) == ("finishing", 1, 4)
    assert found.eta_seconds == pytest.approx(3)
