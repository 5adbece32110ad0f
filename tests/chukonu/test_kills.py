"""Jobs that are killed while rows are divided among files, and between their parts: what they leave
is taken or thrown away by the next one, and its output is that of a job that was not killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS = 6000
JOB = """
import sys
from superfs.chukonu import Session, Window, functions as F
source, out, folder, name = sys.argv[1:]
builder = Session.builder.config("chukonu.threads", 2).config("chukonu.memory.bytes", 50)
s = builder.config("chukonu.local.dir", folder).getOrCreate()
d = s.read.option("splitBytes", 20_000).json(source, schema="i INT, s STRING")
window = Window.partitionBy("s").orderBy("i")
d = {
    "lists": lambda: d.groupBy("s").agg(F.collect_list("i").alias("n")),
    "join": lambda: d.join(d.select("s", F.col("i").alias("j")).dropDuplicates(["s"]), "s"),
    "order": lambda: d.orderBy("s", F.desc("i")),
    "window": lambda: d.withColumn("n", F.row_number().over(window)).repartition(4, "n"),
}[name]()
print("begin", flush=True)
d.write.parquet(out)
print("end", flush=True)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kills")
    for part in range(3):
        lines = (json.dumps({"i": i, "s": f"text {i % 97}"}) for i in range(part, ROWS, 3))
        (path / f"{part}.json").write_text("".join(line + "\n" for line in lines))
    return path


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("part-*")}


def run(name: str, source: Path, work: Path, seen: Callable[[], bool] | None = None) -> bool:
    """Whether it ended by itself. Killed as soon as `seen`."""
    command = [sys.executable, "-c", JOB, str(source), str(work / "out"), str(work / "spill"), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "begin\n"
        while seen is not None and job.poll() is None:
            if seen():
                job.send_signal(signal.SIGKILL)
                break
        return job.wait() == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lists", "join", "order", "window"])
def test_kill_at_every_stage(name: str, source: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for work in (whole, killed):
        (work / "spill").mkdir(parents=True)
    assert run(name, source, whole)
    stages = [
        lambda: any(killed.glob("spill/*/1")),
        lambda: any(killed.glob(".out*/_done/00000.json")),
        lambda: any(killed.glob(".out*/_done/00003.json")),
    ]
    ended = [run(name, source, killed, seen) for seen in stages]
    assert not ended[0]
    assert (killed / "out").exists() or run(name, source, killed)
    assert contents(killed / "out") == contents(whole / "out")
    assert not list(killed.glob(".out*"))
    assert not list(killed.glob("spill/*")), "what killed processes left there"
