"""Hand-made data messages are those of the protobuf classes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from superfs.client.wire import LARGE_BYTES, decode_reply, encode_request, encode_write, varint
from superfs.v1 import data_pb2

u32 = st.integers(0, (1 << 32) - 1)
u64 = st.integers(0, (1 << 64) - 1)


@given(u64, u64, u32, u32, u32, st.binary(max_size=300))
def test_a_write_reads_back(
    tag: int, ino: int, generation: int, chunk: int, offset: int, data: bytes
) -> None:
    raw = encode_write(tag, ino, generation, chunk, offset, memoryview(data))
    m = data_pb2.DataRequest.FromString(raw)
    w = m.write
    assert m.WhichOneof("body") == "write"
    assert (m.tag, w.ino, w.data_generation, w.chunk, w.offset, w.data) == (
        tag, ino, generation, chunk, offset, data,
    )  # fmt: skip
    assert encode_request(raw) is raw


@given(u64, u32, u64, st.sampled_from([0, 1, 127, 128, LARGE_BYTES, 70_000]), st.text(max_size=9))
def test_a_reply_reads_back(tag: int, code: int, epoch: int, size: int, detail: str) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    m = data_pb2.DataReply(tag=tag, code=code, detail=detail, boot_epoch=epoch, data=data[:size])
    r = decode_reply(m.SerializeToString())
    wanted_detail = detail if code or detail else ""
    assert (r.tag, r.code, r.boot_epoch, r.data) == (tag, code, epoch, data[:size])
    assert r.detail == (wanted_detail if code else "") or r.detail == detail


def test_large_replies_of_other_kinds() -> None:
    reads = [data_pb2.ReadResult(code=2), data_pb2.ReadResult(data=b"x" * LARGE_BYTES)]
    r = decode_reply(data_pb2.DataReply(tag=5, boot_epoch=1, reads=reads).SerializeToString())
    assert [(x.code, len(x.data)) for x in r.reads] == [(2, 0), (0, LARGE_BYTES)]
    usage = data_pb2.UsageReply(bytes_total=9)
    r = decode_reply(data_pb2.DataReply(tag=0, boot_epoch=3, usage=usage).SerializeToString())
    assert (r.boot_epoch, r.usage.bytes_total) == (3, 9)


def test_varint() -> None:
    assert [varint(n) for n in (0, 127, 128, 300)] == [b"\0", b"\x7f", b"\x80\1", b"\xac\2"]
