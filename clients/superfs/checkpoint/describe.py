"""From what DCP's planner made of a state dict to what this rank brings to a save."""

from __future__ import annotations

import fnmatch
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xxhash
from torch.distributed.checkpoint.planner import WriteItemType
from torch.distributed.tensor import DTensor

from superfs.checkpoint import codec, tensors
from superfs.checkpoint.agreement import State
from superfs.checkpoint.boxes import Box
from superfs.checkpoint.holdings import ITEM_BYTES, Holding, Kind
from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import torch
    from torch.distributed.checkpoint.planner import SavePlanner, WriteItem
    from torch.distributed.device_mesh import DeviceMesh


@dataclass(slots=True)
class Local:
    """A rank's state with its tensors, in the order of the description."""

    state: State
    tensors: list[torch.Tensor]

    def contents(self, *, sample_seed: int | None) -> dict[int, int]:
        """Of every plain tensor, by place: a hash of all of it, or of samples. Which samples says
        its name, because others may hold it at another place."""
        found: dict[int, int] = {}
        for place, holding in enumerate(self.state.description):
            if holding.kind is not Kind.PLAIN:
                continue
            if sample_seed is not None:
                seed = xxhash.xxh3_64_intdigest(holding.name.encode(), sample_seed)
                found[place] = tensors.sampled_hash(self.tensors[place], seed)
            elif holding.tied_to >= 0:
                found[place] = found[holding.tied_to]
            else:
                found[place] = tensors.whole_hash(self.tensors[place])
        return found

    def object_hashes(self) -> dict[str, int]:
        return {
            name: xxhash.xxh3_64_intdigest(encoded.encode())
            for name, encoded in sorted(self.state.objects.items())
        }


def describe(
    items: Sequence[WriteItem],
    planner: SavePlanner,
    *,
    ranks: Collection[int],
    per_rank: Sequence[str] = (),
    allow_pickle: bool = False,
) -> Local:
    local = Local(State([], _paths(planner)), [])
    places: dict[tuple[object, ...], int] = {}
    whole = getattr(planner, "state_dict", {})
    vouching: dict[DeviceMesh, bool] = {}
    for item in items:
        name = item.index.fqn
        own = any(fnmatch.fnmatchcase(name, pattern) for pattern in per_rank)
        if item.type is WriteItemType.BYTE_IO:
            encoded = json.dumps(
                codec.encode(name, _object(planner, item), allow_pickle=allow_pickle),
                separators=(",", ":"),
            )
            (local.state.own_objects if own else local.state.objects)[name] = encoded
            continue
        value = whole.get(name)
        refuse_unsound(name, value)
        tensor = planner.resolve_data(item).detach()
        kind = Kind.OWN if own else _kind(value, ranks, vouching)
        holding = _holding(item, tensor, kind)
        where = _memory_of(tensor)
        tied_to = places.setdefault(where, len(local.tensors)) if where else len(local.tensors)
        if tied_to != len(local.tensors):
            first = local.state.description[tied_to]
            alike = (first.shape, first.box, first.kind) == (
                holding.shape,
                holding.box,
                holding.kind,
            )
            holding = _holding(item, tensor, kind, tied_to if alike else -1)
        local.state.description.append(holding)
        local.tensors.append(tensor)
    return local


def _kind(value: object, ranks: Collection[int], vouching: dict[DeviceMesh, bool]) -> Kind:
    """A DTensor vouches that equal parts are equal only for the ranks of its mesh: tensor parallel
    ranks each have a norm of their own that FSDP cuts, and nothing keeps those equal."""
    if not isinstance(value, DTensor):
        return Kind.PLAIN
    mesh = value.device_mesh
    if mesh not in vouching:
        vouching[mesh] = set(mesh.mesh.flatten().tolist()).issuperset(ranks)
    return Kind.SHARD if vouching[mesh] else Kind.PLAIN


def _holding(item: WriteItem, tensor: torch.Tensor, kind: Kind, tied_to: int = -1) -> Holding:
    data = item.tensor_data
    assert data is not None, "the planner gives every tensor its box"
    dtype = tensors.dtype_name(tensor.dtype)
    if dtype not in ITEM_BYTES or str(tensor.layout) != "torch.strided":
        raise FsError(
            Code.NOT_SUPPORTED,
            f"tensor {item.index.fqn!r}: {dtype} with layout {tensor.layout} cannot be stored",
        )
    box = Box(tuple(data.chunk.offsets), tuple(data.chunk.sizes))
    if tuple(tensor.shape) != box.sizes:
        raise FsError(
            Code.INVALID,
            f"tensor {item.index.fqn!r}: its memory has shape {list(tensor.shape)} where the "
            f"planner says {list(box.sizes)}",
        )
    shape = tuple(data.size)
    if kind is Kind.OWN:
        shape = box.sizes
        box = Box((0,) * len(shape), shape)
    return Holding(item.index.fqn, dtype, shape, box, kind, tied_to)


def _memory_of(tensor: torch.Tensor) -> tuple[object, ...] | None:
    if not tensor.numel():
        return None
    place = (tensor.device, tensor.data_ptr(), tensor.is_conj(), tensor.is_neg())
    return (*place, tensor.dtype, tuple(tensor.shape), tensor.stride())


def _object(planner: SavePlanner, item: WriteItem) -> Any:  # noqa: ANN401
    """The object itself: what `resolve_data` gives would be a pickle of it."""
    look_up = getattr(planner, "lookup_object", None)
    if look_up is not None:
        return look_up(item.index)
    return planner.resolve_data(item).getvalue()


def refuse_unsound(name: str, value: object) -> None:
    """FsError for a DTensor whose local part is not what its one box says."""
    if not isinstance(value, DTensor):
        return
    if any(p.is_partial() for p in value.placements):
        raise FsError(
            Code.INVALID,
            f"tensor {name!r} has a Partial placement: what ranks hold has yet to be added up. "
            "Redistribute it before saving or loading",
        )
    for at, placement in enumerate(value.placements):
        parts = 1  # into which the placements that come after it cut the same dimension
        for dim, later in enumerate(value.placements[at + 1 :], at + 1):
            if getattr(later, "dim", None) == getattr(placement, "dim", -1):
                parts *= value.device_mesh.size(dim)
        if getattr(placement, "split_factor", 1) not in (1, parts):
            raise FsError(
                Code.NOT_SUPPORTED,
                f"tensor {name!r}: with {placement} of {list(value.placements)} a rank holds rows "
                "that are not neighbours, and DCP has no words for that. Redistribute it to Shard",
            )


def _paths(planner: SavePlanner) -> dict[str, list[str | int]]:
    mappings = getattr(planner, "mappings", None) or {}
    return {name: list(path) for name, path in mappings.items() if path != (name,)}
