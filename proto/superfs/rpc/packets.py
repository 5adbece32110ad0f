"""Messages with descriptors, over a Unix socket that keeps their borders (SOCK_SEQPACKET).

The same at both ends: a peer may send anything, and no more than what is expected arrives here.
"""

from __future__ import annotations

import array
import os
import socket

from superfs.core.errors import Code, FsError
from superfs.core.limits import KIB, TOKEN_BYTES_MAX

PACKET_BYTES_MAX = 32 * KIB

_INT_BYTES = array.array("i").itemsize

assert 3 * TOKEN_BYTES_MAX < PACKET_BYTES_MAX


def local_socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)


def send(peer: socket.socket, message: bytes, descriptors: list[int] | None = None) -> None:
    """Never waits. OSError when the peer is gone, or has not taken what was sent before."""
    assert 0 < len(message) <= PACKET_BYTES_MAX, "an empty packet is the end of the stream"
    rights = []
    if descriptors:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    peer.sendmsg([message], rights, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)


def receive(peer: socket.socket, descriptors_max: int) -> tuple[bytes, list[int]]:
    """One message, and the descriptors that came with it, which are the caller's to close. No
    bytes: the peer has hung up. BAD_REQUEST for a packet that is too long or brings more
    descriptors than that; then none stays open."""
    room = socket.CMSG_LEN(descriptors_max * _INT_BYTES) if descriptors_max else 0
    message, rights, flags, _ = peer.recvmsg(PACKET_BYTES_MAX, room, socket.MSG_CMSG_CLOEXEC)
    found = array.array("i")
    for level, kind, data in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % _INT_BYTES])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close_all(found.tolist())
        raise FsError(Code.BAD_REQUEST, "a packet that is too long, or with too many descriptors")
    return message, found.tolist()


def close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
