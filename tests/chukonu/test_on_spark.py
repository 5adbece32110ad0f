"""`enable(spark)`: segments of Chukonu inside real Spark, in an environment that has it (`make
spark`). The script that runs there looks; here is what it must have seen."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).parents[2]
PYTHON = TOP / ".venv-spark" / "bin" / "python"
THERE = any(TOP.glob(".venv-spark/lib/*/site-packages/polars"))


@pytest.mark.slow
@pytest.mark.skipif(not THERE, reason="make spark installs it")
def test_segments_in_a_job_of_spark() -> None:
    from harness.chukonuenabled import FILES, ROWS

    path = os.pathsep.join(str(TOP / name) for name in ("proto", "clients", "tests"))
    done = subprocess.run(
        [str(PYTHON), str(TOP / "tests" / "harness" / "chukonuenabled.py")],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        text=True,
        timeout=280,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["same"]
    assert found["more"]
    assert found["schema"] == "struct<id:bigint,text:string,t:string,more:string>"
    assert len(found["places"]) > FILES
    assert all(place[1] == "second" for place in found["places"])
    assert found["groups"] == ROWS
    assert "Distinct in a segment is wide" in found["refused"]
    assert found["kept bad"] == 2 * FILES
    assert found["plain again"]
