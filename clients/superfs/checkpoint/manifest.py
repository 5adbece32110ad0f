"""The manifest: where every byte of a checkpoint lies, and what it hashes to.

    {"format": "superfs-checkpoint", "version": 1, "xxh3": "<16 hex digits>", "body": {...}}

The hash is xxh3_64 of the body's bytes as they stand in the file. The body:

    id                 of the attempt that became this checkpoint
    created_unix_s, world_size, block_bytes, made_by
    files              [[name, bytes], ...]; all else names a file by its place here
    tensors            [{name, rank, dtype, shape, shards: [[offsets, sizes, pieces], ...]}, ...]
                       rank: whose own it is, -1 for everybody's
        pieces         [[file, offset in it, start, length, "hash hash ..."], ...]: bytes
                       [start, start + length) of the row-major shard, xxh3_64 of every 4 MiB
    same               {name: the name under which the same memory is stored}
    objects            [{rank, names, file, offset, length, xxh3}, ...]: what is not a tensor,
                       one JSON object each (`codec`)
    paths              {name: [key, ...]}: where in the nested state the name comes from
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import xxhash

from superfs.checkpoint.boxes import Box, overlapping
from superfs.checkpoint.holdings import ITEM_BYTES, tensor_bytes
from superfs.checkpoint.limits import BLOCK_BYTES
from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from superfs.checkpoint.boxes import Ints

FILE_NAME = "manifest.json"
VERSION = 1
_HEAD = '{"format":"superfs-checkpoint","version":%d,"xxh3":"%016x","body":'
_TAIL = b"}\n"


@dataclass(frozen=True, slots=True)
class StoredPiece:
    file: int
    offset: int
    start: int
    length: int
    hashes: tuple[int, ...]

    @property
    def stop(self) -> int:
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class StoredShard:
    box: Box
    pieces: tuple[StoredPiece, ...]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    name: str
    rank: int
    dtype: str
    shape: Ints
    shards: tuple[StoredShard, ...]

    @property
    def bytes(self) -> int:
        return tensor_bytes(self.dtype, self.shape)


@dataclass(frozen=True, slots=True)
class Objects:
    rank: int
    names: tuple[str, ...]
    file: int
    offset: int
    length: int
    xxh3: int


@dataclass(slots=True)
class Manifest:
    id: str
    created_unix_s: float
    world_size: int
    made_by: str
    files: list[tuple[str, int]]
    tensors: list[StoredTensor]
    same: dict[str, str] = field(default_factory=dict)
    objects: list[Objects] = field(default_factory=list)
    paths: dict[str, list[str | int]] = field(default_factory=dict)

    def tensors_of(self, rank: int) -> dict[str, StoredTensor]:
        """By name, as this rank sees them: what is everybody's, what is its own, tied names."""
        seen = {t.name: t for t in self.tensors if t.rank in (-1, rank)}
        seen |= {name: seen[first] for name, first in self.same.items() if first in seen}
        return seen

    def objects_of(self, rank: int) -> dict[str, Objects]:
        return {name: o for o in self.objects if o.rank in (-1, rank) for name in o.names}

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.files)


def encode(manifest: Manifest) -> bytes:
    body = json.dumps(_body(manifest), separators=(",", ":")).encode()
    return (_HEAD % (VERSION, xxhash.xxh3_64_intdigest(body))).encode() + body + _TAIL


def decode(raw: bytes, where: str) -> Manifest:
    """FsError BAD_FORMAT: not ours, or of a later version; DAMAGED: ours, and changed."""
    head = (_HEAD % (VERSION, 0)).encode()
    if not raw.startswith(head[: head.index(b"1,")]):
        raise FsError(Code.BAD_FORMAT, f"{where} is not the manifest of a SuperFS checkpoint")
    if not raw.startswith(head[: head.index(b'"xxh3"')]):
        raise FsError(Code.BAD_FORMAT, f"{where} is of a version that this program does not know")
    body = raw[len(head) : -len(_TAIL)]
    expected = (_HEAD % (VERSION, xxhash.xxh3_64_intdigest(body))).encode()
    if raw[: len(head)] != expected or not raw.endswith(_TAIL):
        raise FsError(Code.DAMAGED, f"{where} does not match its own hash")
    try:
        manifest = _parse(json.loads(body))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise FsError(Code.BAD_FORMAT, f"{where} cannot be understood: {error!r}") from None
    check(manifest, where)
    return manifest


def check(manifest: Manifest, where: str) -> None:
    """Every byte of every tensor is stored exactly once, no two pieces share bytes of a file."""
    taken: dict[int, list[tuple[int, int, str]]] = {n: [] for n in range(len(manifest.files))}

    def take(file: int, offset: int, length: int, name: str) -> None:
        if file not in taken:
            raise FsError(Code.DAMAGED, f"{where}: {name!r} is in a file that is not listed")
        taken[file].append((offset, offset + length, name))

    for tensor in manifest.tensors:
        if overlapping([shard.box for shard in tensor.shards]) is not None:
            raise FsError(Code.DAMAGED, f"{where}: tensor {tensor.name!r}: shards overlap")
        total = 0
        for shard in tensor.shards:
            at = 0
            for piece in sorted(shard.pieces, key=lambda p: p.start):
                if piece.start != at or len(piece.hashes) != -(-piece.length // BLOCK_BYTES):
                    raise FsError(
                        Code.DAMAGED,
                        f"{where}: tensor {tensor.name!r}: bytes {at} to {piece.start} of a shard "
                        "are stored twice or not at all",
                    )
                at = piece.stop
                take(piece.file, piece.offset, piece.length, tensor.name)
            if at != shard.box.volume * ITEM_BYTES[tensor.dtype]:
                raise FsError(
                    Code.DAMAGED, f"{where}: tensor {tensor.name!r}: a shard's end is not stored"
                )
            total += at
        if total != tensor.bytes:
            raise FsError(
                Code.DAMAGED,
                f"{where}: tensor {tensor.name!r}: {total} of its {tensor.bytes} bytes are stored",
            )
    for objects in manifest.objects:
        take(objects.file, objects.offset, objects.length, "objects")
    for file, ranges in taken.items():
        end, (file_name, size) = 0, manifest.files[file]
        for start, stop, name in sorted(ranges):
            if start < end or stop > size:
                raise FsError(
                    Code.DAMAGED, f"{where}: {name!r} has no place of its own in {file_name}"
                )
            end = stop


def _body(manifest: Manifest) -> dict[str, Any]:
    return {
        "id": manifest.id,
        "created_unix_s": manifest.created_unix_s,
        "world_size": manifest.world_size,
        "made_by": manifest.made_by,
        "block_bytes": BLOCK_BYTES,
        "files": manifest.files,
        "tensors": [
            {
                "name": t.name,
                "rank": t.rank,
                "dtype": t.dtype,
                "shape": t.shape,
                "shards": [
                    [s.box.offsets, s.box.sizes, [_piece(piece) for piece in s.pieces]]
                    for s in t.shards
                ],
            }
            for t in manifest.tensors
        ],
        "same": manifest.same,
        "objects": [
            {
                "rank": o.rank,
                "names": o.names,
                "file": o.file,
                "offset": o.offset,
                "length": o.length,
                "xxh3": f"{o.xxh3:016x}",
            }
            for o in manifest.objects
        ],
        "paths": manifest.paths,
    }


def _piece(piece: StoredPiece) -> list[Any]:
    hashes = " ".join(f"{h:016x}" for h in piece.hashes)
    return [piece.file, piece.offset, piece.start, piece.length, hashes]


def _parse(body: dict[str, Any]) -> Manifest:
    if body["block_bytes"] != BLOCK_BYTES:
        raise ValueError(f"blocks of {body['block_bytes']} bytes")
    return Manifest(
        id=body["id"],
        created_unix_s=body["created_unix_s"],
        world_size=body["world_size"],
        made_by=body["made_by"],
        files=[(name, size) for name, size in body["files"]],
        tensors=[
            StoredTensor(
                t["name"],
                t["rank"],
                t["dtype"],
                tuple(t["shape"]),
                tuple(
                    StoredShard(
                        Box(tuple(offsets), tuple(sizes)),
                        tuple(
                            StoredPiece(f, at, start, n, tuple(int(h, 16) for h in hashes.split()))
                            for f, at, start, n, hashes in pieces
                        ),
                    )
                    for offsets, sizes, pieces in t["shards"]
                ),
            )
            for t in body["tensors"]
        ],
        same=body["same"],
        objects=[
            Objects(
                o["rank"],
                tuple(o["names"]),
                o["file"],
                o["offset"],
                o["length"],
                int(o["xxh3"], 16),
            )
            for o in body["objects"]
        ],
        paths=body["paths"],
    )
