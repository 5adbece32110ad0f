"""From boxes that somebody wants to blocks of files, and from verified blocks to where they go.

The unit is the block: what one hash covers. A block of which all bytes are wanted, in order and in
host memory, is read to its destination; any other to memory of our own, from where the wanted
boxes are copied. Nothing is handed on before its hash was seen to be right.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
import xxhash

from superfs.checkpoint import tensors
from superfs.checkpoint.boxes import Box, flat_range, intersection, range_boxes
from superfs.checkpoint.limits import (
    ALIGN_BYTES,
    BLOCK_BYTES,
    READ_BATCH_BLOCKS,
    READ_BATCH_BYTES,
    READ_HOT_BYTES,
    READ_THREADS_MIN,
)
from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

    from superfs.checkpoint.extentio import ExtentIO, Source
    from superfs.checkpoint.manifest import Manifest, StoredPiece, StoredShard

_PADDING = memoryview(bytearray(ALIGN_BYTES))


class Place(NamedTuple):
    """Of a block: identity, order in storage."""

    file: int
    offset: int


@dataclass(slots=True)
class Want:
    """A box of a stored shard, and the tensor of its shape that it goes to."""

    name: str
    dtype: torch.dtype
    shard: StoredShard
    box: Box  # relative to the shard
    into: torch.Tensor
    flat: tuple[int, int] | None = None  # bytes of the shard, if it can be read to its destination
    memory: memoryview | None = None  # of `into`, then

    def __post_init__(self) -> None:
        simple = self.into.is_contiguous() and self.into.device.type == "cpu"
        if simple and self.into.dtype == self.dtype and not self.into.is_conj():
            elements = flat_range(self.box, self.shard.box.sizes)
            if elements is not None:
                item = self.dtype.itemsize
                self.flat = elements[0] * item, elements[1] * item
                self.memory = tensors.memory(self.into)

    def paste(self, raw: torch.Tensor, start: int) -> None:
        """Copies what it wants from bytes of the shard that begin at `start`."""
        item, sizes = self.dtype.itemsize, self.shard.box.sizes
        elements = raw.view(self.dtype)
        at = first = start // item
        for part in range_boxes(first, first + elements.numel(), sizes):
            both = intersection(part, self.box)
            if both is not None:
                source = elements[at - first : at - first + part.volume].view(part.sizes)
                _inside(self.into, both, self.box).copy_(_inside(source, both, part))
            at += part.volume


def _inside(tensor: torch.Tensor, box: Box, around: Box) -> torch.Tensor:
    """The box, as a part of the tensor that stands for `around`."""
    for dim, (at, size) in enumerate(zip(box.offsets, box.sizes, strict=True)):
        tensor = tensor.narrow(dim, at - around.offsets[dim], size)
    return tensor


@dataclass(slots=True)
class Block:
    place: Place
    length: int
    xxh3: int
    name: str
    start: int  # in the shard
    wants: list[Want] = field(default_factory=list)

    def check(self, found: int, reading: Reading) -> None:
        if found != self.xxh3:
            file = reading.manifest.files[self.place.file][0]
            raise FsError(
                Code.DAMAGED,
                f"{reading.where}: {file}, {self.length} bytes at {self.place.offset} do not match "
                f"their hash: block {self.start // BLOCK_BYTES} of tensor {self.name!r}",
            )

    def destination(self) -> memoryview | None:
        """Where all of it belongs, if there is one such place."""
        if len(self.wants) != 1:
            return None
        memory, flat = self.wants[0].memory, self.wants[0].flat
        if memory is None or flat is None:
            return None
        start, stop = flat
        if self.start < start or self.start + self.length > stop:
            return None
        return memory[self.start - start : self.start - start + self.length]

    def paste(self, raw: torch.Tensor) -> None:
        for want in self.wants:
            want.paste(raw[: self.length], self.start)


def blocks_of(wants: Iterable[Want]) -> dict[Place, Block]:
    found: dict[Place, Block] = {}
    for want in wants:
        if not want.box.volume:
            continue
        for piece in want.shard.pieces:
            for number in _wanted(want, piece):
                at = number * BLOCK_BYTES
                place = Place(piece.file, piece.offset + at)
                block = found.get(place)
                if block is None:
                    length = min(BLOCK_BYTES, piece.length - at)
                    block = Block(place, length, piece.hashes[number], want.name, piece.start + at)
                    found[place] = block
                block.wants.append(want)
    return dict(sorted(found.items()))


def _wanted(want: Want, piece: StoredPiece) -> list[int]:
    """The blocks of a piece that have any of the wanted box in them."""
    item, sizes = want.dtype.itemsize, want.shard.box.sizes
    numbers = range(len(piece.hashes))
    elements = flat_range(want.box, sizes)
    if elements is not None:
        start, stop = elements[0] * item - piece.start, elements[1] * item - piece.start
        return [n for n in numbers if n * BLOCK_BYTES < stop and (n + 1) * BLOCK_BYTES > start]
    found = []
    for number in numbers:
        start = piece.start + number * BLOCK_BYTES
        stop = min(start + BLOCK_BYTES, piece.stop)
        parts = range_boxes(start // item, stop // item, sizes)
        if any(intersection(part, want.box) is not None for part in parts):
            found.append(number)
    return found


class Reading:
    """One load's access to the files of a checkpoint: opened once, read by several threads."""

    def __init__(self, io: ExtentIO, manifest: Manifest, where: str | os.PathLike[str]) -> None:
        self.io, self.manifest, self.where = io, manifest, where
        self.bytes_read = 0
        self.threads = READ_THREADS_MIN
        self._lock = threading.Lock()
        self._sources: dict[int, Source] = {}

    def source(self, file: int) -> Source:
        found = self._sources.get(file)
        if found is None:
            name, size = self.manifest.files[file]
            found = self._sources[file] = self.io.open(name)
            if found.size != size:
                raise FsError(
                    Code.DAMAGED,
                    f"{self.where}: {name} has {found.size} bytes where {size} were written",
                )
        return found

    def close(self) -> None:
        for source in self._sources.values():
            source.close()
        self._sources.clear()

    def raw(self, file: int, offset: int, length: int) -> bytearray:
        data = bytearray(length)
        self.source(file).pread([memoryview(data)], offset)
        self.bytes_read += length
        return data

    def to_destinations(self, blocks: Sequence[Block]) -> None:
        """Reads, verifies and delivers blocks of this rank."""
        self._each(self._deliver, _batches(blocks))

    def to_window(self, blocks: Sequence[tuple[Block, memoryview]]) -> None:
        """Reads and verifies blocks into memory that others see too."""
        targets = {block.place: window for block, window in blocks}

        def fill(batch: list[Block]) -> None:
            self._read(batch, [targets[block.place] for block in batch])

        self._each(fill, _batches([block for block, _ in blocks]))

    def _each(self, work: Callable[[list[Block]], None], batches: list[list[Block]]) -> None:
        for batch in batches:  # opened by one thread
            self.source(batch[0].place.file)
        if len(batches) < 2 or self.threads == 1:
            for batch in batches:
                work(batch)
            return
        with ThreadPoolExecutor(self.threads, "superfs-checkpoint-read") as pool:
            waiting = [pool.submit(work, batch) for batch in batches]
            try:
                for one in waiting:
                    one.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _deliver(self, batch: list[Block]) -> None:
        targets: list[memoryview] = []
        own: list[torch.Tensor | None] = []
        for block in batch:
            target = block.destination()
            made = None
            if target is None:
                made = torch.empty(block.length, dtype=torch.uint8)
                target = tensors.memory(made)
            own.append(made)
            targets.append(target)
        self._read(batch, targets)
        for block, raw in zip(batch, own, strict=True):
            if raw is not None:
                block.paste(raw)

    def _read(self, batch: list[Block], targets: list[memoryview]) -> None:
        views: list[memoryview] = []
        at = batch[0].place.offset
        for block, target in zip(batch, targets, strict=True):
            if block.place.offset > at:
                views.append(_PADDING[: block.place.offset - at])
            views.append(target)
            at = block.place.offset + block.length
        source = self.source(batch[0].place.file)
        if len(batch) == 1:
            batch[0].check(self._hashed(source, targets[0], at - len(targets[0])), self)
        else:
            source.pread(views, batch[0].place.offset)
            for block, target in zip(batch, targets, strict=True):
                block.check(xxhash.xxh3_64_intdigest(target), self)
        with self._lock:
            self.bytes_read += at - batch[0].place.offset

    @staticmethod
    def _hashed(source: Source, target: memoryview, offset: int) -> int:
        """Reads a block, and hashes each part while it is in the processor's cache."""
        found = xxhash.xxh3_64()
        for at in range(0, len(target), READ_HOT_BYTES):
            part = target[at : at + READ_HOT_BYTES]
            source.pread_one(part, offset + at)
            found.update(part)
        return found.intdigest()


def _batches(blocks: Sequence[Block]) -> list[list[Block]]:
    """Neighbours in storage together."""
    batches: list[list[Block]] = []
    start = end = 0
    for block in blocks:
        batch = batches[-1] if batches else []
        near = batch and batch[0].place.file == block.place.file
        gap = block.place.offset - end
        fits = block.place.offset + block.length - start <= READ_BATCH_BYTES
        if not (near and 0 <= gap < ALIGN_BYTES and fits and len(batch) < READ_BATCH_BLOCKS):
            batches.append([])
            start = block.place.offset
        batches[-1].append(block)
        end = block.place.offset + block.length
    return batches
