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
UNIX_S_END = 253_402_000_000.0
"""The year 10,000: later moments have no date."""
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
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise FsError(Code.BAD_FORMAT, f"{where} cannot be understood: {error!r}") from None
    check(manifest, where)
    return manifest


def check(manifest: Manifest, where: str) -> None:
    """Every byte of every tensor is stored exactly once, no two pieces share bytes of a file, and a
    name stands for one thing."""
    _check_names(manifest, where)
    taken: dict[int, list[tuple[int, int, str]]] = {n: [] for n in range(len(manifest.files))}

    def take(file: int, offset: int, length: int, name: str) -> None:
        if file not in taken:
            raise FsError(Code.DAMAGED, f"{where}: {name!r} is in a file that is not listed")
        taken[file].append((offset, offset + length, name))

    for tensor in manifest.tensors:
        if not all(_within(shard.box, tensor.shape) for shard in tensor.shards):
            raise FsError(
                Code.DAMAGED, f"{where}: tensor {tensor.name!r}: a shard is outside of it"
            )
        if overlapping([shard.box for shard in tensor.shards]) is not None:
            raise FsError(Code.DAMAGED, f"{where}: tensor {tensor.name!r}: shards overlap")
        total, item = 0, ITEM_BYTES[tensor.dtype]
        for shard in tensor.shards:
            at = 0
            for piece in sorted(shard.pieces, key=lambda p: p.start):
                if piece.start % item or piece.length % item or not piece.length:
                    raise FsError(
                        Code.DAMAGED, f"{where}: tensor {tensor.name!r}: an element is cut in two"
                    )
                if piece.start != at or len(piece.hashes) != -(-piece.length // BLOCK_BYTES):
                    raise FsError(
                        Code.DAMAGED,
                        f"{where}: tensor {tensor.name!r}: bytes {at} to {piece.start} of a shard "
                        "are stored twice or not at all",
                    )
                at = piece.stop
                take(piece.file, piece.offset, piece.length, tensor.name)
            if at != shard.box.volume * item:
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


def _within(box: Box, shape: Ints) -> bool:
    """Whether there is such a box, with anything in it, in a tensor of this shape."""
    if not len(box.offsets) == len(box.sizes) == len(shape) or not box.volume:
        return False
    return all(at + n <= full for at, n, full in zip(box.offsets, box.sizes, shape, strict=True))


def _check_names(manifest: Manifest, where: str) -> None:
    """No rank finds two things under one name, nor a name without anything."""
    tensors = [(tensor.name, tensor.rank) for tensor in manifest.tensors]
    known = {name for name, _ in tensors}
    entries = tensors + [(name, o.rank) for o in manifest.objects for name in o.names]
    ranks: dict[str, set[int]] = {}
    for name, rank in entries:
        others = ranks.setdefault(name, set())
        if rank in others or (others and -1 in (rank, *others)):
            raise FsError(Code.DAMAGED, f"{where}: {name!r} stands for two things")
        if rank >= manifest.world_size:
            raise FsError(Code.DAMAGED, f"{where}: {name!r} is of rank {rank}, which there is not")
        others.add(rank)
    for name, first in manifest.same.items():
        if name in ranks or first not in known:
            raise FsError(Code.DAMAGED, f"{where}: {name!r} is not tied to {first!r} alone")
    if len({name for name, _ in manifest.files}) != len(manifest.files):
        raise FsError(Code.DAMAGED, f"{where}: a file is listed twice")


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
    """Raises KeyError, TypeError or ValueError: other programs write JSON, too."""
    if body["block_bytes"] != BLOCK_BYTES:
        raise ValueError(f"blocks of {body['block_bytes']} bytes")
    return Manifest(
        id=_text(body["id"]),
        created_unix_s=_moment(body["created_unix_s"]),
        world_size=_number(body["world_size"]),
        made_by=_text(body["made_by"]),
        files=[(_text(name), _number(size)) for name, size in body["files"]],
        tensors=[_parsed_tensor(tensor) for tensor in body["tensors"]],
        same={name: _text(first) for name, first in body["same"].items()},
        objects=[
            Objects(
                _number(o["rank"], -1),
                tuple(_text(name) for name in o["names"]),
                _number(o["file"]),
                _number(o["offset"]),
                _number(o["length"]),
                int(o["xxh3"], 16),
            )
            for o in body["objects"]
        ],
        paths={name: list(path) for name, path in body["paths"].items()},
    )


def _parsed_tensor(tensor: dict[str, Any]) -> StoredTensor:
    dtype = tensor["dtype"]
    if dtype not in ITEM_BYTES:
        raise ValueError(f"tensor {tensor['name']!r} is of dtype {dtype!r}, which is not known")
    shards = [
        StoredShard(
            Box(_numbers(offsets), _numbers(sizes)),
            tuple(_parsed_piece(*piece) for piece in pieces),
        )
        for offsets, sizes, pieces in tensor["shards"]
    ]
    rank, shape = _number(tensor["rank"], -1), _numbers(tensor["shape"])
    return StoredTensor(_text(tensor["name"]), rank, dtype, shape, tuple(shards))


def _parsed_piece(
    file: object, offset: object, start: object, length: object, hashes: str
) -> StoredPiece:
    found = tuple(int(one, 16) for one in hashes.split())
    return StoredPiece(_number(file), _number(offset), _number(start), _number(length), found)


def _number(value: Any, least: int = 0) -> int:  # noqa: ANN401
    if type(value) is not int or value < least:
        raise ValueError(f"{value!r} where a number of at least {least} was expected")
    return value


def _numbers(values: Any) -> Ints:  # noqa: ANN401
    return tuple(_number(value) for value in values)


def _moment(value: Any) -> float:  # noqa: ANN401
    if type(value) not in (int, float) or not 0 <= value < UNIX_S_END:
        raise ValueError(f"{value!r} where a time was expected")
    return float(value)


def _text(value: Any) -> str:  # noqa: ANN401
    if type(value) is not str:
        raise TypeError(f"{value!r} where text was expected")
    return value
