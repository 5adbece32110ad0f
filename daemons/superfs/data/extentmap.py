"""What of which blob is visible in a chunk: interval logic, without any IO.

A *blob* is what one append wrote: consecutive bytes in a segment with one crc32c per block of
16 KiB, counted from the blob's start (the last block may be short). A *piece* is the part of a
blob that is visible at some place of a chunk. The pieces of a chunk are a tuple, in order of
offset, never overlapping; holes between them read as zeros.

A piece is always *narrow*: it knows only the blocks that it touches, so `skip`, the distance from
its first known block to its first visible byte, is below one block. Trimming a piece drops the
blocks that it no longer touches, and their checksums with them.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from superfs.core.limits import BLOCK_BYTES, CHUNK_BYTES

CRC_BYTES = 4


class Piece(NamedTuple):
    offset: int  # of the first visible byte, in the chunk
    length: int  # visible bytes
    segment: int
    blob: int  # where the first known block starts, in the segment's file
    blob_length: int  # bytes of the known blocks
    skip: int  # visible bytes start that far behind `blob`
    version: int  # of the append: later writes have greater ones
    crcs: bytes  # 4 bytes for each known block

    @property
    def end(self) -> int:
        return self.offset + self.length


Pieces = tuple[Piece, ...]


class Change(NamedTuple):
    """Pieces after a change; what it took away and what is left of that, for accounting."""

    pieces: Pieces
    dropped: Pieces
    left: Pieces


class Part(NamedTuple):
    """Something to be read: [start, end) in the chunk, out of `piece`; None: a hole."""

    start: int
    end: int
    piece: Piece | None


def block_count(length: int) -> int:
    return (length + BLOCK_BYTES - 1) // BLOCK_BYTES


def trim(piece: Piece, start: int, end: int) -> Piece:
    """The part of a piece that is visible in [start, end) of the chunk; must not be empty."""
    start = max(start, piece.offset)
    end = min(end, piece.offset + piece.length)
    assert start < end, (piece, start, end)
    first = piece.skip + start - piece.offset
    last = first + end - start
    block, skip = divmod(first, BLOCK_BYTES)
    base = block * BLOCK_BYTES
    known = min(block_count(last) * BLOCK_BYTES, piece.blob_length)
    crcs = piece.crcs[block * CRC_BYTES : block_count(known) * CRC_BYTES]
    return Piece(
        start, end - start, piece.segment, piece.blob + base, known - base, skip,
        piece.version, crcs,
    )  # fmt: skip


def _window(pieces: Pieces, start: int, end: int) -> tuple[int, int]:
    """Indexes [low, high) of the pieces that touch [start, end)."""
    low = bisect_right(pieces, start, key=_offset_of)
    if low and pieces[low - 1].end > start:
        low -= 1
    high = low
    while high < len(pieces) and pieces[high].offset < end:
        high += 1
    return low, high


def _offset_of(piece: Piece) -> int:
    return piece.offset


def overlay(pieces: Pieces, new: Piece) -> Change:
    """A write on top of what is there: overlapped parts of older pieces become invisible."""
    if not pieces or pieces[-1].end <= new.offset:  # appending: the usual case
        return Change((*pieces, new), (), ())
    low, high = _window(pieces, new.offset, new.end)
    dropped = pieces[low:high]
    before: Pieces = ()
    behind: Pieces = ()
    if dropped:
        if dropped[0].offset < new.offset:
            before = (trim(dropped[0], 0, new.offset),)
        if dropped[-1].end > new.end:
            behind = (trim(dropped[-1], new.end, CHUNK_BYTES),)
    result = (*pieces[:low], *before, new, *behind, *pieces[high:])
    return Change(result, dropped, before + behind)


def cut(pieces: Pieces, start: int, version: int) -> Change:
    """Drops what older writes than `version` left at and behind `start`."""
    kept: list[Piece] = []
    dropped: list[Piece] = []
    left: list[Piece] = []
    for piece in pieces:
        if piece.end <= start or piece.version >= version:
            kept.append(piece)
            continue
        dropped.append(piece)
        if piece.offset < start:
            rest = trim(piece, 0, start)
            left.append(rest)
            kept.append(rest)
    return Change(tuple(kept), tuple(dropped), tuple(left))


def plan(pieces: Pieces, start: int, end: int) -> list[Part]:
    """How to read [start, end): parts in order, without gaps, holes included."""
    parts: list[Part] = []
    at = start
    low, high = _window(pieces, start, end) if start < end else (0, 0)
    for piece in pieces[low:high]:
        if piece.offset > at:
            parts.append(Part(at, piece.offset, None))
            at = piece.offset
        stop = min(piece.end, end)
        parts.append(Part(at, stop, piece))
        at = stop
    if at < end:
        parts.append(Part(at, end, None))
    return parts


def end_of(pieces: Pieces) -> int:
    return pieces[-1].end if pieces else 0


def faults(pieces: Pieces) -> list[str]:
    """What is wrong with the pieces of a chunk; nothing, unless they were damaged."""
    found: list[str] = []
    at = 0
    for piece in pieces:
        if piece.offset < at:
            found.append(f"piece at {piece.offset} overlaps the one before it")
        if piece.length <= 0 or piece.end > CHUNK_BYTES:
            found.append(f"piece at {piece.offset} has length {piece.length}")
        if not 0 <= piece.skip < BLOCK_BYTES or piece.skip + piece.length > piece.blob_length:
            found.append(f"piece at {piece.offset} lies outside its blob")
        if len(piece.crcs) != block_count(piece.blob_length) * CRC_BYTES:
            found.append(f"piece at {piece.offset} has {len(piece.crcs)} bytes of checksums")
        at = max(at, piece.end)
    return found
