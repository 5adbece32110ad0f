"""How a client gets in: the contents of its token file against a session token.

On clusterd's host this goes over a Unix socket of ours, `handshake.sock` beside clusterd's own,
because grpcio cannot see SO_PEERCRED. From elsewhere it is the call Cluster.Handshake.

One exchange a connection, everything little-endian; whoever breaks the frame is cut off:

    client   u32 length | HandshakeRequest
    server   u32 code | u32 length | HandshakeReply where code is 0, else detail in UTF-8

`code` is of core/errors.py; `length` counts what follows it.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from google.protobuf.message import DecodeError

from superfs.core.errors import Code, FsError, known_code
from superfs.core.limits import KIB, MIB, TOKEN_BYTES_MAX
from superfs.rpc.channel import choose_address, open_channel
from superfs.rpc.errors import from_rpc
from superfs.v1 import cluster_pb2, cluster_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Sequence

SOCKET_NAME = "handshake.sock"
REQUEST_BYTES_MAX = 32 * KIB
REPLY_BYTES_MAX = 1 * MIB
EXCHANGE_S = 5.0
"""How long either side waits for the other, for the whole of it."""

LENGTH = struct.Struct("<I")
_ANSWER = struct.Struct("<II")

assert 3 * TOKEN_BYTES_MAX < REQUEST_BYTES_MAX


def socket_path(clusterd_address: str) -> Path:
    """Of the handshake socket beside clusterd's "unix:PATH"."""
    return Path(clusterd_address.removeprefix("unix:")).parent / SOCKET_NAME


def encode_reply(answer: cluster_pb2.HandshakeReply | FsError) -> bytes:
    if isinstance(answer, FsError):
        code, body = answer.code, answer.detail.encode("utf-8", "replace")[:KIB]
    else:
        code, body = Code.OK, answer.SerializeToString()
    return _ANSWER.pack(code, len(body)) + body


def shake_hands(
    cluster: Sequence[str], request: cluster_pb2.HandshakeRequest, timeout_s: float = EXCHANGE_S
) -> cluster_pb2.HandshakeReply:
    """The client's side, blocking. `cluster`: addresses of clusterd.

    FsError: UNAVAILABLE or DEADLINE (try again), UNAUTHENTICATED or FORBIDDEN (do not)."""
    address = choose_address(cluster)
    if address.startswith("unix:"):
        return exchange(socket_path(address), request, timeout_s)
    with open_channel([address]) as channel:
        stub = cluster_pb2_grpc.ClusterStub(channel)
        try:
            reply: cluster_pb2.HandshakeReply = stub.Handshake(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise from_rpc(error) from None
    return reply


def exchange(
    path: Path, request: cluster_pb2.HandshakeRequest, timeout_s: float = EXCHANGE_S
) -> cluster_pb2.HandshakeReply:
    """Over the handshake socket at `path`."""
    deadline = time.monotonic() + timeout_s
    message = request.SerializeToString()
    if len(message) > REQUEST_BYTES_MAX:
        raise FsError(Code.TOO_LARGE, f"a handshake has at most {REQUEST_BYTES_MAX} bytes")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as peer:
        try:
            peer.settimeout(timeout_s)
            peer.connect(os.fspath(path))
            peer.sendall(LENGTH.pack(len(message)) + message)
            code, length = _ANSWER.unpack(_receive(peer, _ANSWER.size, deadline))
            if length > REPLY_BYTES_MAX:
                raise FsError(Code.INTERNAL, "clusterd answered the handshake with nonsense")
            body = _receive(peer, length, deadline)
        except TimeoutError:
            raise FsError(Code.DEADLINE, f"no answer from clusterd at {path}") from None
        except PermissionError:
            raise FsError(Code.FORBIDDEN, f"{path}: permission denied") from None
        except OSError as error:
            raise FsError(
                Code.UNAVAILABLE, f"no clusterd answers at {path}: {error.strerror}"
            ) from None
    if code != Code.OK:
        raise FsError(known_code(code), body.decode("utf-8", "replace"))
    try:
        return cluster_pb2.HandshakeReply.FromString(body)
    except DecodeError:
        raise FsError(Code.INTERNAL, "clusterd answered the handshake with nonsense") from None


def _receive(peer: socket.socket, size: int, deadline: float) -> bytes:
    data = bytearray()
    while len(data) < size:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        peer.settimeout(left_s)
        part = peer.recv(size - len(data))
        if not part:
            raise FsError(Code.UNAVAILABLE, "clusterd ended the handshake")
        data += part
    return bytes(data)
