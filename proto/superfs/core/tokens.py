"""Tokens: what a client or daemon may do, signed with the key of the cluster.

A token is a `Grant` in one canonical binary form, behind it an HMAC-SHA256. Each purpose has a
key of its own, derived from the key of the cluster, so that a token of one purpose never passes
for another. No IO here: the caller gives the time.

    u8 version | u8 purpose | u8 kind | u8 flags | u32 uid | u32 gid | u64 session | u64 epoch |
    i64 expires_ns | u64 inode | u16 name bytes | u16 groups | name | u32 each group | 32 B HMAC

All little-endian. In a token file the same bytes stand as one line of text (`armor`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from superfs.core.errors import Code, FsError
from superfs.core.limits import TOKEN_BYTES_MAX

Kind = Literal["host", "user", "daemon"]

KEY_BYTES = 32
MAC_BYTES = 32
NAME_BYTES_MAX = 255

_VERSION = 1
_KINDS: tuple[Kind, ...] = ("host", "user", "daemon")
_READ_ONLY = 1
_HEAD = struct.Struct("<BBBBIIQQqQHH")
_ARMOR = b"superfs-token-1 "


class Purpose(IntEnum):
    FILE = 1  # the contents of a token file: shown at a handshake only
    SESSION = 2  # carried by every call
    CAPABILITY = 3  # shown to data daemons


@dataclass(frozen=True, slots=True)
class Grant:
    """Who the bearer is. `expires_ns` 0: never; `inode` 0: not bound to one."""

    kind: Kind
    name: str = ""
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    read_only: bool = False
    session_id: int = 0
    epoch: int = 0
    expires_ns: int = 0
    inode: int = 0

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"kind must be one of {', '.join(_KINDS)}, not {self.kind!r}")
        if len(self.name.encode()) > NAME_BYTES_MAX or not self.name.isprintable():
            raise ValueError(f"name must be printable and at most {NAME_BYTES_MAX} bytes")
        for number in (self.uid, self.gid, *self.groups):
            if not 0 <= number < (1 << 32) - 1:
                raise ValueError(f"uid and gid must be from 0 to 2^32-2, not {number}")
        for number in (self.session_id, self.epoch, self.inode):
            if not 0 <= number < 1 << 64:
                raise ValueError(f"must be 64 bits, not {number}")
        if not 0 <= self.expires_ns < 1 << 63:
            raise ValueError(f"expiry must be 63 bits, not {self.expires_ns}")

    def expired(self, now_ns: int) -> bool:
        return self.expires_ns != 0 and now_ns >= self.expires_ns


class Authority:
    """Issues and verifies tokens. Whoever holds the key can issue: daemons only."""

    __slots__ = ("_keys",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"the key of a cluster has {KEY_BYTES} bytes, not {len(key)}")
        self._keys = {
            purpose: hashlib.blake2b(
                digest_size=KEY_BYTES, key=key, person=b"superfs-token", salt=bytes([purpose])
            ).digest()
            for purpose in Purpose
        }

    def __repr__(self) -> str:
        return "Authority(...)"

    def issue(self, purpose: Purpose, grant: Grant) -> bytes:
        body = _pack(purpose, grant)
        if len(body) + MAC_BYTES > TOKEN_BYTES_MAX:
            raise FsError(Code.TOO_LARGE, f"a token has at most {TOKEN_BYTES_MAX} bytes")
        return body + self._mac(purpose, body)

    def verify(
        self, purpose: Purpose, token: bytes, now_ns: int, *, even_expired: bool = False
    ) -> Grant:
        """UNAUTHENTICATED for whatever this key did not sign for this purpose, or is over."""
        if not _HEAD.size + MAC_BYTES <= len(token) <= TOKEN_BYTES_MAX:
            raise FsError(Code.UNAUTHENTICATED, "not a token")
        body, mac = token[:-MAC_BYTES], token[-MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(purpose, body)):
            raise FsError(Code.UNAUTHENTICATED, "not a token of this cluster for this use")
        grant = _unpack(purpose, body)
        if grant.expired(now_ns) and not even_expired:
            raise FsError(Code.UNAUTHENTICATED, "the token has expired")
        return grant

    def _mac(self, purpose: Purpose, body: bytes) -> bytes:
        return hmac.digest(self._keys[purpose], body, "sha256")


def claims(purpose: Purpose, token: bytes) -> Grant:
    """What a token says of its bearer, believed by nobody: so that a client knows who it is."""
    if not _HEAD.size + MAC_BYTES <= len(token) <= TOKEN_BYTES_MAX:
        raise FsError(Code.UNAUTHENTICATED, "not a token")
    return _unpack(purpose, token[:-MAC_BYTES])


def _pack(purpose: Purpose, grant: Grant) -> bytes:
    name = grant.name.encode()
    if len(grant.groups) > 0xFFFF:
        raise FsError(Code.TOO_LARGE, f"a token has at most {TOKEN_BYTES_MAX} bytes")
    head = _HEAD.pack(
        _VERSION,
        purpose,
        _KINDS.index(grant.kind),
        _READ_ONLY if grant.read_only else 0,
        grant.uid,
        grant.gid,
        grant.session_id,
        grant.epoch,
        grant.expires_ns,
        grant.inode,
        len(name),
        len(grant.groups),
    )
    return head + name + struct.pack(f"<{len(grant.groups)}I", *grant.groups)


def _unpack(purpose: Purpose, body: bytes) -> Grant:
    """Of a body whose signature is good: anything odd is from another version of the program."""
    head = _HEAD.unpack_from(body)
    version, used_for, kind, flags, uid, gid, session_id, epoch, expires_ns, inode = head[:10]
    name_bytes, groups = head[10:]
    if version != _VERSION or used_for != purpose or kind >= len(_KINDS):
        raise FsError(Code.UNAUTHENTICATED, "a token of another version")
    at = _HEAD.size + name_bytes
    if len(body) != at + 4 * groups:
        raise FsError(Code.UNAUTHENTICATED, "a token of another version")
    try:
        grant = Grant(
            kind=_KINDS[kind],
            name=body[_HEAD.size : at].decode(),
            uid=uid,
            gid=gid,
            groups=struct.unpack_from(f"<{groups}I", body, at),
            read_only=bool(flags & _READ_ONLY),
            session_id=session_id,
            epoch=epoch,
            expires_ns=expires_ns,
            inode=inode,
        )
    except ValueError:
        raise FsError(Code.UNAUTHENTICATED, "a token of another version") from None
    if _pack(purpose, grant) != body:
        raise FsError(Code.UNAUTHENTICATED, "a token of another version")
    return grant


def armor(token: bytes) -> bytes:
    """The contents of a token file."""
    return _ARMOR + base64.b64encode(token) + b"\n"


def unarmor(contents: bytes) -> bytes:
    """The token in the contents of a token file; UNAUTHENTICATED if they are none."""
    text = contents.strip()
    if not text.startswith(_ARMOR) or len(text) > 2 * TOKEN_BYTES_MAX:
        raise FsError(Code.UNAUTHENTICATED, "not the contents of a token file")
    try:
        return base64.b64decode(text[len(_ARMOR) :], validate=True)
    except (binascii.Error, ValueError):
        raise FsError(Code.UNAUTHENTICATED, "not the contents of a token file") from None


def format_key(key: bytes) -> str:
    """The contents of a key file."""
    assert len(key) == KEY_BYTES, len(key)
    return key.hex() + "\n"


def parse_key(text: str) -> bytes:
    """ValueError, without any of the text, if it is not a key."""
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        raise ValueError("not a cluster key: 64 hexadecimal digits expected") from None
    if len(key) != KEY_BYTES:
        raise ValueError("not a cluster key: 64 hexadecimal digits expected")
    return key
