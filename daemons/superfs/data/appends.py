"""Finding the appends of a segment again, by what they say about themselves."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from superfs.core.limits import PAGE_BYTES
from superfs.data import records
from superfs.data.records import APPEND_HEADER_BYTES_MAX, HEADER_BYTES, Append

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.data.segments import OpenFile, Segment


def bytes_of(segment: Segment, at: int, append: Append) -> int:
    """Where the bytes of the append at that place begin."""
    return at + (PAGE_BYTES if segment.paged else append.header_bytes)


def end_of(segment: Segment, at: int, append: Append) -> int:
    """Where another may begin."""
    end = bytes_of(segment, at, append) + append.length
    return records.aligned(end, PAGE_BYTES) if segment.paged else records.aligned(end)


def appends_in(
    segment: Segment, file: OpenFile, start: int = HEADER_BYTES
) -> Iterator[tuple[int, Append]]:
    """(place, append) of all whose heads can be read, in the order of the file. OSError."""
    if segment.paged:
        yield from _in_pages(segment, file)
        return
    at = start
    while True:
        head = os.pread(file.fd, APPEND_HEADER_BYTES_MAX, at)
        append = records.parse_append(head, segment.nonce, at)
        if append is None:
            return
        yield at, append
        at = end_of(segment, at, append)


def _in_pages(segment: Segment, file: OpenFile) -> Iterator[tuple[int, Append]]:
    """A client may have left room anywhere. What it wrote there is no head: those have the number
    of the segment, which only the daemon's own head shows, and their place in their checksum."""
    at = PAGE_BYTES
    while at < segment.size:
        head = os.pread(file.fd, APPEND_HEADER_BYTES_MAX, at)
        append = records.parse_append(head, segment.nonce, at)
        if append is None:
            at += PAGE_BYTES
            continue
        yield at, append
        at = end_of(segment, at, append)
