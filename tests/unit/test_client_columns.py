"""Columns of the client: what fits together, and answers that do not."""

from __future__ import annotations

import stat
import struct

import pytest

from superfs.client import columns
from superfs.client.codec import NOT_SENT
from superfs.core.attrs import PACKED_ATTR_BYTES, Attr, pack_attr, unpack_attr
from superfs.core.errors import Code, FsError
from superfs.core.limits import INLINE_BYTES_MAX, MESSAGE_DATA_BYTES_MAX
from superfs.core.namespace.txn import Ref
from superfs.meta.columns import decode_columns
from superfs.v1 import meta_pb2

HERE = Ref(1 << 51 | 1, 1, 1 << 51 | 1)
ATTR = Attr(0, 0, 0, stat.S_IFREG | 0o640, 1, 5, 6)


def test_new_files_are_cut_into_messages() -> None:
    names = [b"%d" % n for n in range(2000)]
    contents = [bytes(n % INLINE_BYTES_MAX) for n in range(2000)]
    seen: list[tuple[bytes, int, bytes]] = []
    for portion, message in columns.new_files(HERE, ATTR, names, contents):
        assert message.ByteSize() < MESSAGE_DATA_BYTES_MAX + 64 * 1024
        assert len(portion) <= columns.FILES_A_CALL
        decoded = decode_columns(message)
        assert decoded.names == list(portion)
        for name, packed, data in zip(
            decoded.names, decoded.attrs, decoded.contents(), strict=True
        ):
            attr = unpack_attr(packed)
            assert (attr.mode, attr.uid, attr.gid) == (ATTR.mode, 5, 6)
            seen.append((name, attr.size, data))
    assert seen == [(n, len(c), c) for n, c in zip(names, contents, strict=True)]
    assert not list(columns.new_files(HERE, ATTR, [], []))


def listing(**changes: object) -> meta_pb2.Listing:
    attr = Attr(7, 1, 1, stat.S_IFREG | 0o640, 1, 5, 6, 3)
    whole: dict[str, object] = {
        "count": 3,
        "attrs": pack_attr(attr) + bytes(PACKED_ATTR_BYTES) + pack_attr(attr),
        "codes": [0, int(Code.NOT_FOUND), 0],
        "inline": b"abc",
        "inline_lengths": struct.pack("<3I", 3, NOT_SENT, NOT_SENT),
    }
    return meta_pb2.Listing(**{**whole, **changes})  # type: ignore[arg-type]


def test_answers() -> None:
    found = list(columns.contents_in(listing(), 3))
    assert found[0] == (None, (7, 1, stat.S_IFREG | 0o640, 3), b"abc")
    assert found[1][0] is not None
    assert found[1][0].code is Code.NOT_FOUND
    assert found[2][0] is None
    assert found[2][2] is None
    sizes = [a if isinstance(a, FsError) else a.size for a in columns.attrs_in(listing(), 3)]
    assert (sizes[0], sizes[2]) == (3, 3)
    none = meta_pb2.Listing(count=2, codes=[int(Code.NOT_FOUND)] * 2)
    assert all(error is not None for error, _, _ in columns.contents_in(none, 2))


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 2},
        {"attrs": b"short"},
        {"attrs": b"", "codes": []},
        {"codes": [0]},
        {"inline": b"abcd"},
        {"inline_lengths": b"1234"},
    ],
)
def test_answers_that_do_not_fit(changes: dict[str, object]) -> None:
    with pytest.raises(FsError) as caught:
        list(columns.contents_in(listing(**changes), 3))
    assert caught.value.code is Code.INTERNAL
