"""Parts of a block for another host: all of it is read and compared here, for nobody can tell from
a part that it is right. In a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xxhash import xxh3_64_intdigest

from superfs.core.errors import FsError
from superfs.core.limits import MESSAGE_DATA_BYTES_MAX

if TYPE_CHECKING:
    from superfs.data.kvcache.places import Place


def ranges_of(place: Place, ranges: list[tuple[int, int]]) -> list[tuple[int, bytes, int]] | None:
    """In pieces of one message: where it is in what was asked for, the bytes, their checksum. None:
    the block is not what was stored, or ends before."""
    try:
        data = place.slab.read(place.at, 0, place.length)
    except (FsError, OSError):
        return None
    if xxh3_64_intdigest(data) != place.checksum:
        return None
    found, done = [], 0
    for offset, length in ranges:
        if offset + length > place.length:
            return None
        for at in range(0, length, MESSAGE_DATA_BYTES_MAX):
            size = min(MESSAGE_DATA_BYTES_MAX, length - at)
            piece = data[offset + at : offset + at + size]
            found.append((done + at, piece, xxh3_64_intdigest(piece)))
        done += length
    return found
