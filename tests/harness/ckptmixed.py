"""Rank jobs in which ranks do not agree on what the state is."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate

from harness.ckptjobs import load_plain
from superfs.checkpoint import SuperFSReader, SuperFSWriter


def load_own_path(root: str, share: str) -> None:
    load_plain(f"{root}/step-{dist.get_rank()}", 1000, share)


def _of_rank(tensor: object, other: object) -> dict[str, Any]:
    return {"w": torch.ones(5), "x": other if dist.get_rank() else tensor}


def save_two_kinds(path: str, per_rank: list[str]) -> None:
    state = _of_rank(torch.ones(2), 5)
    dcp.save(state, storage_writer=SuperFSWriter(path, per_rank=per_rank))


def load_two_kinds(path: str) -> object:
    state = _of_rank(torch.zeros(2), None)
    dcp.load(state, storage_reader=SuperFSReader(path))
    found = state["x"]
    return found.tolist() if isinstance(found, torch.Tensor) else found


def save_from_two_meshes(path: str, differ: bool) -> None:
    rank = dist.get_rank()
    meshes = [DeviceMesh("cpu", [0, 2]), DeviceMesh("cpu", [1, 3])]
    savers = dist.new_group([0, 1], backend="gloo")
    try:
        if rank < 2:
            local = torch.full((70_000,), float(rank if differ else 1))
            state = {"w": DTensor.from_local(local, meshes[rank], [Replicate()], run_check=False)}
            writer = SuperFSWriter(path, process_group=savers)
            dcp.save(state, storage_writer=writer, process_group=savers)
    finally:
        dist.barrier()  # who has nothing to save must not end while others still connect to him
