"""core: errors, ids, layout, attributes."""

from __future__ import annotations

import errno
import stat

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superfs.core import attrs, ids, layout, limits
from superfs.core.errors import KINDS, Code, FsError, known_code
from superfs.core.linux import is_since

# The numbers are on the wire: this table may only grow.
PUBLISHED = {
    0: "OK", 1: "NOT_FOUND", 2: "EXISTS", 3: "NOT_DIRECTORY", 4: "IS_DIRECTORY", 5: "NOT_EMPTY",
    6: "INVALID", 7: "NAME_TOO_LONG", 8: "ACCESS", 9: "NOT_PERMITTED", 10: "STALE",
    11: "TOO_MANY_LINKS", 12: "CROSS_DEVICE", 13: "LOOP", 14: "FILE_TOO_BIG", 15: "NO_SPACE",
    16: "QUOTA", 17: "READ_ONLY", 18: "NO_XATTR", 19: "XATTR_TOO_BIG", 20: "NOT_SUPPORTED",
    21: "BUSY_DIRECTORY", 40: "BUSY", 41: "STALE_DATA", 42: "NOT_INLINE", 43: "INLINE_FULL",
    44: "WRONG_OWNER", 45: "SESSION_EXPIRED", 46: "GRACE", 47: "UNAUTHENTICATED",
    48: "FORBIDDEN", 49: "TOO_LARGE", 50: "BAD_REQUEST", 51: "UNAVAILABLE", 52: "DEADLINE",
    60: "DAMAGED", 61: "IO", 62: "BAD_FORMAT", 63: "WRONG_IDENTITY", 64: "INTERNAL",
}  # fmt: skip


def test_published_codes_keep_their_numbers() -> None:
    assert {number: Code(number).name for number in PUBLISHED} == PUBLISHED


@pytest.mark.parametrize("code", Code)
def test_every_code_has_one_meaning(code: Code) -> None:
    kind = KINDS[code]
    assert kind.grpc in {status.value[0] for status in grpc.StatusCode}
    assert (kind.errno == 0) == (code is Code.OK)
    assert kind.errno == 0 or kind.errno in errno.errorcode
    # what a caller may simply ask again must look so to any gRPC client
    if kind.retryable:
        assert kind.grpc in {4, 14}, code


def test_error_says_what_and_why() -> None:
    error = FsError(Code.NOT_FOUND, "a/b")
    assert (error.errno, error.retryable, str(error)) == (errno.ENOENT, False, "NOT_FOUND: a/b")
    assert str(FsError(Code.BUSY)) == "BUSY"


def test_code_of_a_newer_peer_is_internal() -> None:
    assert known_code(2) is Code.EXISTS
    assert known_code(9999) is Code.INTERNAL
    assert known_code(-1) is Code.INTERNAL


# ---- ids -----------------------------------------------------------------------------------


def test_root_is_a_directory_of_slot_0() -> None:
    assert ids.is_directory_id(ids.ROOT)
    assert ids.slot_of(ids.ROOT) == 0


def test_directory_ids_are_golden() -> None:
    """Clients predict these: a change makes every stored directory unreachable."""
    assert ids.directory_id(ids.ROOT, b"home") == 0x075C244C60182497
    assert ids.directory_id(ids.ROOT, b"home", 1) == 0xB60C14E865090A30


@given(st.integers(0, ids.ID_MAX), st.binary(min_size=1, max_size=255), st.integers(0, 2**32 - 1))
def test_directory_ids(parent: int, name: bytes, version: int) -> None:
    number = ids.directory_id(parent, name, version)
    assert 0 <= number <= ids.ID_MAX
    assert ids.is_directory_id(number)
    assert 0 <= ids.slot_of(number) < ids.SLOTS
    assert number == ids.directory_id(parent, name, version)


@given(st.integers(0, ids.SLOTS - 1), st.integers(1, ids.RANGE_BIT - 1))
def test_file_ids_carry_their_slot(slot: int, counter: int) -> None:
    number = ids.file_id(slot, counter)
    assert ids.slot_of(number) == slot
    assert not ids.is_directory_id(number)
    assert number <= ids.ID_MAX


def test_truncated_hash_collides() -> None:
    """What tests of collisions build on: few bits, few numbers."""
    numbers = {ids.directory_id(1, b"%d" % i, hash_bits=3) for i in range(100)}
    assert 2 <= len(numbers) <= 8


# ---- layout --------------------------------------------------------------------------------


@given(
    st.integers(0, limits.FILE_DATA_BYTES_MAX - 64 * limits.MIB),
    st.integers(0, 32 * limits.MIB),
    st.sampled_from([4096, limits.MESSAGE_DATA_BYTES_MAX, limits.CHUNK_BYTES]),
)
def test_pieces_cover_the_range_once(offset: int, length: int, most: int) -> None:
    length = min(length, 2000 * most)
    position = 0
    for piece in layout.pieces(offset, length, piece_bytes_max=most):
        assert piece.position == position
        assert 0 < piece.length <= most
        assert piece.offset + piece.length <= limits.CHUNK_BYTES
        assert piece.chunk * limits.CHUNK_BYTES + piece.offset == offset + position
        position += piece.length
    assert position == length


def test_pieces_of_nothing() -> None:
    assert list(layout.pieces(5, 0)) == []


@given(st.lists(st.integers(0, 60000), unique=True, max_size=20), st.integers(0, 2**64 - 1))
def test_chains_are_spread(available: list[int], ino: int) -> None:
    chains = layout.assign_chains(available, ino, 4)
    assert len(chains) == min(4, len(available)) == len(set(chains))
    assert set(chains) <= set(available)
    if chains:
        assert layout.chain_of(chains, len(chains)) == chains[0]
        assert layout.assign_chains(available, ino + 1, 1) != chains[:1] or len(available) == 1


# ---- attributes ----------------------------------------------------------------------------

u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
some_attr = st.builds(
    attrs.Attr, u64, u32, u64, u32, u32, u32, u32, u64, u64, i64, i64, i64, i64, u32, u32, u64,
    st.lists(st.integers(0, 0xFFFE), max_size=limits.CHAINS_PER_FILE_MAX).map(tuple),
)  # fmt: skip


@given(some_attr, st.binary(max_size=9))
def test_packed_attributes_round_trip(attr: attrs.Attr, junk: bytes) -> None:
    packed = attrs.pack_attr(attr)
    assert len(packed) == attrs.PACKED_ATTR_BYTES
    assert attrs.unpack_attr(junk + packed + junk, len(junk)) == attr


@given(st.binary(max_size=attrs.PACKED_ATTR_BYTES - 1))
def test_short_packed_attributes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="packed attributes"):
        attrs.unpack_attr(data)


def test_kinds_of_inodes() -> None:
    attr = attrs.Attr(5, 1, 5, stat.S_IFREG | 0o644, 1, 0, 0, flags=attrs.Flag.INLINE)
    assert (attr.is_regular, attr.is_dir, attr.is_symlink, attr.is_inline) == (1, 0, 0, 1)
    other = attr.copy()
    other.mode = stat.S_IFDIR | 0o755
    assert (other.is_dir, attr.is_dir) == (True, False)


@pytest.mark.parametrize(
    ("release", "version", "expected"),
    [
        ("6.6.0", (6, 6), True), ("6.5.13-generic", (6, 6), False), ("6.18.44-fc", (6, 6), True),
        ("7.0-rc1", (6, 16), True), ("5.15.0-1", (6, 6), False), ("odd", (1, 0), False),
    ],
)  # fmt: skip
def test_versions_of_kernels(release: str, version: tuple[int, int], expected: bool) -> None:
    assert is_since(version, release) is expected
