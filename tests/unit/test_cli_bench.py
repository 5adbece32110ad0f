"""`superfs bench`: every shape on an ordinary directory, what it refuses, what it leaves behind."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from superfs.cli.bench import caches
from superfs.cli.bench.results import Series, quartiles, rate_text
from superfs.cli.bench.running import Run
from superfs.cli.bench.shapes import DROP, DROP_IF, MIB, SHAPES, Job, Phase, Shape
from superfs.cli.bench.smallfiles import Part, WrongBytes
from superfs.cli.bench.workers import ACTS, Outcome, WorkerFailed, Workers
from superfs.cli.main import app
from superfs.cli.output import CliError

if TYPE_CHECKING:
    from pathlib import Path

FILES = 5


def job(top: Path, shape: str, procs: int = 1) -> Job:
    chosen = SHAPES[shape]
    return Job(top / "job", chosen, procs, FILES, chosen.file_bytes, 2 * MIB, io_ops=10)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=lambda shape: shape.name)
def test_every_step_of_a_shape_is_an_act(shape: Shape) -> None:
    steps = {p.act for p in shape.phases} | {b for p in shape.phases for b in p.before}
    assert steps - {DROP, DROP_IF} <= ACTS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_with_two_processes(tmp_path: Path, name: str) -> None:
    with Run(job(tmp_path, name, procs=2), cold=False) as run:
        done = {phase.name: run.do(phase) for phase in run.phases()}
    assert not os.listdir(tmp_path)
    assert all(outcome.ops > 0 and outcome.seconds > 0 for outcome in done.values())
    if "create" in done:
        shared = SHAPES[name].shared
        assert done["create"].ops == done["read" if "read" in done else "stat"].ops == 2 * FILES
        assert done["ls-l"].ops == (4 if shared else 2) * FILES


@pytest.mark.slow
def test_cold_phases_drop_the_caches_before_they_are_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[str] = []
    monkeypatch.setattr(caches, "why_not", lambda: "")
    monkeypatch.setattr(caches, "drop", lambda: dropped.append("once"))
    with Run(job(tmp_path, "4k")) as run:
        names = [phase.name for phase in run.phases()]
        for phase in run.phases():
            run.do(phase)
    assert {"stat-cold", "read-cold", "ls-l-cold"} <= set(names)
    assert len(dropped) == 3


@pytest.mark.slow
def test_a_worker_reports_what_it_could_not_do(tmp_path: Path) -> None:
    one = job(tmp_path, "4k")
    with Run(one) as run:
        (one.top / "p0" / "f0.0000003").touch()
        with pytest.raises(FileExistsError, match=r"f0\.0000003"):
            run.do(one.shape.phase("create"))
    assert not os.listdir(tmp_path)


def test_wrong_bytes_are_noticed(tmp_path: Path) -> None:
    part = Part.of(job(tmp_path, "4k"), 0)
    os.makedirs(part.directory)
    assert ACTS["create"](part) == ACTS["read"](part) == FILES
    path = part.paths()[2]
    with open(path, "r+b") as file:
        file.write(b"\xff")
    with pytest.raises(WrongBytes, match="not the bytes"):
        ACTS["read"](part)
    os.truncate(path, 10)
    with pytest.raises(WrongBytes, match="10 bytes instead of 4096"):
        ACTS["read"](part)


def test_an_epoch_reads_every_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from superfs.cli.bench import shuffled

    one = dataclasses.replace(job(tmp_path, "shuffle", procs=2), file_bytes=16)
    parts = [Part.of(one, rank) for rank in range(2)]
    assert [ACTS["dataset"](part) for part in parts] == [FILES, FILES]
    assert [ACTS["dataset"](part) for part in parts] == [0, 0]
    orders = []
    for _ in range(2):
        seen: list[str] = []
        monkeypatch.setattr(shuffled, "read_file", lambda path, *_, seen=seen: seen.append(path))
        assert [ACTS["epoch"](part) for part in parts] == [FILES, FILES]
        assert len(set(seen)) == 2 * FILES
        orders.append(seen)
    assert orders[0] != orders[1]


def bench(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["bench", *map(str, words)])
    if isinstance(result.exception, CliError):
        return result.exception.status, result.stdout, str(result.exception)
    return result.exit_code, result.stdout, result.stderr


SMALL = ("--files", 3, "--io-mib", 1, "--io-ops", 3, "--no-cold", "--rounds", 2)


@pytest.mark.slow
def test_the_command_prints_json_and_leaves_nothing(tmp_path: Path) -> None:
    place = tmp_path / "new"
    status, out, _ = bench(place, "--json", "--shape", "hard,seq", "--procs", "1,2", *SMALL)
    assert status == 0
    found = json.loads(out)
    assert found["cold_phases_skipped"] == "--no-cold"
    assert {(r["shape"], r["procs"]) for r in found["results"]} == {
        (shape, procs) for shape in ("hard", "seq") for procs in (1, 2)
    }
    assert all(len(r["rates"]) == 2 and min(r["rates"]) > 0 for r in found["results"])
    units = {r["shape"]: r["unit"] for r in found["results"]}
    assert units == {"hard": "operations/s", "seq": "bytes/s"}
    assert not place.exists()


@pytest.mark.slow
def test_the_command_prints_a_table(tmp_path: Path) -> None:
    status, out, _ = bench(tmp_path, "--shape", "4k", "--procs", 1, "--bytes", 100, *SMALL)
    assert status == 0
    assert "4k: 4 KiB files" in out
    assert "unlink" in out
    assert not os.listdir(tmp_path)


def test_the_command_refuses_what_it_should(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    for words, message in (
        ((tmp_path,), "is not empty"),
        ((tmp_path / "precious",), "is not a directory"),
        ((tmp_path / "a" / "b",), "does not exist"),
        ((tmp_path / "new", "--shape", "huge"), "no shape 'huge'"),
        ((tmp_path / "new", "--procs", "1,many"), "'many' is not a number of processes"),
    ):
        status, _, error = bench(*words)
        assert status == 2, words
        assert message in error
    assert os.listdir(tmp_path) == ["precious"]


@pytest.mark.slow
def test_a_process_that_dies_is_an_error(tmp_path: Path) -> None:
    workers = Workers(job(tmp_path, "4k", procs=2))
    try:
        workers._processes[1].kill()
        with pytest.raises((WorkerFailed, OSError)):
            workers.do("stat")
    finally:
        workers.close()


def test_median_quartiles_and_units() -> None:
    series = Series("seq", 1, Phase("write", "seq-write", op_bytes=MIB))
    series.outcomes = [Outcome(100, seconds, 0.5) for seconds in (1.0, 2.0, 4.0)]
    assert series.median == 50
    assert quartiles(series.rates) == (37.5, 75.0)
    assert quartiles([3.0]) == (3.0, 3.0)
    assert series.cpu_us == pytest.approx(5000)
    assert rate_text(series.phase, series.median) == "52 MB/s"
    assert series.as_json()["median"] == 50 * MIB
