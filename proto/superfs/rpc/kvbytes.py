"""KvBytes without needless copies: what the protobuf class would produce and read, by hand.

A mebibyte that goes through a message class is copied twice more at either end, with the
interpreter's lock held. Fields of a message may come in any order, so the bytes come last; whoever
receives a large message cuts it apart around them, wherever they are, and copies nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from superfs.v1 import kvcache_pb2 as pb

SMALL_BYTES = 4 * 1024
"""Up to here the class takes less time than Python's arithmetic."""

_DATA_KEY = pb.KvBytes.DATA_FIELD_NUMBER << 3 | 2
_VARINT, _FIXED64, _LENGTH = 0, 1, 2


@dataclass(slots=True)
class Piece:
    """A KvBytes. What is received has `data` in the memory of the message."""

    put: int = 0
    block: int = 0
    offset: int = 0
    data: bytes | memoryview = b""
    checksum: int = 0


def encode(piece: Piece | pb.KvBytes) -> bytes:
    if isinstance(piece, pb.KvBytes):
        return piece.SerializeToString()
    head = pb.KvBytes(
        put=piece.put, block=piece.block, offset=piece.offset, checksum=piece.checksum
    ).SerializeToString()
    return b"".join((head, bytes((_DATA_KEY,)), _varint(len(piece.data)), piece.data))


def decode(raw: bytes) -> Piece:
    """DecodeError, of protobuf, for what is no KvBytes."""
    found = _find(raw) if len(raw) > SMALL_BYTES else None
    rest = raw[: found[0]] + raw[found[2] :] if found is not None else b""
    if found is None or _find(rest) is not None:  # twice, of which the last one counts
        m = pb.KvBytes.FromString(raw)
        return Piece(m.put, m.block, m.offset, m.data, m.checksum)
    m = pb.KvBytes.FromString(rest)
    return Piece(m.put, m.block, m.offset, memoryview(raw)[found[1] : found[2]], m.checksum)


def _find(raw: bytes) -> tuple[int, int, int] | None:
    """Where the field of the bytes starts, they start, and end. None: not found; then the class has
    to say what it thinks of it."""
    position = 0
    try:
        while position < len(raw):
            start = position
            key, position = _read_varint(raw, position)
            if key & 7 == _VARINT:
                _, position = _read_varint(raw, position)
            elif key & 7 == _FIXED64:
                position += 8
            elif key & 7 == _LENGTH:
                length, position = _read_varint(raw, position)
                if key == _DATA_KEY and position + length <= len(raw):
                    return start, position, position + length
                position += length
            else:
                return None
    except IndexError:
        return None
    return None


def _varint(value: int) -> bytes:
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
        if shift > 63:
            raise IndexError
