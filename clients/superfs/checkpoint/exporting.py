"""`export_dcp=True`: the same bytes once more, as stock DCP reads them.

Beside the files of ours lie `__RANK_0.distcp`, in which every box is a `torch.save` of its own, and
`.metadata`, a pickle: that is what the stock format is. What ranks store for themselves has no
place in it.
"""

from __future__ import annotations

import io as memory_io
import json
import pickle
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from superfs.checkpoint import codec
from superfs.checkpoint.boxes import range_boxes
from superfs.checkpoint.holdings import Kind
from superfs.checkpoint.tensors import dtype_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from superfs.checkpoint.boxes import Ints
    from superfs.checkpoint.extentio import ExtentIO, Sink
    from superfs.checkpoint.holdings import Description
    from superfs.checkpoint.plan import Piece

METADATA = ".metadata"


class Exported(NamedTuple):
    name: str
    dtype: str  # "": an object
    shape: Ints
    offsets: Ints
    sizes: Ints
    file: str
    offset: int
    length: int


class _StockFile:
    def __init__(self, sink: Sink, file: str) -> None:
        self._sink, self._file, self._at = sink, file, 0
        self.found: list[Exported] = []

    def tensor(self, name: str, dtype: str, shape: Ints, offsets: Ints, box: torch.Tensor) -> None:
        at, length = self._save(box.clone())  # a view would be saved with all that it is a view of
        self.found.append(
            Exported(name, dtype, shape, offsets, tuple(box.shape), self._file, at, length)
        )

    def value(self, name: str, value: object) -> None:
        self.found.append(Exported(name, "", (), (), (), self._file, *self._save(value)))

    def _save(self, value: object) -> tuple[int, int]:
        raw = memory_io.BytesIO()
        torch.save(value, raw)
        at = self._at
        self._sink.pwrite([raw.getbuffer()], at)
        self._at += raw.tell()
        return at, raw.tell()


def export(
    io: ExtentIO,
    attempt: str,
    rank: int,
    description: Description,
    pieces: Iterable[tuple[Piece, torch.Tensor]],
    objects: dict[str, str],
    *,
    durable: bool,
    allow_pickle: bool,
) -> list[Exported]:
    """A rank's part. `pieces`: with their bytes."""
    file = f"__{rank}_0.distcp"
    sink = io.create(attempt, file, durable=durable)
    try:
        out = _StockFile(sink, file)
        for piece, raw in pieces:
            holding = description[piece.holding]
            if holding.kind is Kind.OWN:
                continue
            dtype = dtype_of(holding.dtype)
            at = piece.start // dtype.itemsize
            elements = raw.view(dtype)
            for part in range_boxes(at, piece.stop // dtype.itemsize, holding.box.sizes):
                offsets = _sum(holding.box.offsets, part.offsets)
                box, elements = elements[: part.volume], elements[part.volume :]
                out.tensor(
                    holding.name, holding.dtype, holding.shape, offsets, box.view(part.sizes)
                )
        for name, encoded in objects.items():
            value = codec.decode(name, json.loads(encoded), allow_pickle=allow_pickle)
            out.value(name, value)
        if durable:
            sink.sync()
        return out.found
    finally:
        sink.close()


def write_metadata(
    io: ExtentIO,
    attempt: str,
    seen: Metadata,
    same: dict[str, str],
    exported: Sequence[Exported],
    *,
    durable: bool,
) -> None:
    """On the coordinator. `seen`: ours, which knows names and paths."""
    entries: dict[str, TensorStorageMetadata | BytesStorageMetadata] = {}
    places: dict[MetadataIndex, _StorageInfo] = {}
    names: dict[str, list[str]] = {}
    for tied, first in same.items():
        names.setdefault(first, []).append(tied)
    for one in exported:
        for name in (one.name, *names.get(one.name, ())):
            info = _StorageInfo(one.file, one.offset, one.length)
            if not one.dtype:
                entries[name] = BytesStorageMetadata()
                places[MetadataIndex(name)] = info
                continue
            entry = entries.setdefault(
                name,
                TensorStorageMetadata(
                    TensorProperties(dtype=dtype_of(one.dtype)), torch.Size(one.shape), []
                ),
            )
            assert isinstance(entry, TensorStorageMetadata), "a name is a tensor or it is not"
            offsets = torch.Size(one.offsets)
            places[MetadataIndex(name, offsets, len(entry.chunks))] = info
            entry.chunks.append(ChunkStorageMetadata(offsets, torch.Size(one.sizes)))
    for name, found in seen.state_dict_metadata.items():
        if isinstance(found, TensorStorageMetadata) and not found.size.numel():
            entries.setdefault(name, TensorStorageMetadata(found.properties, found.size, []))
    metadata = Metadata(
        entries,
        planner_data={n: p for n, p in seen.planner_data.items() if n in entries},
        storage_data=places,
        storage_meta=StorageMeta(),
    )
    sink = io.create(attempt, METADATA, durable=durable)
    try:
        sink.pwrite([memoryview(pickle.dumps(metadata))], 0)
        if durable:
            sink.sync()
    finally:
        sink.close()


def _sum(one: Ints, other: Ints) -> Ints:
    return tuple(a + b for a, b in zip(one, other, strict=True))
