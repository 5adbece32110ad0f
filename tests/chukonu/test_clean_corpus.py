"""The example on real text, on little of it: it starts a cluster, and checks every line itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "clean_corpus.py"


@pytest.mark.slow
def test_every_line_becomes_what_it_must(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE), "--mib", "4", "--grown-mib", "12"]
    command += ["--work", str(tmp_path), "--memory-mib", "16"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "all compared" in done.stdout
    assert not list(tmp_path.iterdir())
