"""A manifest as DCP's planners want to see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)

from superfs.checkpoint.tensors import dtype_of

if TYPE_CHECKING:
    from superfs.checkpoint.manifest import Manifest, StoredTensor


def metadata_of(manifest: Manifest, rank: int) -> Metadata:
    """As this rank is to see it: what is everybody's, and what it stored for itself."""
    entries: dict[str, TensorStorageMetadata | BytesStorageMetadata] = {
        name: _tensor(tensor) for name, tensor in manifest.tensors_of(rank).items()
    }
    entries |= {name: BytesStorageMetadata() for name in manifest.objects_of(rank)}
    paths = {name: tuple(path) for name, path in manifest.paths.items()}
    mappings = {name: paths.get(name, (name,)) for name in entries}
    return Metadata(entries, planner_data=mappings)


def _tensor(tensor: StoredTensor) -> TensorStorageMetadata:
    return TensorStorageMetadata(
        TensorProperties(dtype=dtype_of(tensor.dtype)),
        torch.Size(tensor.shape),
        [
            ChunkStorageMetadata(torch.Size(shard.box.offsets), torch.Size(shard.box.sizes))
            for shard in tensor.shards
        ]
        or [ChunkStorageMetadata(torch.Size([0] * len(tensor.shape)), torch.Size(tensor.shape))],
    )
