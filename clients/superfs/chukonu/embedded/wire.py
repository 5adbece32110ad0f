"""Messages between an executor and the processes of its Python functions, on Unix sockets.

    kind u8 | number u64 | length u64 | data

`number`: which functions, or which one of them; in the answer to a call the microseconds of CPU
that it took. Frames and batches are Arrow streams.
"""

from __future__ import annotations

import io
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from superfs.chukonu.native import pa, pl

if TYPE_CHECKING:
    from collections.abc import Sequence

LOAD, FORK, DROP, CALL, MAP, MORE, BATCH, DONE, ERROR = range(9)
_HEAD = struct.Struct("!BQQ")


class Message(NamedTuple):
    kind: int
    number: int
    data: bytearray
    descriptors: list[int]


@dataclass(frozen=True)
class Mapped:
    """The function of a mapInArrow, among functions."""

    run: Any


def send(
    link: socket.socket,
    kind: int,
    number: int = 0,
    data: Any = b"",  # noqa: ANN401
    descriptors: Sequence[int] = (),
) -> None:
    head = _HEAD.pack(kind, number, len(data))
    if descriptors:
        socket.send_fds(link, [head], list(descriptors))
    else:
        link.sendall(head)
    if len(data):
        link.sendall(data)


def receive(link: socket.socket, descriptors: int = 0) -> Message | None:
    """None: the other side has closed it, between two messages or within one."""
    first, passed, _, _ = socket.recv_fds(link, _HEAD.size, descriptors)
    head = _filled(link, first, _HEAD.size)
    if head is None:
        return None
    kind, number, size = _HEAD.unpack(head)
    data = _filled(link, b"", size)
    return None if data is None else Message(kind, number, data, list(passed))


def _filled(link: socket.socket, begun: bytes, size: int) -> bytearray | None:
    data = bytearray(size)
    data[: len(begun)] = begun
    view, place = memoryview(data), len(begun)
    while place < size:
        count = link.recv_into(view[place:])
        if not count:
            return None
        place += count
    return data


def bytes_of(frame: Any) -> memoryview:  # noqa: ANN401
    stream = io.BytesIO()
    frame.write_ipc_stream(stream)
    return stream.getbuffer()


def frame_of(data: bytearray) -> Any:  # noqa: ANN401
    return pl.read_ipc_stream(io.BytesIO(data))


def bytes_of_batch(batch: Any) -> Any:  # noqa: ANN401
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue()


def batches_of(data: bytearray) -> list[Any]:
    with pa.ipc.open_stream(data) as stream:
        return list(stream)
