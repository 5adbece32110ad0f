"""The handshake socket: our own Unix socket, because only there the kernel says who calls.

The frame is in rpc/handshake.py. Nothing a client sends costs more than one request's memory for
EXCHANGE_S seconds, and at most CONNECTIONS_MAX clients are heard at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from superfs.cluster.admission import Peer
from superfs.core.errors import Code, FsError
from superfs.rpc.handshake import EXCHANGE_S, LENGTH, REQUEST_BYTES_MAX, encode_reply
from superfs.rpc.server import clear_socket
from superfs.v1 import cluster_pb2

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from superfs.daemon.world import World

CONNECTIONS_MAX = 64

_UCRED = struct.Struct("iII")  # pid, uid, gid


class HandshakeSocket:
    def __init__(
        self,
        path: Path,
        answer: Callable[[cluster_pb2.HandshakeRequest, Peer], cluster_pb2.HandshakeReply],
        world: World,
        exchange_s: float = EXCHANGE_S,
    ) -> None:
        self._path = path
        self._answer = answer
        self._world = world
        self._exchange_s = exchange_s
        self._clients: set[asyncio.Task[None]] = set()

    async def serve(self, started: asyncio.Event) -> None:
        """Until it is cancelled; OSError if the path cannot be had."""
        clear_socket(self._path)
        self._path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(
            self._exchange, self._path, limit=REQUEST_BYTES_MAX, backlog=CONNECTIONS_MAX
        )
        started.set()
        try:
            async with server:
                await server.serve_forever()
        finally:
            self._path.unlink(missing_ok=True)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            async with asyncio.timeout(self._exchange_s):
                if len(self._clients) > CONNECTIONS_MAX:
                    reply = encode_reply(FsError(Code.UNAVAILABLE, "too many handshakes at once"))
                else:
                    reply = await self._reply(reader, _peer_of(writer))
                writer.write(reply)
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass  # a client that is slow, gone, or breaks the frame is owed nothing
        finally:
            self._clients.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _reply(self, reader: asyncio.StreamReader, peer: Peer) -> bytes:
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        if length > REQUEST_BYTES_MAX:
            return encode_reply(FsError(Code.TOO_LARGE, "the handshake is too long"))
        message = await reader.readexactly(length)
        try:
            return encode_reply(self._answer(_parse(message), peer))
        except FsError as error:
            self._world.log.warning("refused a handshake", uid=peer.uid, error=str(error))
            return encode_reply(error)
        except Exception:
            self._world.log.exception("an unexpected error in a handshake")
            return encode_reply(FsError(Code.INTERNAL, "internal error; see the daemon's log"))


def _parse(message: bytes) -> cluster_pb2.HandshakeRequest:
    try:
        return cluster_pb2.HandshakeRequest.FromString(message)
    except DecodeError:
        raise FsError(Code.BAD_REQUEST, "not a handshake") from None


def _peer_of(writer: asyncio.StreamWriter) -> Peer:
    connection: socket.socket = writer.get_extra_info("socket")
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _pid, uid, _gid = _UCRED.unpack(raw)
    return Peer(uid)
