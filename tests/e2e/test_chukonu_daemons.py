"""A data daemon is killed while Chukonu reads, divides and writes: whether the job goes on by
itself or is started again, its output is that of one that nobody disturbed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from superfs.client import ClientConfig, FileSystem

pytest.importorskip("polars")

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.cluster import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.allow_log("connect", "grace", "datad", "lost", "gone")]
FILES, ROWS = 24, 400
JOB = """
import sys
from superfs.chukonu import Session, functions as F
cluster, token, spill, out = sys.argv[1:]
builder = Session.builder.config("chukonu.threads", 2).config("chukonu.memory.bytes", 50)
with builder.config("chukonu.local.dir", spill).getOrCreate() as s:
    options = {"cluster": cluster, "token_file": token}
    d = s.read.options(**options).option("splitBytes", 50_000)
    d = d.json("superfs:///in", schema="i INT, s STRING")
    d = d.withColumn("u", F.upper("s")).orderBy("u", F.desc("i"))
    print("begin", flush=True)
    d.write.options(**options).parquet(out)
"""


def run(
    cluster: Cluster, spill: Path, out: str, seen: Callable[[], bool] | None = None
) -> tuple[int, str]:
    """How it ended. The daemon is killed as soon as `seen`, and started again."""
    token = str(cluster.token_file)
    command = [sys.executable, "-c", JOB, cluster.target("clusterd"), token, str(spill), out]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as job:
        assert job.stdout is not None
        assert job.stderr is not None
        assert job.stdout.readline() == "begin\n"
        while seen is not None and job.poll() is None:
            if seen():
                cluster.restart("datad-2", kill=True)
                break
        _, errors = job.communicate()
        return job.returncode, errors


def contents(fs: FileSystem, out: str) -> dict[str, bytes]:
    names = [entry.name for entry in fs.scandir(out) if entry.name.startswith("part-")]
    return {name: fs.read_bytes(f"{out}/{name}") for name in sorted(names)}


@pytest.mark.parametrize("stage", ["reading", "dividing", "first part", "later part"])
def test_kill_the_data_daemon(own_cluster: Cluster, tmp_path: Path, stage: str) -> None:
    config = ClientConfig((own_cluster.target("clusterd"),), own_cluster.token_file)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    with FileSystem.connect(config) as fs:
        fs.mkdir("/in")
        for part in range(FILES):
            rows = ({"i": i, "s": f"text {i % 97} " * 20} for i in range(part, FILES * ROWS, FILES))
            data = "".join(json.dumps(row) + "\n" for row in rows)
            fs.write_bytes(f"/in/{part:02}.json", data.encode())
        assert run(own_cluster, tmp_path / "whole", "superfs:///whole")[0] == 0
        expected = contents(fs, "/whole")

        def done(number: int) -> bool:
            attempts = [e.name for e in fs.scandir("/") if e.name.startswith(".killed.")]
            return any(fs.exists(f"/{name}/_done/{number:05}.json") for name in attempts)

        stages: dict[str, Callable[[], bool]] = {
            "reading": lambda: True,
            "dividing": lambda: any((tmp_path / "killed").glob("*/1")),
            "first part": lambda: done(0),
            "later part": lambda: done(4),
        }
        spill, out = tmp_path / "killed", "superfs:///killed"
        code, errors = run(own_cluster, spill, out, stages[stage])
        if code:
            assert "Error" in errors
            assert not fs.exists("/killed")
            assert run(own_cluster, spill, out)[0] == 0
        assert contents(fs, "/killed") == expected
        assert not [e.name for e in fs.scandir("/") if e.name.startswith(".killed.")]
        assert not list(spill.iterdir())
        for folder in ("/in", "/whole", "/killed"):
            fs.remove_tree(folder)
