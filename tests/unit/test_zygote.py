"""A fork of the zygote is to a test what the program would be that is executed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harness import zygote
from harness.daemon import BIN, Daemon

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "words",
    [
        ("superfs-metad", "--print-config"),
        ("superfs-metad", "--config", "/none"),
        ("superfs-datad", "--nonsense"),
        ("superfs", "--help"),
        ("superfs", "cat", "--nonsense"),
    ],
)
def test_it_says_and_ends_as_if_executed(words: tuple[str, ...]) -> None:
    forked = zygote.run(*words)
    executed = subprocess.run(
        [BIN / words[0], *words[1:]],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (forked.returncode, forked.stdout, forked.stderr) == (
        executed.returncode,
        executed.stdout,
        executed.stderr,
    )


def worker(tmp_path: Path, **environment: str) -> Daemon:
    """One that goes on until it is told to stop."""
    plan = tmp_path / "plan.json"
    plan.write_text('{"groups": [["a"]], "fixed": [], "weights": {"list": 1}}')
    words = ["-m", "harness.hammer", plan, "client", tmp_path, tmp_path / "history", "1"]
    (tmp_path / "history").touch()
    env = {**os.environ, **environment}
    return Daemon("worker", [sys.executable, *map(str, words)], tmp_path / "log", env=env)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 0), (signal.SIGKILL, -9), (signal.SIGABRT, -6)]
)
def test_signals_and_the_status_they_leave(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    one = worker(tmp_path)
    one.start()
    assert isinstance(one.process, zygote.Child)
    assert one.running
    while not (tmp_path / "history").stat().st_size:
        assert one.running, one.tail()
    one.signal(number)
    assert one.wait() == status
    assert not one.running
    with pytest.raises(ProcessLookupError):
        os.kill(one.pid, 0)


def test_what_a_fork_would_not_be_is_executed(tmp_path: Path) -> None:
    one = worker(tmp_path, PYTHONHASHSEED="7")
    one.start()
    assert isinstance(one.process, subprocess.Popen)
    one.kill()
