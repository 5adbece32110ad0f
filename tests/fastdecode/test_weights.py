"""Threads of the S-worker: what they ask torch for is theirs alone."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any, cast

import pytest

torch = pytest.importorskip("torch")

from superfs.kvcache.fastdecode.weights import Weights  # noqa: E402 - it needs it

pytestmark = pytest.mark.slow


class Part:
    """Says who computes."""

    def embed(self, *_: object) -> int:
        return cast("int", torch.get_num_threads())

    def before(self, _layer: int, rows: Any) -> Any:  # noqa: ANN401
        return rows


def processors_of_a_new_thread() -> int:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_a_caller_that_has_not_computed_yet() -> None:
    script = (
        "import threading, torch\n"
        "from superfs.kvcache.fastdecode.weights import Weights\n"
        "torch.set_num_threads(2)\n"
        "def run():\n"
        "    Weights(None, 3).close()\n"
        "    print(torch.get_num_threads())\n"
        "thread = threading.Thread(target=run)\n"
        "thread.start(); thread.join(); run()\n"
        "thread = threading.Thread(target=run)\n"
        "thread.start(); thread.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["2"] * 3


def test_one_processor_each_and_others_as_before() -> None:
    processors = torch.get_num_threads()
    torch.set_num_threads(2)
    part: Any = Part()
    weights = Weights(part, 3)
    try:
        assert torch.get_num_threads() == processors_of_a_new_thread() == 2
        found: list[Any] = [weights.first([], []).result().rows for _ in range(6)]
        assert found == [1] * 6
        assert processors_of_a_new_thread() == 2
    finally:
        weights.close()
        torch.set_num_threads(processors)
