"""Checkpoints in other formats: stock DCP and safetensors, to and from. In one process, with the
whole state in memory where DCP is on either side."""

from __future__ import annotations

import contextlib
import os
import warnings
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

from superfs.checkpoint import manifest as manifests
from superfs.checkpoint import safetensors
from superfs.checkpoint.contents import Contents
from superfs.checkpoint.metadata import metadata_of
from superfs.checkpoint.reader import SuperFSReader
from superfs.checkpoint.tensors import dtype_of
from superfs.checkpoint.writer import SuperFSWriter
from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch.distributed.checkpoint.metadata import Metadata

FORMATS = ("superfs", "dcp", "safetensors")


def format_of(path: Path) -> str:
    """What lies there; FsError NOT_FOUND or BAD_FORMAT."""
    if path.is_dir():
        if (path / manifests.FILE_NAME).exists():
            return "superfs"
        if (path / ".metadata").exists():
            return "dcp"
        if any(path.glob("*.safetensors")):
            return "safetensors"
        raise FsError(Code.BAD_FORMAT, f"{path} is no checkpoint of a kind that is known here")
    if not path.exists():
        raise FsError(Code.NOT_FOUND, f"there is no checkpoint at {path}")
    if path.suffix == ".safetensors":
        return "safetensors"
    raise FsError(Code.BAD_FORMAT, f"{path} is no checkpoint of a kind that is known here")


def convert(source: Path, target: Path, to: str, *, allow_pickle: bool = False) -> None:
    """FsError EXISTS if there is anything at the target."""
    if os.path.lexists(target):
        raise FsError(Code.EXISTS, f"{target} is there already")
    kind = format_of(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # DCP: that this is not distributed
        if kind == "superfs" and to == "safetensors":
            to_safetensors(source, target)
            return
        state = _load(source, kind, allow_pickle=allow_pickle)
        if to == "superfs":
            writer = SuperFSWriter(target, no_dist=True, allow_pickle=allow_pickle)
            dcp.save(state, storage_writer=writer, no_dist=True)
        elif to == "dcp":
            dcp.save(state, storage_writer=dcp.FileSystemWriter(target), no_dist=True)
        else:
            _write_safetensors(state, target)


def to_safetensors(source: Path, target: Path) -> None:
    """Tensor after tensor, verified. Refused: objects and what ranks stored for themselves have no
    place there, and are left out."""
    with Contents(source) as contents:
        tensors = [t for t in contents.manifest.tensors if t.rank < 0]
        by_name = {t.name: t for t in tensors}
        listed = [(t.name, t) for t in tensors]
        tied = contents.manifest.same.items()
        listed += [(name, by_name[first]) for name, first in tied if first in by_name]
        with _new_file(target) as beside:
            safetensors.write(
                beside,
                [(name, t.dtype, t.shape) for name, t in listed],
                (contents.tensor(t) for _, t in listed),
                {"format": "pt"},
            )


class _SharedReader(SuperFSReader):
    """Sees what is everybody's: what one rank stored for itself is not the others'."""

    def read_metadata(self, *args: object, **kwargs: object) -> Metadata:
        super().read_metadata(*args, **kwargs)
        assert self._manifest is not None, "that has read it"
        return metadata_of(self._manifest, -1)


def _load(source: Path, kind: str, *, allow_pickle: bool) -> dict[str, Any]:
    if kind == "safetensors":
        return _read_safetensors(source)
    state: dict[str, Any] = {}
    if kind == "dcp":
        if not allow_pickle:
            raise FsError(
                Code.NOT_PERMITTED,
                f"{source}: stock checkpoints are pickles, which can run any code when they are "
                "read: --allow-pickle if you trust their origin",
            )
        reader: Any = dcp.FileSystemReader(source)
    else:
        reader = _SharedReader(source, no_dist=True, allow_pickle=allow_pickle)
    # `dcp.load` would give back only what the state had in it before.
    _load_state_dict(state, reader, planner=_EmptyStateDictLoadPlanner(), no_dist=True)
    return state


def _read_safetensors(source: Path) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for path in sorted(source.glob("*.safetensors")) if source.is_dir() else [source]:
        found, _ = safetensors.header_of(path)
        with path.open("rb") as file:
            for name, (dtype, shape, offset, size) in found.items():
                if name in state:
                    raise FsError(Code.BAD_FORMAT, f"{source}: tensor {name!r} is in two files")
                file.seek(offset)
                raw = bytearray(file.read(size))
                kind = dtype_of(dtype)
                flat = torch.frombuffer(raw, dtype=kind) if raw else torch.empty(0, dtype=kind)
                state[name] = flat.reshape(shape)
    return state


def _write_safetensors(state: dict[str, Any], target: Path) -> None:
    from torch.distributed.checkpoint._nested_dict import flatten_state_dict

    from superfs.checkpoint.tensors import dtype_name, memory, part

    flat = {n: t for n, t in flatten_state_dict(state)[0].items() if isinstance(t, torch.Tensor)}
    with _new_file(target) as beside:
        safetensors.write(
            beside,
            [(name, dtype_name(t.dtype), tuple(t.shape)) for name, t in flat.items()],
            (bytes(memory(part(t, 0, t.numel() * t.element_size()))) for t in flat.values()),
            {"format": "pt"},
        )


@contextlib.contextmanager
def _new_file(target: Path) -> Iterator[Path]:
    """Beside its place until it is whole."""
    beside = target.with_name(f".{target.name}.unfinished")
    beside.unlink(missing_ok=True)
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.rename(target)
    finally:
        beside.unlink(missing_ok=True)
