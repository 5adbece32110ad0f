"""Boxes in row-major tensors: which box is which range of elements. No IO, no torch."""

from __future__ import annotations

import math
from typing import NamedTuple

Ints = tuple[int, ...]


class Box(NamedTuple):
    offsets: Ints
    sizes: Ints

    @property
    def volume(self) -> int:
        return math.prod(self.sizes)


def whole(shape: Ints) -> Box:
    return Box((0,) * len(shape), shape)


def intersection(one: Box, other: Box) -> Box | None:
    """None: they have no element in common."""
    offsets, sizes = [], []
    for a, n, b, m in zip(one.offsets, one.sizes, other.offsets, other.sizes, strict=True):
        start, stop = max(a, b), min(a + n, b + m)
        if start >= stop:
            return None
        offsets.append(start)
        sizes.append(stop - start)
    return Box(tuple(offsets), tuple(sizes))


def flat_range(box: Box, shape: Ints) -> tuple[int, int] | None:
    """The elements [start, stop) of a row-major tensor of `shape` that the box is, if it is one
    contiguous range there."""
    inner = True  # every dimension further in is whole
    for offset, size, full in zip(
        reversed(box.offsets), reversed(box.sizes), reversed(shape), strict=True
    ):
        if not inner and size != 1:
            return None
        if (offset, size) != (0, full):
            inner = False
    start = 0
    for offset, full in zip(box.offsets, shape, strict=True):
        start = start * full + offset
    return start, start + box.volume


def range_boxes(start: int, stop: int, shape: Ints) -> list[Box]:
    """The flat range [start, stop) of a tensor of `shape` as boxes, in order; each is contiguous.

    At most two for each dimension but the first, and one in the middle."""
    if start >= stop:
        return []
    if not shape:
        return [Box((), ())]
    row = math.prod(shape[1:])
    first, last = start // row, (stop - 1) // row
    if first == last and len(shape) > 1 and stop - start < row:
        inner = range_boxes(start - first * row, stop - first * row, shape[1:])
        return [_under(first, box) for box in inner]
    boxes = []
    top = first
    if start % row:
        head = range_boxes(start - first * row, row, shape[1:])
        boxes += [_under(first, box) for box in head]
        top += 1
    bottom = last if stop % row else last + 1
    if bottom > top:
        rest = whole(shape[1:])
        boxes.append(Box((top, *rest.offsets), (bottom - top, *rest.sizes)))
    if stop % row:
        tail = range_boxes(0, stop - last * row, shape[1:])
        boxes += [_under(last, box) for box in tail]
    return boxes


def _under(index: int, box: Box) -> Box:
    return Box((index, *box.offsets), (1, *box.sizes))


def overlapping(boxes: list[Box]) -> tuple[Box, Box] | None:
    """Two boxes that have an element in common, or None.

    Sweeps along the dimension that tells most boxes apart, so that the usual layouts (slices along
    one dimension, grids) take n log n."""
    boxes = [box for box in boxes if box.volume]
    if len(boxes) < 2:
        return None
    if not boxes[0].sizes:
        return boxes[0], boxes[1]
    dims = range(len(boxes[0].sizes))
    dim = max(dims, key=lambda d: len({box.offsets[d] for box in boxes}))
    open_boxes: list[Box] = []
    for box in sorted(boxes, key=lambda b: b.offsets[dim]):
        start = box.offsets[dim]
        open_boxes = [b for b in open_boxes if b.offsets[dim] + b.sizes[dim] > start]
        for other in open_boxes:
            if intersection(box, other) is not None:
                return other, box
        open_boxes.append(box)
    return None
