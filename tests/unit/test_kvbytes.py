"""KvBytes by hand: what the class writes is read, what is written the class reads."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from superfs.rpc.kvbytes import SMALL_BYTES, Piece, decode, encode
from superfs.v1 import kvcache_pb2 as pb

sizes = st.sampled_from([0, 1, 127, 128, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1, 70_000])
pieces = st.builds(
    Piece,
    put=st.integers(0, 2**64 - 1),
    block=st.integers(0, 2**32 - 1),
    offset=st.integers(0, 2**32 - 1),
    data=sizes.map(lambda n: bytes(range(256)) * (n // 256) + b"\x22" * (n % 256)),
    checksum=st.integers(0, 2**64 - 1),
)


def message(p: Piece) -> pb.KvBytes:
    return pb.KvBytes(
        put=p.put, block=p.block, offset=p.offset, data=bytes(p.data), checksum=p.checksum
    )


@given(piece=pieces)
def test_as_the_class_has_it(piece: Piece) -> None:
    whole = message(piece)
    assert pb.KvBytes.FromString(encode(piece)) == whole
    assert encode(whole) == whole.SerializeToString()
    for raw in (encode(piece), whole.SerializeToString()):
        found = decode(raw)
        assert message(found) == whole


@given(piece=pieces, others=st.permutations(["put", "block", "offset", "data", "checksum"]))
def test_fields_in_any_order_and_twice(piece: Piece, others: list[str]) -> None:
    whole = message(piece)
    parts = [pb.KvBytes(**{name: getattr(whole, name)}).SerializeToString() for name in others]
    assert message(decode(b"".join(parts))) == whole
    again = b"".join(parts) + pb.KvBytes(data=b"x" * 9, block=3).SerializeToString()
    assert message(decode(again)) == pb.KvBytes.FromString(again)


@given(junk=st.binary(max_size=40), length=st.sampled_from([0, SMALL_BYTES + 1]))
def test_junk_is_refused_as_by_the_class(junk: bytes, length: int) -> None:
    raw = junk + bytes([0x22]) * length
    try:
        wanted = pb.KvBytes.FromString(raw)
    except DecodeError:
        with pytest.raises(DecodeError):
            decode(raw)
    else:
        wanted.DiscardUnknownFields()
        assert message(decode(raw)) == wanted


def test_what_is_received_is_not_copied() -> None:
    raw = encode(Piece(put=7, data=b"d" * 100_000))
    found = decode(raw).data
    assert isinstance(found, memoryview)
    assert found.obj is raw
