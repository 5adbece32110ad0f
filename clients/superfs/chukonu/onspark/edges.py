"""What goes between stages on Spark: frames, not rows.

    to    INT     the partition of the next stage that the rows are for
    side  INT     the input of the wide node that they come from, or of a union
    at    LONG    where they were: partition of the task, number of the frame in it
    rows  BINARY  an Arrow stream

Spark's JVM makes no rows of what is in them: it moves a few large values, and whatever type a
column has, it comes out as it went in. Frames of one `to` lie in the order of `at` as the rows lay.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, NamedTuple

from superfs.chukonu.embedded.parts import sliced
from superfs.chukonu.errors import RuntimeException
from superfs.chukonu.native import pa, pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Frame = Any
TO, SIDE, AT, ROWS = "to", "side", "at", "rows"
DDL = f"{TO} INT, {SIDE} INT, {AT} LONG, {ROWS} BINARY"
SCHEMA = pa.schema([(TO, pa.int32()), (SIDE, pa.int32()), (AT, pa.int64()), (ROWS, pa.binary())])
AT_BITS = 36
"""Of the number of a frame in its partition; the number of the partition is above."""
FRAME_BYTES = 8 << 20
"""Of the rows of one value, about."""
VALUE_BYTES_MAX = (1 << 31) - (1 << 20)
"""Spark's limit for one value."""
BATCH_BYTES = 64 << 20
"""Of the values that Spark hands to Python at once."""
BATCH_OPTION = "spark.sql.execution.arrow.maxBytesPerBatch"


class Piece(NamedTuple):
    side: int
    at: int
    data: bytes

    def frame(self) -> Frame:
        return pl.read_ipc_stream(io.BytesIO(self.data))


def packed(frame: Frame) -> bytes:
    stream = io.BytesIO()
    frame.write_ipc_stream(stream, compat_level=pl.CompatLevel.newest())
    data = stream.getvalue()
    if len(data) > VALUE_BYTES_MAX:
        raise RuntimeException(
            "CHUKONU_ROW_TOO_LARGE",
            f"{frame.height} rows of {len(data):,} bytes, of at most {VALUE_BYTES_MAX:,} that go "
            "through a shuffle of Spark together",
        )
    return data


def batches(frames: Iterable[tuple[int, Frame]], side: int, partition: int) -> Iterator[Any]:
    """Record batches of Spark's, of (partition that it is for, frame)."""
    at = partition << AT_BITS
    for to, whole in frames:
        for frame in sliced(whole, FRAME_BYTES):
            if not frame.height:
                continue
            columns = [[to], [side], [at], [packed(frame)]]
            arrays = [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
            at += 1


def pieces(found: Iterable[Any]) -> Iterator[Piece]:
    """Of record batches, or of a table's, as they come."""
    for batch in found:
        columns = [batch.column(name) for name in (SIDE, AT, ROWS)]
        for side, at, rows in zip(*columns, strict=True):
            yield Piece(side.as_py(), at.as_py(), rows.as_buffer().to_pybytes())


def in_order(found: Iterable[Piece], side: int = 0) -> list[Piece]:
    return sorted((piece for piece in found if piece.side == side), key=lambda piece: piece.at)
