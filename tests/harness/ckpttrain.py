"""Rank jobs that train a model: `examples/train_llama.py`, killed and started again."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import xxhash
from torch.distributed.tensor import DTensor

from superfs.checkpoint import steps

TOP = Path(__file__).parents[2]


def _example() -> Any:  # noqa: ANN401
    spec = importlib.util.spec_from_file_location("train_llama", TOP / "examples/train_llama.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = _example()


def digest(state: Any) -> int:  # noqa: ANN401
    """Of every bit that any number of ranks has to find as it was: all but `rng` and `world`."""
    found = xxhash.xxh3_64()

    def add(name: str, value: Any) -> None:  # noqa: ANN401
        if isinstance(value, dict):
            for key in sorted(value, key=str):
                if key not in ("rng", "world"):
                    add(f"{name}/{key}", value[key])
        elif isinstance(value, torch.Tensor):
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            raw = whole.detach().contiguous().reshape(-1).view(torch.uint8)
            found.update(f"{name} {whole.dtype} {tuple(whole.shape)}".encode())
            found.update(raw.numpy().tobytes())
        else:
            found.update(f"{name}={value!r}".encode())

    add("", state)
    return found.intdigest()


class Watched(example.Training):  # type: ignore[name-defined]
    """Remembers what it was like when it was saved and when it had been loaded."""

    def run(self) -> list[float]:
        self.digests: dict[int, int] = {}
        self.resumed = 0
        losses: list[float] = super().run()
        self.digests[self.step] = digest(self.state())
        return losses

    def save(self) -> None:
        self.digests[self.step] = digest(self.state())
        super().save()

    def resume(self) -> None:
        super().resume()
        self.resumed = self.step
        if self.step:
            self.digests[self.step] = digest(self.state())


def train(
    words: list[str], kill: tuple[str, int, int] | None = None
) -> tuple[int, list[float], dict[int, int]]:
    """From which step on, the loss of each, the digests at some. `kill`: a step of the n-th save at
    which a rank is killed."""
    torch.set_num_threads(1)
    seen = 0

    def die(name: str) -> None:
        nonlocal seen
        assert kill is not None
        if (name, dist.get_rank()) == (kill[0], kill[1]):
            seen += 1
            if seen == kill[2]:
                os.kill(os.getpid(), signal.SIGKILL)

    training = Watched(example.arguments(words))
    steps.hook = die if kill is not None else None
    losses = training.run()
    return training.resumed, losses, training.digests
