"""Keys and records of the metadata store: round trips, order, golden bytes, checksums."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from superfs.core.attrs import Attr
from superfs.core.errors import Code, FsError
from superfs.core.ids import ID_MAX, SLOTS, slot_of
from superfs.core.namespace.txn import Dentry, Directory, Orphan
from superfs.daemon.statedir import Identity
from superfs.meta import keys, records
from superfs.meta.keys import Order, Table, Work

U64 = st.integers(0, ID_MAX)
U32 = st.integers(0, (1 << 32) - 1)
I64 = st.integers(-(1 << 63), (1 << 63) - 1)
SLOT = st.integers(0, SLOTS - 1)
NAME = st.binary(min_size=1, max_size=255)
CHAINS = st.lists(st.integers(0, 0xFFFE), max_size=16).map(tuple)

ATTR = st.builds(
    Attr, U64, U32, U64, U32, U32, U32, U32, U64, U64, I64, I64, I64, I64, U32, U32, U64, CHAINS
)
KINDS: list[tuple[Any, Any, Any]] = [
    (keys.pack_id, keys.parse_id, st.tuples(U64)),
    (keys.pack_dentry, keys.parse_dentry, st.tuples(U64, NAME)),
    (keys.pack_inode, keys.parse_inode, st.tuples(U64, U64)),
    (keys.pack_xattr, keys.parse_xattr, st.tuples(U64, U64, NAME)),
    (keys.pack_slot, keys.parse_slot, st.tuples(SLOT)),
    (keys.pack_reply, keys.parse_reply, st.tuples(SLOT, U64, U64)),
    (keys.pack_reap, keys.parse_reap, st.tuples(U64, U32, st.sampled_from(Work))),
    (
        keys.pack_rank,
        keys.parse_rank,
        st.tuples(U64, st.sampled_from(Order), st.tuples(U64, U64), U64),
    ),
]
IDS = ["id", "dentry", "inode", "xattr", "slot", "reply", "reap", "rank"]


@pytest.mark.parametrize(("pack", "parse", "parts"), KINDS, ids=IDS)
def test_key_round_trip_and_order(pack: Any, parse: Any, parts: Any) -> None:  # noqa: ANN401
    @given(parts, parts)
    def check(a: tuple[Any, ...], b: tuple[Any, ...]) -> None:
        for value in (a, b):
            found = parse(pack(*value))
            assert (found if isinstance(found, tuple) else (found,)) == value
            assert len(pack(*value)) <= keys.KEY_BYTES_MAX
        assert (pack(*a) < pack(*b)) == (a < b)

    check()


@given(U64, NAME, SLOT)
def test_a_slot_is_one_range(ino: int, name: bytes, slot: int) -> None:
    """The first 12 bits of every key of the namespace are its slot."""
    packed = [
        keys.pack_id(ino), keys.pack_dentry(ino, name), keys.pack_inode(ino, 5),
        keys.pack_reap(ino, 1, Work.REAP), keys.pack_slot(slot_of(ino)),
        keys.pack_reply(slot_of(ino), 1, 2),
    ]  # fmt: skip
    assert {int.from_bytes(key[:2], "big") >> 4 for key in packed} == {slot_of(ino)}


def test_golden_keys() -> None:
    """Bytes on disk. A change here is a new format version."""
    assert keys.pack_dentry(0x0010_0000_0000_0001, b"a").hex() == "001000000000000161"
    assert keys.pack_inode(1, 2).hex() == "00000000000000010000000000000002"
    assert keys.pack_xattr(1, 2, b"u").hex() == "0000000000000001000000000000000275"
    assert keys.pack_slot(0xABC).hex() == "abc0"
    assert keys.pack_reply(1, 2, 3).hex() == "001000000000000000020000000000000003"
    assert keys.pack_reap(1, 2, Work.TRUNCATE).hex() == "00000000000000010000000202"
    rank = keys.pack_rank(1, Order.USES, (2, 3), 4)
    assert rank.hex() == f"{1:016x}01{2:016x}{3:016x}{4:016x}"
    assert rank.startswith(keys.pack_ranks(1, Order.USES))
    assert [t.database for t in Table] == [
        b"meta", b"dentry", b"inode", b"directory", b"xattr", b"inline", b"moved", b"orphan",
        b"counter", b"reserved", b"session", b"reply", b"reap", b"cache", b"cached", b"cachewalk",
        b"cachefile", b"cacherank",
    ]  # fmt: skip
    assert [int(t) for t in Table] == list(range(18))


RECORDS: list[tuple[Any, Any, Any]] = [
    (records.pack_dentry, records.unpack_dentry, st.builds(Dentry, U64, U32, U32, U32, U32, U32)),
    (
        records.pack_directory,
        records.unpack_directory,
        st.builds(Directory, ATTR, U64, st.binary(max_size=255), CHAINS),
    ),
    (records.pack_orphan, records.unpack_orphan, st.builds(Orphan, ATTR, st.sets(U64))),
    (records.pack_id, records.unpack_id, U64),
    (records.pack_counter, records.unpack_counter, st.builds(records.Counter, U64, U32, U32)),
    (records.pack_run, records.unpack_run, st.builds(records.Run, U64, U64)),
    (records.pack_debt, records.unpack_debt, st.builds(records.Debt, U64, U64, CHAINS)),
    (
        records.pack_session,
        records.unpack_session,
        st.builds(
            records.Session, U64, U64, I64, U32, U32, st.integers(0, 255), st.text(max_size=20)
        ),
    ),
    (
        records.pack_identity,
        records.unpack_identity,
        st.builds(Identity, st.text(max_size=20), st.just("metad"), U32, U32),
    ),
]


@pytest.mark.parametrize(
    ("pack", "unpack", "values"), RECORDS, ids=lambda v: getattr(v, "__name__", "")
)
def test_record_round_trip(pack: Any, unpack: Any, values: Any) -> None:  # noqa: ANN401
    @given(values)
    def check(value: object) -> None:
        assert unpack(pack(value)) == value

    check()


def test_state_round_trip() -> None:
    tables = len(Table)
    state = records.State(5, -6, 7, 8, 1 << 31, list(range(tables)), [1 << 63] * tables)
    packed = records.pack_state(state)
    assert records.unpack_state(packed) == state
    # Tables that an earlier version did not have are empty.
    old = records.unpack_state(packed[: -16 * 5])
    assert old.counts == [*range(tables - 5), 0, 0, 0, 0, 0]
    assert old.sums[-6:] == [1 << 63, 0, 0, 0, 0, 0]


CACHE = st.builds(records.Cache, U64, st.integers(0, 255),
                  st.integers(0, ID_MAX), U32, U32, *[U64] * 6)  # fmt: skip
CACHE_FILE = st.builds(
    records.CacheFile, U64, NAME, U64, U64, U32, st.integers(0, 2), st.booleans(), U64,
    st.booleans(),
)  # fmt: skip
WALK = st.builds(records.Walk, U64, st.booleans(), NAME)


@given(CACHE, CACHE_FILE, WALK)
def test_cache_records_round_trip(
    cache: records.Cache, file: records.CacheFile, walk: records.Walk
) -> None:
    assert records.unpack_cache(records.pack_cache(cache)) == cache
    assert records.unpack_cache_file(records.pack_cache_file(file)) == file
    assert records.unpack_walk(records.pack_walk(walk)) == walk


def test_golden_records() -> None:
    assert records.pack_dentry(Dentry(1, 2, 3, 4, 5, 6)).hex() == (
        "01000000000000000200000003000000040000000500000006000000"
    )
    sealed = records.seal(Table.MOVED, b"key", b"record")
    assert sealed.hex() == "7265636f7264" + "58eec5d4f5779136"
    assert records.checksum_of(sealed) == 0x58EEC5D4F5779136


@given(st.binary(min_size=1, max_size=40), st.binary(max_size=60), st.data())
def test_any_damage_is_noticed(key: bytes, record: bytes, data: st.DataObject) -> None:
    sealed = bytearray(records.seal(Table.INODE, key, record))
    assert records.unseal(Table.INODE, key, bytes(sealed)) == record
    position = data.draw(st.integers(0, len(sealed) - 1))
    sealed[position] ^= data.draw(st.integers(1, 255))
    wrong: list[tuple[Table, bytes, bytes]] = [
        (Table.INODE, key, bytes(sealed)),
        (Table.INLINE, key, records.seal(Table.INODE, key, record)),
        (Table.INODE, key + b"x", records.seal(Table.INODE, key, record)),
        (Table.INODE, key, records.seal(Table.INODE, key, record)[:-1]),
        (Table.INODE, key, b""),
    ]
    for table, at, value in wrong:
        with pytest.raises(FsError) as caught:
            records.unseal(table, at, value)
        assert caught.value.code is Code.DAMAGED
