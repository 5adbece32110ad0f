"""A committed checkpoint as a tool reads it: block by block, verified, without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import xxhash

from superfs.checkpoint import manifest as manifests
from superfs.checkpoint.boxes import Box, flat_range, range_boxes
from superfs.checkpoint.directory import DirectoryIO
from superfs.checkpoint.holdings import ITEM_BYTES
from superfs.checkpoint.limits import BLOCK_BYTES
from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from superfs.checkpoint.extentio import Source
    from superfs.checkpoint.manifest import Manifest, Objects, StoredPiece, StoredTensor


@dataclass(frozen=True, slots=True)
class Damage:
    file: str
    offset: int
    length: int
    what: str  # the tensor and block, or the objects
    why: str


@dataclass(slots=True)
class Verified:
    blocks: int = 0
    bytes: int = 0
    damage: list[Damage] = field(default_factory=list)


class Contents:
    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self.io = DirectoryIO(path)
        where = f"{path}/{manifests.FILE_NAME}"
        self.manifest: Manifest = manifests.decode(self.io.manifest(), where)
        self._sources: dict[int, Source] = {}

    def close(self) -> None:
        for source in self._sources.values():
            source.close()
        self._sources.clear()

    def __enter__(self) -> Contents:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def verify(self, progress: Callable[[int], None] = lambda _: None) -> Verified:
        """Reads everything and goes on after damage. `progress` gets the bytes of each step."""
        found = Verified()
        for tensor in self.manifest.tensors:
            for shard in tensor.shards:
                for piece in shard.pieces:
                    for number, damage in self._verify_piece(tensor, piece):
                        length = min(BLOCK_BYTES, piece.length - number * BLOCK_BYTES)
                        self._count(found, length, damage, progress)
        for objects in self.manifest.objects:
            damage = None
            try:
                self.objects(objects)
            except (FsError, OSError) as error:
                what = "objects " + ", ".join(objects.names[:3])
                damage = self._damage(objects.file, objects.offset, objects.length, what, error)
            self._count(found, objects.length, damage, progress)
        return found

    def tensor(self, tensor: StoredTensor) -> bytearray:
        """All of it, row-major. FsError DAMAGED where a block does not match its hash."""
        whole = bytearray(tensor.bytes)
        item = ITEM_BYTES[tensor.dtype]
        for shard in tensor.shards:
            for piece in shard.pieces:
                for number in range(len(piece.hashes)):
                    raw = memoryview(self.block(tensor.name, piece, number))
                    start = piece.start + number * BLOCK_BYTES
                    first, last = start // item, (start + len(raw)) // item
                    at = 0
                    for part in range_boxes(first, last, shard.box.sizes):
                        size = part.volume * item
                        _put(whole, tensor, shard.box, part, raw[at : at + size])
                        at += size
        return whole

    def block(self, name: str, piece: StoredPiece, number: int) -> bytearray:
        at = number * BLOCK_BYTES
        raw = bytearray(min(BLOCK_BYTES, piece.length - at))
        self._source(piece.file).pread([memoryview(raw)], piece.offset + at)
        if xxhash.xxh3_64_intdigest(raw) != piece.hashes[number]:
            block = (piece.start + at) // BLOCK_BYTES
            file = self.manifest.files[piece.file][0]
            raise FsError(
                Code.DAMAGED,
                f"{self.path}: {file}, {len(raw)} bytes at {piece.offset + at} do not match their "
                f"hash: block {block} of tensor {name!r}",
            )
        return raw

    def objects(self, objects: Objects) -> dict[str, Any]:
        """Encoded (`codec`), by name."""
        raw = bytearray(objects.length)
        self._source(objects.file).pread([memoryview(raw)], objects.offset)
        if xxhash.xxh3_64_intdigest(raw) != objects.xxh3:
            file = self.manifest.files[objects.file][0]
            names = ", ".join(map(repr, objects.names[:3]))
            more = " ..." if len(objects.names) > 3 else ""
            raise FsError(
                Code.DAMAGED,
                f"{self.path}: {file}, {objects.length} bytes at {objects.offset} do not match "
                f"their hash: the objects {names}{more}",
            )
        parsed: dict[str, Any] = json.loads(raw)
        return parsed

    def all_objects(self) -> dict[str, Any]:
        """Encoded; what each rank stored for itself as NAME@RANK."""
        found: dict[str, Any] = {}
        for objects in self.manifest.objects:
            suffix = "" if objects.rank < 0 else f"@{objects.rank}"
            found |= {name + suffix: value for name, value in self.objects(objects).items()}
        return found

    def _verify_piece(
        self, tensor: StoredTensor, piece: StoredPiece
    ) -> Iterator[tuple[int, Damage | None]]:
        for number in range(len(piece.hashes)):
            at = number * BLOCK_BYTES
            try:
                self.block(tensor.name, piece, number)
            except (FsError, OSError) as error:
                block = (piece.start + at) // BLOCK_BYTES
                what = f"block {block} of tensor {tensor.name!r}"
                length = min(BLOCK_BYTES, piece.length - at)
                yield number, self._damage(piece.file, piece.offset + at, length, what, error)
            else:
                yield number, None

    def _damage(
        self, file: int, offset: int, length: int, what: str, error: FsError | OSError
    ) -> Damage:
        why = error.detail if isinstance(error, FsError) else str(error)
        mismatch = "do not match" in why
        name = self.manifest.files[file][0]
        return Damage(name, offset, length, what, "its hash does not match" if mismatch else why)

    def _source(self, file: int) -> Source:
        found = self._sources.get(file)
        if found is None:
            found = self._sources[file] = self.io.open(self.manifest.files[file][0])
        return found

    @staticmethod
    def _count(
        found: Verified, length: int, damage: Damage | None, progress: Callable[[int], None]
    ) -> None:
        found.blocks += 1
        found.bytes += length
        if damage is not None:
            found.damage.append(damage)
        progress(length)


def _put(whole: bytearray, tensor: StoredTensor, shard: Box, part: Box, raw: memoryview) -> None:
    """Bytes of a box (relative to its shard, contiguous in it) to where they are in the tensor."""
    item = ITEM_BYTES[tensor.dtype]
    offsets = tuple(a + b for a, b in zip(part.offsets, shard.offsets, strict=True))
    flat = flat_range(Box(offsets, part.sizes), tensor.shape)
    if flat is not None:
        whole[flat[0] * item : flat[1] * item] = raw
        return
    dim = next(d for d, size in enumerate(part.sizes) if size > 1)
    row = len(raw) // part.sizes[dim]
    for index in range(part.sizes[dim]):
        lower = (*part.offsets[:dim], part.offsets[dim] + index, *part.offsets[dim + 1 :])
        sizes = (*part.sizes[:dim], 1, *part.sizes[dim + 1 :])
        _put(whole, tensor, shard, Box(lower, sizes), raw[index * row : (index + 1) * row])
