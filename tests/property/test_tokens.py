"""Nothing but what the right key signed for the right purpose, and in time, is a token."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superfs.core.errors import Code, FsError
from superfs.core.limits import TOKEN_BYTES_MAX
from superfs.core.tokens import (
    Authority,
    Grant,
    Purpose,
    armor,
    format_key,
    parse_key,
    unarmor,
)

KEY = bytes(range(32))
NOW_NS = 1_700_000_000_000_000_000

ids = st.integers(0, (1 << 32) - 2)
numbers = st.integers(0, (1 << 64) - 1)
names = st.text(st.characters(categories=("L", "N", "P", "Zs")), max_size=60).filter(
    str.isprintable
)
grants = st.builds(
    Grant,
    kind=st.sampled_from(["host", "user", "daemon"]),
    name=names,
    uid=ids,
    gid=ids,
    groups=st.lists(ids, max_size=40).map(tuple),
    read_only=st.booleans(),
    session_id=numbers,
    epoch=numbers,
    expires_ns=st.one_of(st.just(0), st.integers(NOW_NS + 1, (1 << 63) - 1)),
    inode=numbers,
)
purposes = st.sampled_from(Purpose)


def refused(authority: Authority, purpose: Purpose, token: bytes, now_ns: int = NOW_NS) -> None:
    with pytest.raises(FsError) as caught:
        authority.verify(purpose, token, now_ns)
    assert caught.value.code is Code.UNAUTHENTICATED


@given(purposes, grants)
def test_round_trip(purpose: Purpose, grant: Grant) -> None:
    authority = Authority(KEY)
    token = authority.issue(purpose, grant)
    assert authority.verify(purpose, token, NOW_NS) == grant
    assert unarmor(armor(token)) == token


@given(purposes, grants)
def test_one_grant_has_one_token(purpose: Purpose, grant: Grant) -> None:
    assert Authority(KEY).issue(purpose, grant) == Authority(KEY).issue(purpose, grant)


@given(purposes, grants, st.data())
def test_a_changed_byte_is_refused(purpose: Purpose, grant: Grant, data: st.DataObject) -> None:
    token = bytearray(Authority(KEY).issue(purpose, grant))
    at = data.draw(st.integers(0, len(token) - 1))
    token[at] ^= data.draw(st.integers(1, 255))
    refused(Authority(KEY), purpose, bytes(token))


@given(purposes, grants, st.data())
def test_a_cut_or_longer_token_is_refused(
    purpose: Purpose, grant: Grant, data: st.DataObject
) -> None:
    token = Authority(KEY).issue(purpose, grant)
    refused(Authority(KEY), purpose, token[: data.draw(st.integers(0, len(token) - 1))])
    refused(Authority(KEY), purpose, token + data.draw(st.binary(min_size=1, max_size=20)))


@given(st.permutations(list(Purpose)), grants)
def test_another_purpose_is_refused(two: list[Purpose], grant: Grant) -> None:
    refused(Authority(KEY), two[0], Authority(KEY).issue(two[1], grant))


@given(purposes, grants, st.binary(min_size=32, max_size=32))
def test_another_key_is_refused(purpose: Purpose, grant: Grant, key: bytes) -> None:
    if key != KEY:
        refused(Authority(KEY), purpose, Authority(key).issue(purpose, grant))


@given(purposes, grants, st.integers(1, NOW_NS))
def test_an_expired_token_is_refused(purpose: Purpose, grant: Grant, age_ns: int) -> None:
    authority = Authority(KEY)
    over = replace(grant, expires_ns=NOW_NS)
    token = authority.issue(purpose, over)
    assert authority.verify(purpose, token, NOW_NS - 1) == over
    refused(authority, purpose, token, NOW_NS)
    refused(authority, purpose, token, NOW_NS + age_ns)
    assert authority.verify(purpose, token, NOW_NS + age_ns, even_expired=True) == over


@given(purposes, st.binary(max_size=400))
def test_random_bytes_are_refused(purpose: Purpose, token: bytes) -> None:
    refused(Authority(KEY), purpose, token)
    with pytest.raises(FsError) as caught:
        unarmor(token)
    assert caught.value.code is Code.UNAUTHENTICATED


def test_a_token_has_a_limit() -> None:
    with pytest.raises(FsError) as caught:
        Authority(KEY).issue(Purpose.FILE, Grant("user", groups=tuple(range(70_000))))
    assert caught.value.code is Code.TOO_LARGE
    refused(Authority(KEY), Purpose.FILE, bytes(TOKEN_BYTES_MAX + 1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "root"},
        {"name": "a\nb"},
        {"name": "x" * 256},
        {"uid": -1},
        {"gid": (1 << 32) - 1},
        {"groups": (1, -2)},
        {"session_id": 1 << 64},
        {"expires_ns": -1},
    ],
)
def test_a_grant_checks_itself(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Grant(**{"kind": "host", **wrong})  # type: ignore[arg-type]


def test_a_key_round_trips_and_is_not_quoted_in_errors() -> None:
    assert parse_key(format_key(KEY)) == KEY
    for text in ("", "12", "zz" * 32, KEY.hex() + "00", "é" * 64):
        with pytest.raises(ValueError, match="not a cluster key") as caught:
            parse_key(text)
        assert not text or text not in str(caught.value)
    with pytest.raises(ValueError, match="32 bytes"):
        Authority(b"short")
    assert KEY.hex() not in repr(Authority(KEY))


def test_golden_token() -> None:
    """The layout that other versions read: change the version byte before this."""
    grant = Grant("user", "ann", 1000, 100, (4, 24), True, 7, 9, NOW_NS, 11)
    token = Authority(KEY).issue(Purpose.SESSION, grant)
    assert token[:-32].hex() == (
        "01020101e8030000640000000700000000000000090000000000000000002a36fe9c97"
        "170b000000000000000300020061"
        "6e6e0400000018000000"
    )
