"""Cache directories under the classes of engines that only know a directory (`make engines`): pages
are stored, evicted under their hands, and found by another process, and never others."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.cluster import Cluster
from harness.hammers import QUICK, SHORT
from harness.mount import Mount, fsck
from harness.waiting import wait_until
from harness.zygote import run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.fuse, pytest.mark.slow]
TOP = Path(__file__).parents[2]
PYTHON = TOP / ".venv-engines" / "bin" / "python"
ENGINES = ["vllm", "sglang", "lmcache"]
KIB = 1024
PAGE, PAGES, BOUND = 256 * KIB, 40, 4096 * KIB


@pytest.fixture(scope="module")
def mount() -> Iterator[Mount]:
    if not PYTHON.exists():
        pytest.skip("make engines")
    with Cluster(settings=SHORT) as cluster, Mount(cluster, "m0", settings=QUICK) as mount:
        yield mount
        fsck(cluster)


def used(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def found_by(engine: str, directory: Path, first: int, count: int) -> list[int]:
    script = TOP / "tests" / "harness" / "kvengines.py"
    command = [PYTHON, script, engine, directory, *map(str, (first, count, PAGE))]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=240,
        env={**environment, "HF_HUB_OFFLINE": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("FOUND "))
    found: list[int] = json.loads(line.removeprefix("FOUND "))
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_on_a_bounded_directory(mount: Mount, engine: str) -> None:
    directory = mount.point / engine
    directory.mkdir()
    bound = run("superfs", "cache", "set", str(directory), "--bytes", str(BOUND), "--policy", "lru")
    assert bound.returncode == 0, bound
    found_by(engine, directory, 0, PAGES)
    wait_until(lambda: used(directory) <= BOUND, lambda: f"{used(directory)} bytes are in it")
    left = found_by(engine, directory, PAGES, 0)
    assert BOUND // PAGE // 2 <= len(left) <= BOUND // PAGE, left
    assert max(left) == PAGES - 1, "what was stored last is there for another process"
    again = found_by(engine, directory, PAGES, 4)
    assert again[-4:] == list(range(PAGES, PAGES + 4)), "and more goes in"
    wait_until(lambda: used(directory) <= BOUND, lambda: f"{used(directory)} bytes are in it")
