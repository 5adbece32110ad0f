"""`master("local[2]")` and `master("spark://...")`: whole programs, computed by Chukonu in the
workers of real Apache Spark, where there is one (`make spark`), answer what Spark answers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.chukonuagree import GOLDEN, agree

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).parents[2]
PYTHON = TOP / ".venv-spark" / "bin" / "python"
CLASS = TOP / ".venv-spark" / "bin" / "spark-class"
THERE = any(TOP.glob(".venv-spark/lib/*/site-packages/polars"))
PATH = os.pathsep.join(str(TOP / name) for name in ("proto", "clients", "tests"))
PROGRAMS = ["group", "sum_overflow", "group_of_nothing", "aggregate_of_nothing", "drop_duplicates"]
PROGRAMS += ["join_outer", "cross_join", "window_rank", "ordered_limit", "unions", "divide_by_zero"]
PROGRAMS += ["moments_as_they_are", "moments_grouped", "decimals_grouped", "moments_joined"]
PROGRAMS += ["maps_exploded", "maps_in_parquet", "csv_permissive", "csv_inferred"]
ROWS = 3000


def spark_process(what: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(CLASS), f"org.apache.spark.deploy.{what}", "--host", "127.0.0.1", *args],
        env={**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": str(PYTHON)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if word in line:
            return
    raise AssertionError(f"ended without saying {word!r}")


@contextmanager
def standalone(folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"spark://127.0.0.1:{port}"
    options = ["--webui-port", "0"]
    processes = [spark_process("master.Master", "--port", str(port), *options)]
    try:
        wait_for(processes[0], "elected leader")
        options += ["--cores", "2", "--memory", "1g", "--work-dir", str(folder)]
        processes.append(spark_process("worker.Worker", *options, url))
        wait_for(processes[1], "Successfully registered")
        yield url
    finally:
        for process in reversed(processes):
            process.terminate()
            assert process.stderr is not None
            process.stderr.close()
            process.wait(60)


def answers(master: str, folder: Path) -> dict[str, Any]:
    script = str(TOP / "tests" / "harness" / "chukonumaster.py")
    done = subprocess.run(
        [str(PYTHON), script, master, str(folder), *PROGRAMS],
        env={**os.environ, "PYTHONPATH": PATH, "SPARK_LOCAL_IP": "127.0.0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        text=True,
        timeout=280,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def by_operator(statistics: dict[str, Any]) -> list[dict[str, Any]]:
    """In the order in which rows meet them; projections are left out."""
    found: list[dict[str, Any]] = statistics["operators"]
    return [o for o in found if not o["operator"].startswith("Project")]


@pytest.mark.slow
@pytest.mark.skipif(not THERE, reason="make spark installs it")
@pytest.mark.parametrize("kind", ["local[2]", "spark://"])
def test_programs_on_spark(kind: str, tmp_path: Path) -> None:
    work = tmp_path / "job"
    work.mkdir()
    if kind == "spark://":
        with standalone(tmp_path / "worker") as url:
            found = answers(url, work)
    else:
        found = answers(kind, work)
    for name in PROGRAMS:
        agree(GOLDEN["programs"][name], found["programs"][name])
    made = found["outputs"]
    assert made["first"] == [0, 3, 6, 9, 12, 15, 18]  # of equal rows, by path and offset
    assert made["rows"] == 7
    assert made["bad"] == 3
    assert made["functions"] == [[2 * i, f"text {i}!", i] for i in range(3)]
    scan, filtered, *_, group = by_operator(made["counted"])
    assert scan["rows_out"] == ROWS == filtered["rows_in"]
    assert sum(scan["dropped"].values()) == 3
    assert sum(filtered["dropped"].values()) == 10
    assert group["rows_in"] == filtered["rows_out"] == ROWS - 10
    assert group["rows_out"] == made["groups"] == 7
    assert made["counted"]["bytes_by_way"]["directory"] > 0
    assert made["counted"]["cpu_seconds"] > 0
    scan, distinct = by_operator(made["written"])[:2]
    assert (distinct["rows_in"], distinct["rows_out"]) == (ROWS, 7)
    assert distinct["dropped"] == {"duplicate": ROWS - 7}
    assert made["left"] == []
    assert len(made["sorted"]) == ROWS
    assert made["sorted"] == sorted(made["sorted"], key=lambda row: (-int(row[0][5:]), row[1]))
    assert made["divided"].startswith("ArithmeticException [DIVIDE_BY_ZERO]")
    allowed, too_many, there = made["judged"]
    assert allowed == ROWS + 3
    assert too_many.startswith("BadRecordException [TOO_MANY_BAD_RECORDS] 3 of 3003 records")
    assert not there
    assert found["ended"], "the JVM runs on"


def test_what_spark_decides_is_refused_by_name() -> None:
    from superfs.chukonu import Session
    from superfs.chukonu.errors import UnsupportedError

    with pytest.raises(UnsupportedError, match="mesos"):
        Session.builder.master("mesos://x").getOrCreate()
    builder = Session.builder.config("chukonu.memory.bytes", 1).master("local[1]")
    with pytest.raises(UnsupportedError, match=r"chukonu\.memory\.bytes on Spark"):
        builder.getOrCreate()
