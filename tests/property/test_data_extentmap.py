"""The extent map against a chunk that is a plain array of bytes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from superfs.core.limits import BLOCK_BYTES, CHUNK_BYTES
from superfs.data import extentmap
from superfs.data.compaction import count_after, runs_of
from superfs.data.extentmap import CRC_BYTES, Piece, Pieces, block_count

SPAN = 6 * BLOCK_BYTES

places = st.integers(0, SPAN - 1)
lengths = st.one_of(
    st.integers(1, 40), st.integers(1, 3 * BLOCK_BYTES), st.sampled_from([BLOCK_BYTES])
)
writes = st.tuples(st.just("write"), places, lengths)
cuts = st.tuples(st.just("cut"), places, st.integers(0, 3))
steps = st.lists(st.one_of(writes, writes, cuts), max_size=25)


class Blobs:
    """Pretends that segment n holds one blob; byte i of it is the number n << 20 | i."""

    def __init__(self) -> None:
        self.lengths: dict[int, int] = {}

    def piece(self, offset: int, length: int) -> Piece:
        number = len(self.lengths) + 1
        self.lengths[number] = length
        crcs = b"".join(self.crc(number, block) for block in range(block_count(length)))
        return Piece(offset, length, number, 0, length, 0, number, crcs)

    @staticmethod
    def crc(number: int, block: int) -> bytes:
        return (number << 8 | block).to_bytes(CRC_BYTES, "little")

    def check(self, piece: Piece) -> None:
        """The blocks that a piece knows are those that it touches, with their own checksums."""
        first, offset = divmod(piece.blob, BLOCK_BYTES)
        assert offset == 0
        assert 0 <= piece.skip < BLOCK_BYTES
        assert block_count(piece.skip + piece.length) == block_count(piece.blob_length)
        assert piece.blob + piece.blob_length <= self.lengths[piece.segment]
        whole = piece.blob_length % BLOCK_BYTES == 0
        assert whole or piece.blob + piece.blob_length == self.lengths[piece.segment]
        expected = b"".join(
            self.crc(piece.segment, first + block)
            for block in range(block_count(piece.blob_length))
        )
        assert piece.crcs == expected


def contents(pieces: Pieces) -> list[int]:
    """Which byte of which blob is visible where; 0: none."""
    found = [0] * (2 * SPAN)
    for part in extentmap.plan(pieces, 0, 2 * SPAN):
        if part.piece is not None:
            inside = part.piece.blob + part.piece.skip + part.start - part.piece.offset
            first = part.piece.segment << 20 | inside
            found[part.start : part.end] = range(first, first + part.end - part.start)
    return found


def live(pieces: Pieces) -> dict[int, int]:
    found: dict[int, int] = {}
    for piece in pieces:
        found[piece.segment] = found.get(piece.segment, 0) + piece.length
    return found


@settings(deadline=None)
@given(steps)
def test_pieces_are_the_array(operations: list[tuple[str, int, int]]) -> None:
    blobs = Blobs()
    model = [0] * (2 * SPAN)
    pieces: Pieces = ()
    counted: dict[int, int] = {}
    for kind, place, number in operations:
        if kind == "write":
            new = blobs.piece(place, number)
            change = extentmap.overlay(pieces, new)
            counted[new.segment] = number
            first = new.segment << 20
            model[place : place + number] = range(first, first + number)
        else:
            version = max(0, len(blobs.lengths) - number)
            change = extentmap.cut(pieces, place, version)
            limit = version << 20
            model[place:] = [seen if seen >= limit else 0 for seen in model[place:]]
        pieces = change.pieces
        for piece in change.dropped:
            counted[piece.segment] -= piece.length
        for piece in change.left:
            counted[piece.segment] += piece.length
        assert extentmap.faults(pieces) == []
        assert contents(pieces) == model
        assert {k: v for k, v in counted.items() if v} == live(pieces)
        for piece in pieces:
            blobs.check(piece)
    ends = [at + 1 for at, byte in enumerate(model) if byte]
    assert extentmap.end_of(pieces) == (ends[-1] if ends else 0)


@settings(deadline=None)
@example([(0, 16384)], 1, 0)
@given(st.lists(st.tuples(places, lengths), max_size=15), places, st.integers(0, SPAN))
def test_plan_covers_exactly(written: list[tuple[int, int]], start: int, length: int) -> None:
    blobs = Blobs()
    pieces: Pieces = ()
    for place, size in written:
        pieces = extentmap.overlay(pieces, blobs.piece(place, size)).pieces
    at = start
    for part in extentmap.plan(pieces, start, start + length):
        assert part.start == at < part.end
        assert part.piece is None or (
            part.piece.offset <= part.start and part.end <= part.piece.end
        )
        at = part.end
    assert at == start + length


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, CHUNK_BYTES - 1), st.integers(1, 300_000)), max_size=80))
def test_runs_leave_few_pieces(written: list[tuple[int, int]]) -> None:
    pieces: Pieces = ()
    for number, (place, size) in enumerate(written, 1):
        length = min(size, CHUNK_BYTES - place)
        crcs = bytes(CRC_BYTES * block_count(length))
        new = Piece(place, length, number, 0, length, 0, number, crcs)
        pieces = extentmap.overlay(pieces, new).pieces
    runs = runs_of(pieces)
    assert count_after(pieces, runs) <= 96
    assert all(a.end <= b.start for a, b in pairwise(runs))
    for piece in pieces:
        inside = any(r.start <= piece.offset and piece.end <= r.end for r in runs)
        assert inside or piece.length >= 256 * 1024
