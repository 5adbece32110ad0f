"""`BalancedSavePlanner`: our balance for DCP's stock writer.

Stock formats store boxes, not byte ranges, so each piece becomes the boxes that it consists of. A
stock reader puts them together again.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex
from torch.distributed.checkpoint.planner import SavePlan, WriteItem, WriteItemType

from superfs.checkpoint import plan as planning
from superfs.checkpoint import tensors
from superfs.checkpoint.boxes import Box, range_boxes
from superfs.checkpoint.holdings import ITEM_BYTES, Description, Held, Holding, Kind, encode

if TYPE_CHECKING:
    import io

    from superfs.checkpoint.boxes import Ints


class BalancedSavePlanner(DefaultSavePlanner):
    """Deals what several ranks hold by byte ranges instead of whole items:

    dcp.save(state, storage_writer=FileSystemWriter(path), planner=BalancedSavePlanner())
    """

    def create_local_plan(self) -> SavePlan:
        plan = super().create_local_plan()
        if plan.usable:
            self._held: dict[str, list[tuple[Box, MetadataIndex]]] = {}
            for item in plan.items:
                if item.tensor_data is not None:
                    entry = (_box(item), item.index)
                    self._held.setdefault(item.index.fqn, []).append(entry)
        return plan

    def _dedup_save_plans(self, all_plans: list[SavePlan]) -> list[SavePlan]:
        sources = [[i for i in plan.items if i.tensor_data is not None] for plan in all_plans]
        made = planning.make(len(all_plans), _held_by(sources))
        objects: set[str] = set()
        plans = []
        for plan, items, pieces in zip(all_plans, sources, made.pieces, strict=True):
            kept = [_part(items[p.holding], box) for p in pieces for box in _boxes(items, p)]
            for item in plan.items:
                if item.tensor_data is None and item.index.fqn not in objects:
                    objects.add(item.index.fqn)
                    kept.append(item)
            plans.append(dataclasses.replace(plan, items=kept))
        first = {item.index.fqn: item for items in reversed(sources) for item in items}
        written = {item.index.fqn for plan in plans for item in plan.items}
        plans[0].items.extend(item for name, item in first.items() if name not in written)
        return plans

    def resolve_data(self, write_item: WriteItem) -> torch.Tensor | io.BytesIO:
        if write_item.tensor_data is None:
            return super().resolve_data(write_item)
        part = _box(write_item)
        for box, index in self._held[write_item.index.fqn]:
            inside = [
                a <= p and p + n <= a + m
                for a, m, p, n in zip(*box, *part, strict=True)  # offsets and sizes of both
            ]
            if all(inside):
                tensor: torch.Tensor = self.lookup_object(index)
                for dim, (start, size) in enumerate(zip(*part, strict=True)):
                    tensor = tensor.narrow(dim, start - box.offsets[dim], size)
                return self.transform_object(write_item, tensor)
        raise ValueError(f"{write_item.index.fqn}: this rank does not hold {part}")


def _held_by(sources: list[list[WriteItem]]) -> list[Held]:
    """Ranks with equal items together."""
    ranks: dict[bytes, list[int]] = {}
    descriptions: dict[bytes, Description] = {}
    for rank, items in enumerate(sources):
        description = [_holding(item) for item in items]
        key = encode(description, {})
        ranks.setdefault(key, []).append(rank)
        descriptions[key] = description
    return [Held(descriptions[key], tuple(of_key)) for key, of_key in ranks.items()]


def _holding(item: WriteItem) -> Holding:
    data = item.tensor_data
    assert data is not None, "only tensors are held"
    dtype = tensors.dtype_name(data.properties.dtype)
    return Holding(item.index.fqn, dtype, tuple(data.size), _box(item), Kind.SHARD)


def _box(item: WriteItem) -> Box:
    data = item.tensor_data
    assert data is not None, "only tensors have boxes"
    return Box(tuple(data.chunk.offsets), tuple(data.chunk.sizes))


def _boxes(items: list[WriteItem], piece: planning.Piece) -> list[Box]:
    """What a piece consists of, in coordinates of the tensor."""
    shard, size = _box(items[piece.holding]), ITEM_BYTES[_holding(items[piece.holding]).dtype]
    return [
        Box(_sum(shard.offsets, part.offsets), part.sizes)
        for part in range_boxes(piece.start // size, piece.stop // size, shard.sizes)
    ]


def _sum(one: Ints, other: Ints) -> Ints:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _part(item: WriteItem, box: Box) -> WriteItem:
    assert item.tensor_data is not None, "only tensors have parts"
    offsets = torch.Size(box.offsets)
    chunk = ChunkStorageMetadata(offsets, torch.Size(box.sizes))
    return dataclasses.replace(
        item,
        index=MetadataIndex(item.index.fqn, offsets),
        type=WriteItemType.SHARD,
        tensor_data=dataclasses.replace(item.tensor_data, chunk=chunk),
    )
