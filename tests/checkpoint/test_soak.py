"""Long ones: tensors over 2 GiB, and the example in its own size, killed from outside."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.waiting import wait_until
from superfs.checkpoint import committed, directory

if TYPE_CHECKING:
    from harness.ranks import Ranks

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

TOP = Path(__file__).parents[2]
STEP = re.compile(r"step (\d+) loss ([\d.]+)")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_tensor_over_2_gib(ranks: Ranks, tmp_path: Path, asynchronous: bool) -> None:
    ranks.run("round_trip_of_one", 1, str(tmp_path / "c"), 2**31 + 12_345, asynchronous)


def launched(run: Path, log: Path, world: int, steps: int) -> subprocess.Popen[bytes]:
    texts = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]
    words: list[object] = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", world]
    words += [TOP / "examples" / "train_llama.py", "--checkpoints", run, "--steps", steps]
    words += ["--save-every", 6, "--batch", 4, "--context", 64, *texts]
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdout=out,
            stderr=out,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def ranks_of(pid: int) -> list[int]:
    found = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [one for one in found if b"train_llama" in Path(f"/proc/{one}/cmdline").read_bytes()]


def losses(log: Path) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for step, loss in STEP.findall(log.read_text()):
        found.setdefault(int(step), []).append(loss)
    return found


@pytest.mark.fuse
def test_the_example_in_its_own_size(place: Path, tmp_path: Path) -> None:
    """On the mount; killed at random, and in the middle of saves."""
    pytest.importorskip("transformers", reason="transformers is an extra: make .venv/.test")
    steps, log = 40, tmp_path / "log"
    whole = tmp_path / "whole.log"
    assert launched(place / "whole", whole, 2, steps).wait() == 0, whole.read_text()
    expected = losses(whole)
    assert sorted(expected) == list(range(1, steps + 1))
    chance, run = random.Random(1), place / "run"
    for kill in range(4):
        process = launched(run, log, 2, steps)
        seen = max(losses(log), default=0)
        target = min(seen + chance.randrange(4, 11), steps - 2)

        def reached(target: int = target, kill: int = kill) -> bool:
            if max(losses(log), default=0) < target:
                return False
            return kill % 2 == 0 or (run.is_dir() and bool(directory.attempts(run)))

        wait_until(reached, lambda: log.read_text(), timeout_s=600)
        os.kill(chance.choice(ranks_of(process.pid)), signal.SIGKILL)
        assert process.wait() != 0
    assert launched(run, log, 2, steps).wait() == 0, log.read_text()
    for step, found in losses(log).items():
        assert set(found) == set(expected[step]), f"step {step}"
    assert log.read_text().count("resumed from") >= 3
    names = [path.name for path in committed(run)]
    assert names == [path.name for path in committed(place / "whole")]
