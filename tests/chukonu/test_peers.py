"""Random programs that nobody has seen, under real Spark and under Chukonu (`make spark`)."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PYTHON = TOP / ".venv-spark" / "bin" / "python"
THERE = any(TOP.glob(".venv-spark/lib/*/site-packages/polars"))
COUNT = 40


@pytest.mark.slow
@pytest.mark.skipif(not THERE, reason="make spark installs it")
def test_new_random_programs() -> None:
    seed = random.SystemRandom().randrange(1 << 31)
    path = os.pathsep.join(str(TOP / name) for name in ("proto", "clients", "tests"))
    script = str(TOP / "tests" / "harness" / "chukonupeers.py")
    done = subprocess.run(
        [str(PYTHON), script, str(seed), str(COUNT)],
        env={**os.environ, "PYTHONPATH": path, "SPARK_LOCAL_IP": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}:\n{done.stdout}\n{done.stderr[-2000:]}"
