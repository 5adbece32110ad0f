"""An R-worker on this host: S-workers come to its Unix socket, and bring memory that they share.

One thread serves all of them, message by message; threads of the cache attend. Whoever hangs up, or
is silent for `lease_s`, has nothing here any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import mmap
import os
import selectors
import socket
import struct
import time
from typing import TYPE_CHECKING

import numpy as np
from google.protobuf.message import DecodeError

from superfs.core.errors import Code, FsError
from superfs.rpc import packets
from superfs.v1 import fastdecode_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from superfs.kvcache.fastdecode.form import Area, Memory
    from superfs.kvcache.fastdecode.session import Room, Session

log = logging.getLogger("superfs.rworker")

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
BACKLOG = 16
PEER_CREDENTIALS = struct.Struct("3i")


class Peer:
    """One S-worker."""

    def __init__(self, connection: socket.socket, now: float) -> None:
        self.connection = connection
        self.session: Session | None = None
        self.heard = now
        self.shared: mmap.mmap | None = None


class LocalServer:
    def __init__(
        self, path: Path, room: Room, lease_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._room = room
        self._lease_s = lease_s
        self._clock = clock
        self._peers: set[Peer] = set()
        self._selector = selectors.DefaultSelector()
        self._path = path
        self._wake, self._woken = socket.socketpair()
        self._listener = packets.local_socket()
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(BACKLOG)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def stop(self) -> None:
        """From a signal handler, or another thread."""
        self._wake.send(b"s")

    def serve(self, idle: Callable[[], None] = lambda: None) -> None:
        """Until `stop`. `idle` is called several times in each lease."""
        while True:
            for key, _ in self._selector.select(self._lease_s / 4):
                if key.fileobj is self._woken:
                    return
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._serve(key.data)
            self._expire()
            idle()

    def close(self) -> None:
        for peer in list(self._peers):
            self._drop(peer)
        self._selector.close()
        for one in (self._listener, self._wake, self._woken):
            one.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER_CREDENTIALS.size)
        if PEER_CREDENTIALS.unpack(raw)[1] not in (0, os.geteuid()):
            log.warning("a process of another user was sent away")
            connection.close()
            return
        peer = Peer(connection, self._clock())
        self._peers.add(peer)
        self._selector.register(connection, selectors.EVENT_READ, peer)

    def _serve(self, peer: Peer) -> None:
        descriptors: list[int] = []
        try:
            message, descriptors = packets.receive(peer.connection, 1)
            if not message:
                self._drop(peer)
                return
            peer.heard = self._clock()
            request = pb.RwRequest.FromString(message)
            reply = self._answer(peer, request, descriptors)
            if reply is not None:
                packets.send(peer.connection, reply.SerializeToString())
        except (FsError, OSError, DecodeError) as error:
            if isinstance(error, FsError):
                refusal = pb.RwReply(code=error.code, detail=error.detail)
                with contextlib.suppress(OSError):
                    packets.send(peer.connection, refusal.SerializeToString())
            log.info("an S-worker is sent away: %s", error)
            self._drop(peer)
        finally:
            packets.close_all(descriptors)

    def _answer(
        self, peer: Peer, request: pb.RwRequest, descriptors: list[int]
    ) -> pb.RwReply | None:
        if request.WhichOneof("kind") == "open":
            if peer.session is not None or len(descriptors) != 1:
                raise FsError(Code.BAD_REQUEST, "one open, with the descriptor of an area")
            peer.session = self._room.admit(
                request.open, lambda area: self._mapped(peer, area, descriptors[0])
            )
            log.info("an S-worker has come: %d tokens", peer.session.cache.capacity_tokens)
            return pb.RwReply(opened=peer.session.opened)
        if peer.session is None:
            raise FsError(Code.BAD_REQUEST, "it begins with an open")
        return peer.session.handle(request, descriptors)

    @staticmethod
    def _mapped(peer: Peer, area: Area, descriptor: int) -> Memory:
        """Sealed: it cannot become shorter while we touch it."""
        if os.fstat(descriptor).st_size < area.size:
            raise FsError(Code.BAD_REQUEST, f"the area has {area.size} bytes")
        try:
            seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        except OSError:
            seals = 0
        if seals & SEALS != SEALS:
            raise FsError(Code.BAD_REQUEST, "the area is a memfd, sealed against resizing")
        peer.shared = mmap.mmap(descriptor, area.size)
        return np.frombuffer(peer.shared, np.uint8)

    def _expire(self) -> None:
        late = self._clock() - self._lease_s
        for peer in [p for p in self._peers if p.heard < late]:
            log.warning("an S-worker was silent for %.0f s: it has nothing here now", self._lease_s)
            self._drop(peer)

    def _drop(self, peer: Peer) -> None:
        self._peers.discard(peer)
        self._selector.unregister(peer.connection)
        peer.connection.close()
        if peer.session is not None:
            log.info("an S-worker has left")
            self._room.leave(peer.session)
