"""Tensors as bytes: views of their memory, hashes of it, where in it a box lies."""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING

import torch
import xxhash

from superfs.checkpoint.limits import BLOCK_BYTES, SAMPLE_BYTES, SAMPLES_PER_TENSOR

if TYPE_CHECKING:
    from collections.abc import Sequence


@functools.cache
def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@functools.cache
def dtype_of(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"this PyTorch has no dtype {name}")
    return found


def memory(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous tensor in host memory, not copied; keeps the tensor alive."""
    assert tensor.is_contiguous()
    assert tensor.device.type == "cpu"
    size = tensor.numel() * tensor.element_size()
    if not size:
        return memoryview(b"")
    array = (ctypes.c_char * size).from_address(tensor.data_ptr())
    array.tensor = tensor
    return memoryview(array).cast("B")


_memmove = ctypes.CDLL(None).memmove  # unlike ctypes.memmove it lets other threads run
_memmove.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_memmove.restype = ctypes.c_void_p


def copy(into: torch.Tensor, data: torch.Tensor) -> None:
    """Bytes, both contiguous in host memory: past the cache, which PyTorch's own copy is not."""
    assert into.numel() == data.numel()
    assert into.is_contiguous()
    assert data.is_contiguous()
    _memmove(into.data_ptr(), data.data_ptr(), data.numel())


def part(tensor: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """Bytes [start, stop) of a tensor's elements in row-major order: one-dimensional, in host
    memory, a view where that is possible."""
    item = tensor.element_size()
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return plain.reshape(-1)[start // item : stop // item].cpu().view(torch.uint8)


def blocks(size: int) -> Sequence[tuple[int, int]]:
    """(start, stop) of the blocks that are hashed, of so many bytes."""
    return [(at, min(at + BLOCK_BYTES, size)) for at in range(0, size, BLOCK_BYTES)]


def everything(tensor: torch.Tensor) -> memoryview:
    """All bytes in row-major order, without a copy where that is possible."""
    if tensor.is_contiguous() and tensor.device.type == "cpu" and not _lazy(tensor):
        return memory(tensor)
    return memory(part(tensor, 0, tensor.numel() * tensor.element_size()))


def _lazy(tensor: torch.Tensor) -> bool:
    """Whether its memory does not hold what it stands for."""
    return bool(tensor.is_conj() or tensor.is_neg())


def whole_hash(tensor: torch.Tensor) -> int:
    raw = everything(tensor)
    if len(raw) <= BLOCK_BYTES:
        return xxhash.xxh3_64_intdigest(raw)
    found = xxhash.xxh3_64()
    for start, stop in blocks(len(raw)):
        found.update(raw[start:stop])
    return found.intdigest()


def sampled_hash(tensor: torch.Tensor, seed: int) -> int:
    """Of blocks that `seed` chooses: the same on all ranks that use the same."""
    size = tensor.numel() * tensor.element_size()
    if size <= SAMPLE_BYTES * SAMPLES_PER_TENSOR:
        return whole_hash(tensor)
    raw = everything(tensor) if tensor.device.type == "cpu" else None
    found = xxhash.xxh3_64()
    for number in range(SAMPLES_PER_TENSOR):
        # a step of the splitmix generator: `random` would take as long as all the rest
        chosen = (seed + (number + 1) * 0x9E3779B97F4A7C15) % 2**64
        chosen = (chosen ^ chosen >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        start = (chosen ^ chosen >> 27) % (size - SAMPLE_BYTES) // 16 * 16
        stop = start + SAMPLE_BYTES
        found.update(memory(part(tensor, start, stop)) if raw is None else raw[start:stop])
    return found.intdigest()
