"""`superfs bench` on a real mount, and bench/compare.py with what needs no peer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.daemon import BIN

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

SHAPES = "easy,hard,4k,seq,rand,shuffle"


def test_every_shape_on_the_mount(place: Path) -> None:
    command: list[str | Path] = [BIN / "superfs", "bench", place / "bench", "--json"]
    command += ["--shape", SHAPES, "--procs", "1,2", "--rounds", "1", "--files", "20"]
    command += ["--io-mib", "2", "--io-ops", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["file_system"] != "unknown"
    results = {(r["shape"], r["procs"], r["phase"]): r["median"] for r in found["results"]}
    assert {(shape, procs) for shape, procs, _ in results} == {
        (shape, procs) for shape in SHAPES.split(",") for procs in (1, 2)
    }
    assert min(results.values()) > 0
    as_root = os.geteuid() == 0 and found["cold_phases_skipped"] is None
    assert (("4k", 1, "read-cold") in results) == as_root
    assert not os.listdir(place)


def test_side_by_side(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "bench" / "compare.py"
    command: list[str | Path] = [sys.executable, script, "--dir", tmp_path, "--rounds", "1"]
    command += ["--systems", "ext4,F,S,N", "--shape", "hard", "--procs", "2", "--files", "10"]
    command += ["--json", tmp_path / "found.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (table,) = json.loads((tmp_path / "found.json").read_text())
    cells = {(cell["system"], cell["phase"]): cell for cell in table["phases"]}
    assert {system for system, _ in cells} == {"ext4", "F", "S", "N"}
    assert all(cell["operations"] > 0 for cell in cells.values())
    assert cells["N", "create"]["messages"] >= 20, "each of 20 files costs one at least"
    assert cells["S", "create"]["messages"] < cells["N", "create"]["messages"]
    assert "| create " in done.stdout
    assert os.listdir(tmp_path) == ["found.json"]
