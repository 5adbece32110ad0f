"""What one rank holds of a state: the description from which plans are made. No IO, no torch.

A rank describes every tensor shard that it holds (`Holding`), in the order of its state dict. The
description, encoded, is its key in the cache of plans: equal keys of all ranks, equal plan.
"""

from __future__ import annotations

import enum
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import xxhash

from superfs.checkpoint.boxes import Box

if TYPE_CHECKING:
    from superfs.checkpoint.boxes import Ints

ITEM_BYTES = {
    **dict.fromkeys(("bool", "uint8", "int8"), 1),
    **dict.fromkeys(("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"), 1),
    **dict.fromkeys(("float8_e8m0fnu", "float4_e2m1fn_x2"), 1),
    **dict.fromkeys(("uint16", "int16", "float16", "bfloat16"), 2),
    **dict.fromkeys(("uint32", "int32", "float32", "complex32"), 4),
    **dict.fromkeys(("uint64", "int64", "float64", "complex64"), 8),
    "complex128": 16,
}


class Kind(enum.IntEnum):
    SHARD = 0  # of a DTensor over all ranks: who holds the same box holds the same bytes
    PLAIN = 1  # a tensor, or part of one, of which equality is checked before it is a replica
    OWN = 2  # declared to be each rank's own


@dataclass(frozen=True, slots=True)
class Holding:
    name: str
    dtype: str
    shape: Ints  # of the whole tensor
    box: Box  # which part of it
    kind: Kind
    tied_to: int = -1  # the earlier holding of the same description with the same memory

    @property
    def bytes(self) -> int:
        return self.box.volume * ITEM_BYTES[self.dtype]


Description = list[Holding]


@dataclass(frozen=True, slots=True)
class Held:
    """One description and the ranks that sent it."""

    description: Description
    ranks: tuple[int, ...]


def encode(description: Description, paths: dict[str, list[str | int]]) -> bytes:
    rows = [
        (h.name, h.dtype, h.shape, h.box.offsets, h.box.sizes, int(h.kind), h.tied_to)
        for h in description
    ]
    return json.dumps([rows, paths], separators=(",", ":")).encode()


def decode(encoded: bytes) -> tuple[Description, dict[str, list[str | int]]]:
    rows, paths = json.loads(encoded)
    description = [
        Holding(name, dtype, tuple(shape), Box(tuple(offsets), tuple(sizes)), Kind(kind), tied_to)
        for name, dtype, shape, offsets, sizes, kind, tied_to in rows
    ]
    return description, paths


def key_of(encoded: bytes, options: str) -> bytes:
    """16 bytes that stand for a description and for the options it is to be planned with."""
    return xxhash.xxh3_128_digest(options.encode() + b"\0" + encoded)


def tensor_bytes(dtype: str, shape: Ints) -> int:
    return math.prod(shape) * ITEM_BYTES[dtype]
