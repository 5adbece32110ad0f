"""Reading extents in the segments that a data daemon on this host has shown us, every touched block
verified."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from typing import TYPE_CHECKING

from superfs.client.checksums import matches
from superfs.core.extents import CRC_BYTES
from superfs.core.limits import BLOCK_BYTES, CHUNK_BYTES, KIB

if TYPE_CHECKING:
    from superfs.client.local import Descriptor, LocalLink
    from superfs.core.extents import Extent
    from superfs.core.pagecache import DropBehind

PROBE_BYTES = 256 * KIB


def overlapping(
    places: tuple[Extent, ...], starts: tuple[int, ...], start: int, end: int
) -> tuple[Extent, ...]:
    low = max(0, bisect_right(starts, start) - 1)
    if low < len(places) and places[low].end <= start:
        low += 1
    high = low
    while high < len(places) and places[high].offset < end:
        high += 1
    return places[low:high]


def read_extents(
    link: LocalLink,
    places: tuple[Extent, ...],
    starts: tuple[int, ...],
    offset: int,
    length: int,
    *,
    wait: bool,
    drop_behind: DropBehind,
) -> bytes | None:
    """Of a chunk that lies there. `starts`: the offsets of the extents. None: something does not
    match, or is not here, or (not `wait`) would wait for a disk. `drop_behind`: what it takes from
    the disk is kept by whoever asks."""
    end = offset + length
    assert end <= CHUNK_BYTES, (offset, length)
    parts: list[bytes | memoryview] = []
    at = offset
    for extent in overlapping(places, starts, offset, end):
        if extent.offset > at:
            parts.append(bytes(extent.offset - at))
            at = extent.offset
        stop = min(extent.end, end)
        descriptor = link.held(extent.segment)
        part = None
        if descriptor is not None:
            part = _read_extent(extent, descriptor, at, stop, wait=wait, drop_behind=drop_behind)
        if part is None:
            return None
        parts.append(part)
        at = stop
    if at < end:
        parts.append(bytes(end - at))
    if len(parts) == 1 and isinstance(parts[0], bytes):
        return parts[0]
    return b"".join(parts)


def _read_extent(
    extent: Extent,
    descriptor: Descriptor,
    start: int,
    end: int,
    *,
    wait: bool,
    drop_behind: DropBehind,
) -> bytes | memoryview | None:
    first = extent.skip + start - extent.offset
    block = first // BLOCK_BYTES
    base = block * BLOCK_BYTES
    blocks = -(-(first + end - start) // BLOCK_BYTES)
    stop = min(blocks * BLOCK_BYTES, extent.blocks_bytes)
    place, size = extent.place + base, stop - base
    try:
        if not wait and not _is_cached(descriptor.fd, place, size):
            return None
        data = _pread(descriptor.fd, size, place, drop_behind)
    except OSError:
        return None
    if len(data) != size or not matches(data, extent.crcs[block * CRC_BYTES : blocks * CRC_BYTES]):
        return None
    if first == base and end - start == size:
        return data
    return memoryview(data)[first - base : first - base + end - start]


def _pread(fd: int, size: int, place: int, drop_behind: DropBehind) -> bytes:
    flags = drop_behind.flags(size)
    if not flags:
        return os.pread(fd, size, place)
    memory: bytearray | None = getattr(_own, "memory", None)
    if memory is None or len(memory) < size:
        memory = _own.memory = bytearray(size)
    part = memoryview(memory)[:size]
    try:
        return bytes(part[: os.preadv(fd, [part], place, flags)])
    except OSError as error:
        if not drop_behind.refused(error):
            raise
        return os.pread(fd, size, place)


_own = threading.local()
_probe = bytearray(1)


def _is_cached(fd: int, place: int, size: int) -> bool:
    """As far as a byte here and there tells: whoever is wrong about it waits for the disk once. Of
    what has passed through, the pages at its ends stay."""
    last = place + size - 1
    for at in (place + size // 2, *range(place, last, PROBE_BYTES), last):
        try:
            if os.preadv(fd, [_probe], at, os.RWF_NOWAIT) != 1:
                return False
        except BlockingIOError:
            return False
    return True
