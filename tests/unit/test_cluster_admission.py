"""Who gets in, and as whom."""

from __future__ import annotations

import random

import pytest

from superfs.cluster.admission import Admission, Peer
from superfs.core.errors import Code, FsError
from superfs.core.tokens import Authority, Grant, Purpose, armor

AUTHORITY = Authority(b"k" * 32)
NOW_NS = 1_700_000_000_000_000_000
HOST = Grant("host", "node7")
USER = Grant("user", "ann", uid=1000, gid=100, groups=(4,), read_only=True)
OWN_UID = 990


def admission() -> Admission:
    return Admission(AUTHORITY, random.Random(1), 3600.0, OWN_UID)


def contents(grant: Grant) -> bytes:
    return armor(AUTHORITY.issue(Purpose.FILE, grant))


def refusal(contents: bytes, **options: object) -> Code:
    with pytest.raises(FsError) as caught:
        admission().admit(contents, NOW_NS, **options)  # type: ignore[arg-type]
    return caught.value.code


@pytest.mark.parametrize("grant", [HOST, USER])
def test_a_token_file_becomes_a_session(grant: Grant) -> None:
    admitted = admission().admit(contents(grant), NOW_NS)
    held = AUTHORITY.verify(Purpose.SESSION, admitted.token, NOW_NS)
    assert held == admitted.grant
    assert (held.kind, held.name, held.uid, held.groups, held.read_only) == (
        grant.kind,
        grant.name,
        grant.uid,
        grant.groups,
        grant.read_only,
    )
    assert held.session_id != 0
    assert held.expires_ns == NOW_NS + 3600 * 10**9


def test_sessions_differ_and_end_with_their_token_file() -> None:
    one = admission()
    ids = {one.admit(contents(HOST), NOW_NS).grant.session_id for _ in range(50)}
    assert len(ids) == 50
    short = Grant("host", "x", expires_ns=NOW_NS + 5)
    assert admission().admit(contents(short), NOW_NS).grant.expires_ns == NOW_NS + 5
    assert refusal(contents(Grant("host", expires_ns=NOW_NS))) is Code.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("grant", "uid", "good"),
    [
        (HOST, 0, True),
        (HOST, OWN_UID, True),
        (HOST, 1000, False),
        (USER, 1000, True),
        (USER, 0, True),
        (USER, OWN_UID, False),
        (USER, 1001, False),
        (Grant("user", uid=0), 1000, False),
    ],
)
def test_the_kernel_says_who_calls(grant: Grant, uid: int, good: bool) -> None:
    if good:
        assert admission().admit(contents(grant), NOW_NS, peer=Peer(uid)).grant.uid == grant.uid
    else:
        assert refusal(contents(grant), peer=Peer(uid)) is Code.FORBIDDEN


def test_a_session_is_renewed_with_its_own_token_only() -> None:
    first = admission().admit(contents(USER), NOW_NS)
    session_id = first.grant.session_id
    much_later = NOW_NS + 10**15
    again = admission().admit(
        contents(USER), much_later, session_id=session_id, session_token=first.token
    )
    assert again.grant.session_id == session_id
    assert again.grant.expires_ns > much_later
    other = admission().admit(contents(HOST), NOW_NS)
    assert refusal(contents(USER), session_id=session_id) is Code.UNAUTHENTICATED
    assert (
        refusal(contents(USER), session_id=session_id, session_token=other.token) is Code.FORBIDDEN
    )
    assert (
        refusal(contents(HOST), session_id=session_id, session_token=first.token) is Code.FORBIDDEN
    )
    assert (
        refusal(contents(USER), session_id=session_id + 1, session_token=first.token)
        is Code.FORBIDDEN
    )


def test_what_is_no_token_file() -> None:
    daemon = Grant("daemon", "node 1")
    assert refusal(contents(daemon)) is Code.FORBIDDEN
    session = armor(AUTHORITY.issue(Purpose.SESSION, HOST))
    foreign = armor(Authority(b"o" * 32).issue(Purpose.FILE, HOST))
    for bad in (b"", b"junk", session, foreign, AUTHORITY.issue(Purpose.FILE, HOST)):
        assert refusal(bad) is Code.UNAUTHENTICATED
