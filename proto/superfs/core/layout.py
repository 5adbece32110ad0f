"""Where the bytes of a file are: offsets and lengths to chunks, chunks to chains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from superfs.core.limits import CHUNK_BYTES, FILE_DATA_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a byte range that lies in one chunk."""

    chunk: int
    offset: int  # in the chunk
    length: int
    position: int  # of its first byte, counted from the start of the range


def pieces(offset: int, length: int, *, piece_bytes_max: int = CHUNK_BYTES) -> Iterator[Piece]:
    """Splits [offset, offset + length) at chunk borders and at `piece_bytes_max`."""
    assert offset >= 0, offset
    assert length >= 0, length
    assert offset + length <= FILE_DATA_BYTES_MAX, (offset, length)
    position = 0
    while position < length:
        chunk, inside = divmod(offset + position, CHUNK_BYTES)
        size = min(length - position, CHUNK_BYTES - inside, piece_bytes_max)
        yield Piece(chunk, inside, size, position)
        position += size


def chain_of(chains: Sequence[int], chunk: int) -> int:
    """The chain that holds a chunk: chunks are dealt round-robin over the file's chains."""
    assert chains, "a file with data has chains"
    return chains[chunk % len(chains)]


def assign_chains(available: Sequence[int], ino: int, width: int) -> tuple[int, ...]:
    """The chains of a new file: `width` of the available ones, rotated by its number."""
    if not available:
        return ()
    width = min(width, len(available))
    first = ino % len(available)
    return tuple(available[(first + i) % len(available)] for i in range(width))
