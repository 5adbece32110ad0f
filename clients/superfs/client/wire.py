"""Data messages without needless copies: what the protobuf classes would produce, by hand.

A mebibyte that goes through a message class is copied four times with the interpreter's lock held.
Protobuf allows the fields of a message in any order and messages to be concatenated, so a write
is its header joined to its bytes, and a large reply is cut apart around its bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from superfs.core.limits import MANY_ENTRIES_MAX, MESSAGE_DATA_BYTES_MAX
from superfs.v1 import data_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGE_BYTES = 16 * 1024
"""Smaller messages go through their classes: the copies cost less than Python's arithmetic."""

_MORE_KEY = data_pb2.DataRequest.MORE_FIELD_NUMBER << 3 | 2
_WRITE_KEY = data_pb2.DataRequest.WRITE_FIELD_NUMBER << 3 | 2
_DATA_KEY = data_pb2.Write.DATA_FIELD_NUMBER << 3 | 2
_REPLY_DATA_KEY = data_pb2.DataReply.DATA_FIELD_NUMBER << 3 | 2

VARINT, FIXED64, LENGTH = 0, 1, 2


@dataclass(slots=True)
class Reply:
    """A DataReply."""

    tag: int = 0
    code: int = 0
    detail: str = ""
    boot_epoch: int = 0
    data: bytes = b""
    reads: Sequence[data_pb2.ReadResult] = ()
    usage: data_pb2.UsageReply = field(default_factory=data_pb2.UsageReply)
    version: int = 0
    located: data_pb2.Located | None = None
    located_many: data_pb2.LocatedMany | None = None
    more: Sequence[Reply] = ()
    scarce: bool = False


class Encoded(Protocol):
    def encode(self) -> bytes:
        """A whole DataRequest, as it is to be sent now."""


Request = bytes | data_pb2.DataRequest | Encoded


def encode_request(request: Request) -> bytes:
    if isinstance(request, bytes):
        return request
    if isinstance(request, data_pb2.DataRequest):
        return request.SerializeToString()
    return request.encode()


def behind(request: bytes) -> bytes:
    """What is appended to a whole DataRequest for this one to come behind it."""
    return bytes((_MORE_KEY,)) + varint(len(request)) + request


def encode_write(
    tag: int,
    ino: int,
    data_generation: int,
    chunk: int,
    offset: int,
    data: bytes | bytearray | memoryview,
) -> bytes:
    """A whole DataRequest."""
    request = data_pb2.DataRequest(tag=tag).SerializeToString()
    place = data_pb2.Write(
        ino=ino, data_generation=data_generation, chunk=chunk, offset=offset
    ).SerializeToString()
    head = place + bytes((_DATA_KEY,)) + varint(len(data))
    body = bytes((_WRITE_KEY,)) + varint(len(head) + len(data))
    return b"".join((request, body, head, data))


def decode_reply(raw: bytes) -> Reply:
    data = b""
    if len(raw) >= LARGE_BYTES:
        found = _find(raw, _REPLY_DATA_KEY)
        if found is not None:
            start, first, end = found
            data = raw[first:end]
            raw = raw[:start] + raw[end:]
    message = data_pb2.DataReply.FromString(raw)
    reply = _reply(message, data)
    if message.more:
        reply.more = [_reply(part) for part in message.more]
    return reply


def _reply(m: data_pb2.DataReply, data: bytes = b"") -> Reply:
    if m.HasField("located"):
        return Reply(m.tag, m.code, m.detail, m.boot_epoch, located=m.located)
    if m.HasField("located_many"):
        return Reply(m.tag, m.code, m.detail, m.boot_epoch, located_many=m.located_many)
    if not (m.code or m.reads or m.data) and not m.HasField("usage"):
        return Reply(m.tag, 0, "", m.boot_epoch, data, version=m.version, scarce=m.scarce)
    data = data or m.data
    return Reply(m.tag, m.code, m.detail, m.boot_epoch, data, m.reads, m.usage, m.version)


def _find(raw: bytes, wanted: int) -> tuple[int, int, int] | None:
    """(start of the field, start of its bytes, end) of a field with a length. None: not here, or
    not a message; then the class has to say what it thinks."""
    position = 0
    try:
        while position < len(raw):
            start = position
            key, position = _read_varint(raw, position)
            if key & 7 == VARINT:
                _, position = _read_varint(raw, position)
            elif key & 7 == FIXED64:
                position += 8
            elif key & 7 == LENGTH:
                length, position = _read_varint(raw, position)
                if key == wanted and position + length <= len(raw):
                    return start, position, position + length
                position += length
            else:
                return None
    except IndexError:
        return None
    return None


def varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _read_varint(raw: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def batches(
    group: list[tuple[data_pb2.Write, int]],
) -> list[list[tuple[data_pb2.Write, int]]]:
    """Splits (_, bytes) into lists of at most a message each."""
    batches: list[list[tuple[data_pb2.Write, int]]] = []
    size = MESSAGE_DATA_BYTES_MAX
    for entry in group:
        if size + entry[1] > MESSAGE_DATA_BYTES_MAX or len(batches[-1]) >= MANY_ENTRIES_MAX:
            batches.append([])
            size = 0
        batches[-1].append(entry)
        size += entry[1]
    return batches
