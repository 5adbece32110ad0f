"""Rank jobs beside stock DCP: our planner with its writer, and other formats."""

from __future__ import annotations

import contextlib
import io
import os

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from harness.ckptjobs import SHAPES, check, full_state, laid_out, zeros_like
from superfs.checkpoint import BalancedSavePlanner, SuperFSReader, SuperFSWriter
from superfs.cli.main import main


def stock_round_trip(path: str, layout: str, balanced: bool) -> int:
    """Through the stock writer and reader; the bytes of the tensors that this rank wrote."""
    state = laid_out(layout, full_state())
    state |= {"step": 5}
    planner = BalancedSavePlanner() if balanced else None
    dcp.save(state, storage_writer=dcp.FileSystemWriter(path), planner=planner)
    found = laid_out(layout, {name: torch.zeros_like(t) for name, t in full_state().items()})
    found |= {"step": 0}
    dcp.load(found, storage_reader=dcp.FileSystemReader(path))
    assert found.pop("step") == state.pop("step")
    check(found, state)
    rank = dist.get_rank()
    files = [name for name in os.listdir(path) if name.startswith(f"__{rank}_")]
    return sum(os.path.getsize(os.path.join(path, name)) for name in files)


def nested() -> dict[str, object]:
    tensors = full_state()
    tied = tensors["w1"]
    return {"model": {**tensors, "tied": tied}, "optim": {"step": 3, "betas": (0.9, 0.999)}}


def save_nested(path: str) -> None:
    dcp.save(nested(), storage_writer=SuperFSWriter(path))


def load_nested(path: str, ours: bool) -> None:
    expected = nested()
    model = expected["model"]
    assert isinstance(model, dict)
    found = {"model": zeros_like(model), "optim": {"step": 0, "betas": None}}
    reader = SuperFSReader(path) if ours else dcp.FileSystemReader(path)
    dcp.load(found, storage_reader=reader)
    check(found["model"], model)
    assert found["optim"] == expected["optim"]


def export_round_trip(path: str, layout: str, asynchronous: bool) -> None:
    """Saved by our writer, loaded by the stock reader and by ours."""
    group = dist.new_group(backend="gloo")
    state = laid_out(layout, full_state())
    state |= {"tied": state["w1"], "empty": torch.empty(0, 3), "step": (5, b"x")}
    state |= {"mine": torch.full((3,), float(dist.get_rank()))}
    writer = SuperFSWriter(path, process_group=group, export_dcp=True, per_rank=["mine"])
    if asynchronous:
        dcp.async_save(state, storage_writer=writer, process_group=group).result()
    else:
        dcp.save(state, storage_writer=writer, process_group=group)
    del state["mine"]
    zeros = {name: torch.zeros_like(tensor) for name, tensor in full_state().items()}
    for reader in (dcp.FileSystemReader(path), SuperFSReader(path, process_group=group)):
        found = laid_out("ddp", zeros)
        found |= {"tied": torch.zeros(SHAPES[1]), "empty": torch.empty(0, 3), "step": None}
        dcp.load(found, storage_reader=reader, process_group=group)
        assert found.pop("step") == (5, b"x")
        full = full_state()
        check(found, {**laid_out("ddp", full)})
        tied = found["tied"]
        check({"tied": tied}, {"tied": full["w1"]})


def command(words: list[str]) -> tuple[int, str]:
    """`superfs` with these words, which is no rank of anything: its status and what it said."""
    dist.destroy_process_group()
    said, status = io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(words)
        except SystemExit as ended:
            status = int(ended.code or 0)
    return status, said.getvalue()
