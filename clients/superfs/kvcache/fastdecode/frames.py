"""S-workers and R-workers on different hosts: one TCP stream for each pair.

Both begin by proving that they know the secret, which is in a file on both hosts and never travels:

    R  8 B GREETING | 32 B nonce r
    S  8 B GREETING | 32 B nonce s | 32 B HMAC-SHA256(secret, "S" r s)
    R  32 B HMAC-SHA256(secret, "R" r s)

Then frames, either way; everything little-endian:

    u32 message bytes | u32 payload bytes | message | payload

The message is of v1/fastdecode.proto. A payload is rows as they lie in memory, a whole mini-batch:
q, k and v with RwStep, o with RwDone, keys and values with RwFill, else nothing. What a peer
announces is compared with what is allowed before memory is taken for it. The stream is not
encrypted: it is for networks that are trusted, like those between daemons.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
import time
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.limits import KIB

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from pathlib import Path

    from superfs.kvcache.fastdecode.form import Memory

GREETING = b"SFSRWK\x00\x01"
NONCE_BYTES = MAC_BYTES = 32
MESSAGE_BYTES_MAX = 64 * KIB
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 16, 4 * KIB
HANDSHAKE_S = 5.0
"""For the whole of it."""
_HEAD = struct.Struct("<II")
HEAD_BYTES = _HEAD.size


def read_secret(path: Path) -> bytes:
    """FORBIDDEN: others can read it. INVALID: it is too short for a secret."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            secret = file.read(SECRET_BYTES_MAX + 1).strip()
    except OSError as error:
        raise FsError(Code.UNAUTHENTICATED, f"{path} cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise FsError(Code.FORBIDDEN, f"{path} can be read by others: chmod 600 {path}")
    if not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        raise FsError(
            Code.INVALID,
            f"{path}: a secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes "
            f"(head -c 32 /dev/urandom | base64 > {path})",
        )
    return secret


def split_address(address: str) -> tuple[str, int]:
    """HOST:PORT, a host of IPv6 in brackets. INVALID: it is something else."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise FsError(Code.INVALID, f"{address!r} is not HOST:PORT")
    return host, int(port)


def _proof(secret: bytes, who: bytes, r: bytes, s: bytes) -> bytes:
    return hmac.digest(secret, who + r + s, hashlib.sha256)


def welcome(peer: socket.socket, secret: bytes) -> None:
    """The R-worker's side. UNAUTHENTICATED: somebody else."""
    deadline = time.monotonic() + HANDSHAKE_S
    mine = os.urandom(NONCE_BYTES)
    peer.settimeout(HANDSHAKE_S)
    peer.sendall(GREETING + mine)
    answer = _exactly(peer, len(GREETING) + NONCE_BYTES + MAC_BYTES, deadline)
    theirs = answer[len(GREETING) : -MAC_BYTES]
    good = hmac.compare_digest(answer[-MAC_BYTES:], _proof(secret, b"S", mine, theirs))
    if not answer.startswith(GREETING) or not good:
        raise FsError(Code.UNAUTHENTICATED, "it does not know the secret")
    peer.sendall(_proof(secret, b"R", mine, theirs))


def introduce(peer: socket.socket, secret: bytes) -> None:
    """The S-worker's side. UNAUTHENTICATED: either has another secret."""
    deadline = time.monotonic() + HANDSHAKE_S
    greeting = _exactly(peer, len(GREETING) + NONCE_BYTES, deadline)
    if not greeting.startswith(GREETING):
        raise FsError(Code.UNAUTHENTICATED, "no R-worker of this version answers there")
    theirs, mine = greeting[len(GREETING) :], os.urandom(NONCE_BYTES)
    peer.sendall(GREETING + mine + _proof(secret, b"S", theirs, mine))
    try:
        proof = _exactly(peer, MAC_BYTES, deadline)
    except ConnectionError:
        proof = b""
    if not hmac.compare_digest(proof, _proof(secret, b"R", theirs, mine)):
        raise FsError(Code.UNAUTHENTICATED, "its secret is another one")


def _exactly(peer: socket.socket, count: int, deadline: float) -> bytes:
    found = bytearray()
    while len(found) < count:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the handshake took too long")
        peer.settimeout(left_s)
        part = peer.recv(count - len(found))
        if not part:
            raise ConnectionResetError("hung up in the handshake")
        found += part
    return bytes(found)


def send_frame(peer: socket.socket, message: bytes, payload: Sequence[Memory] = ()) -> int:
    """All of it; the payload from where it lies. How many bytes."""
    assert len(message) <= MESSAGE_BYTES_MAX
    views = [memoryview(part).cast("B") for part in payload if part.nbytes]
    size = sum(map(len, views))
    parts = [memoryview(_HEAD.pack(len(message), size) + message), *views]
    while parts:
        sent = peer.sendmsg(parts)
        while parts and sent >= len(parts[0]):
            sent -= len(parts.pop(0))
        if sent:
            parts[0] = parts[0][sent:]
    return HEAD_BYTES + len(message) + size


def receive_head(peer: socket.socket) -> tuple[bytes, int] | None:
    """A message, and how many bytes follow it. None: the peer has hung up between two frames.
    BAD_REQUEST: a message that is too long."""
    head = bytearray(HEAD_BYTES)
    first = peer.recv_into(head)
    if not first:
        return None
    receive_into(peer, memoryview(head)[first:])
    length, payload = _HEAD.unpack(head)
    if length > MESSAGE_BYTES_MAX:
        raise FsError(Code.BAD_REQUEST, f"a message of {length} bytes")
    message = bytearray(length)
    receive_into(peer, memoryview(message))
    return bytes(message), payload


def receive_into(peer: socket.socket, view: memoryview) -> None:
    """All of it. ConnectionError: the peer has hung up before."""
    while view:
        count = peer.recv_into(view)
        if not count:
            raise ConnectionResetError("hung up within a frame")
        view = view[count:]
