"""Who gets in: a token file's contents against a session token. No IO."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.tokens import Authority, Grant, Purpose, unarmor

if TYPE_CHECKING:
    import random


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of our Unix socket, says the kernel."""

    uid: int


@dataclass(frozen=True, slots=True)
class Admitted:
    token: bytes
    grant: Grant


class Admission:
    def __init__(
        self, authority: Authority, rng: random.Random, session_s: float, own_uid: int
    ) -> None:
        self._authority = authority
        self._rng = rng
        self._session_ns = round(session_s * 1e9)
        self._own_uid = own_uid

    def admit(
        self,
        contents: bytes,
        now_ns: int,
        *,
        peer: Peer | None = None,
        session_id: int = 0,
        session_token: bytes = b"",
    ) -> Admitted:
        """`peer` None: from another host. With a `session_id` that session goes on, if its own
        token (which may have expired) proves that it is the caller's."""
        file_grant = self._authority.verify(Purpose.FILE, unarmor(contents), now_ns)
        if file_grant.kind == "daemon":
            raise FsError(Code.FORBIDDEN, "daemons sign their own tokens")
        if peer is not None:
            self._check_peer(file_grant, peer)
        if session_id:
            self._check_renewal(file_grant, session_id, session_token, now_ns)
        else:
            session_id = self._rng.getrandbits(64) or 1
        expires_ns = now_ns + self._session_ns
        if file_grant.expires_ns:
            expires_ns = min(expires_ns, file_grant.expires_ns)
        grant = replace(file_grant, session_id=session_id, expires_ns=expires_ns)
        return Admitted(self._authority.issue(Purpose.SESSION, grant), grant)

    def _check_peer(self, grant: Grant, peer: Peer) -> None:
        """Over our socket a token file that leaked is of no use to another user of this host."""
        allowed = (0, self._own_uid) if grant.kind == "host" else (0, grant.uid)
        if peer.uid not in allowed:
            raise FsError(Code.FORBIDDEN, f"this token is not for uid {peer.uid}")

    def _check_renewal(self, grant: Grant, session_id: int, proof: bytes, now_ns: int) -> None:
        held = self._authority.verify(Purpose.SESSION, proof, now_ns, even_expired=True)
        same = replace(held, session_id=0, expires_ns=0) == replace(
            grant, session_id=0, expires_ns=0
        )
        if held.session_id != session_id or not same:
            raise FsError(Code.FORBIDDEN, "that session belongs to another token")
