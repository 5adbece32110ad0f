"""Rank jobs with modules as FSDP2 and tensor parallelism lay them out."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

from harness.ckptjobs import same
from superfs.checkpoint import SuperFSReader, SuperFSWriter

WORDS, WIDTH, INNER = 259, 6, 10  # hardly anything divides evenly


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.up = torch.nn.Linear(WIDTH, INNER)
        self.down = torch.nn.Linear(INNER, WIDTH, bias=False)


class Model(torch.nn.Module):
    """Its head is its embedding, used again."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(WORDS, WIDTH)
        self.layers = torch.nn.ModuleList(Layer() for _ in range(2))
        self.head = torch.nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.arange(5.0))


def arranged(how: str, seed: int) -> Model:
    """The same parameters for one seed, however they are laid out."""
    torch.manual_seed(seed)
    model, world = Model(), dist.get_world_size()
    if how == "plain":
        return model
    grids: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
        "fsdp": ((world,), ("dp",)),
        "tp": ((world,), ("tp",)),
        "hsdp": ((2, world // 2), ("copies", "dp")),
        "fsdp-tp": ((world // 2, 2), ("dp", "tp")),
        "tp-fsdp": ((2, world // 2), ("tp", "dp")),
    }
    shape, names = grids[how]
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
    if "tp" in names:
        styles = {"up": ColwiseParallel(), "down": RowwiseParallel()}
        for layer in model.layers:
            parallelize_module(layer, mesh["tp"], styles)
    if "dp" in names:
        data = mesh["copies", "dp"] if "copies" in names else mesh["dp"]
        for layer in model.layers:
            fully_shard(layer, mesh=data)
        fully_shard(model, mesh=data)
    return model


def stepped(model: Model, optimizer: torch.optim.Optimizer) -> None:
    """One step along gradients that depend on the parameters only, so the same in every layout."""
    for parameter in model.parameters():
        parameter.grad = parameter.detach() * 0.5 + 0.25
    optimizer.step()


def state_of(model: Model, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    parameters, moments = get_state_dict(model, optimizer)
    return {"model": parameters, "optimizer": moments}


def whole(value: Any) -> Any:  # noqa: ANN401
    """With full tensors in place of their parts."""
    if isinstance(value, dict):
        return {name: whole(one) for name, one in value.items()}
    return value.full_tensor() if isinstance(value, DTensor) else value


def alike(one: Any, other: Any, name: str = "") -> None:  # noqa: ANN401
    if isinstance(one, dict):
        assert one.keys() == other.keys(), name
        for key in one:
            alike(one[key], other[key], f"{name}.{key}")
    elif isinstance(one, torch.Tensor):
        assert same(one, other), name
    else:
        assert one == other, name


def expected() -> dict[str, Any]:
    model = arranged("plain", 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    stepped(model, optimizer)
    return state_of(model, optimizer)


def save_models(root: str, arrangements: list[str]) -> None:
    for how in arrangements:
        model = arranged(how, 3)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        stepped(model, optimizer)
        state = state_of(model, optimizer)
        alike(whole(state), expected(), how)
        dcp.save(state, storage_writer=SuperFSWriter(f"{root}/{how}{dist.get_world_size()}"))


def load_models(root: str, pairs: list[tuple[str, str]], share: str) -> None:
    """(checkpoint, arrangement): each into a model of other parameters, which is then the one that
    was saved."""
    for saved, how in pairs:
        model = arranged(how, 4)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.3)
        state = state_of(model, optimizer)
        dcp.load(state, storage_reader=SuperFSReader(f"{root}/{saved}", share=share))
        set_state_dict(
            model,
            optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )
        alike(whole(state_of(model, optimizer)), expected(), f"{saved} into {how}")


def save_drifted(path: str) -> None:
    """Tensor parallel ranks each hold a norm that nobody keeps equal: one has drifted."""
    model = arranged("fsdp-tp", 3)
    with torch.no_grad():
        norm = model.layers[1].norm.weight
        assert isinstance(norm, DTensor)
        if dist.get_rank() == dist.get_world_size() - 1:
            norm.to_local()[-1] = 7
    dcp.save({"model": model.state_dict()}, storage_writer=SuperFSWriter(path))
