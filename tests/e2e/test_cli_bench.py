"""`superfs bench` on a real mount."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from harness.daemon import BIN

if TYPE_CHECKING:
    from pathlib import Path

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
