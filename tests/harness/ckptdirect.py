"""What ranks do in tests of saves past a mount."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from superfs.checkpoint import SuperFSReader, SuperFSWriter

Told = tuple[str, str]


def state_of(size: int, fill: float) -> dict[str, torch.Tensor]:
    whole = torch.arange(size, dtype=torch.float32) + fill
    return {"w": whole, "small": whole[:1000].clone(), "odd": whole[: size // 3 * 3].view(3, -1)}


def save(
    path: str,
    size: int,
    fill: float,
    asynchronous: bool,
    **options: Any,  # noqa: ANN401
) -> Told:
    """How this rank's bytes went; checks what comes back."""
    state = state_of(size, fill)
    writer = SuperFSWriter(path, **options)
    if asynchronous:
        dcp.async_save(state, storage_writer=writer).result()
    else:
        dcp.save(state, storage_writer=writer)
    into = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    dcp.load(into, storage_reader=SuperFSReader(path))
    assert all(torch.equal(into[name], tensor) for name, tensor in state.items())
    assert writer.way is not None
    return writer.way.name, writer.way.why


def save_until(root: str, size: int, stop: str) -> list[Told]:
    """Saves, one after the other, until there is a file `stop`; each is loaded at the end."""
    ways = []
    for step in itertools.count():
        writer = SuperFSWriter(f"{root}/step-{step:03}", durable=step % 2 == 0)
        dcp.save(state_of(size, step), storage_writer=writer)
        assert writer.way is not None
        ways.append((writer.way.name, writer.way.why))
        over = torch.tensor([Path(stop).exists() or step > 200])
        dist.broadcast(over, 0)
        if over.item():
            break
        time.sleep(0)
    for step in range(len(ways)):
        expected = state_of(size, step)
        into = {name: torch.zeros_like(tensor) for name, tensor in expected.items()}
        dcp.load(into, storage_reader=SuperFSReader(f"{root}/step-{step:03}"))
        assert all(torch.equal(into[name], tensor) for name, tensor in expected.items()), step
    return ways
