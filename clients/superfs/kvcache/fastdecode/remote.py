"""An R-worker for S-workers on other hosts: a TCP port, a thread for each S-worker.

Who does not prove that it knows the secret has nothing here but a socket, for a few seconds.
Whoever hangs up, or is silent for `lease_s`, has nothing here any more. frames.py has what travels.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from typing import TYPE_CHECKING

import numpy as np
from google.protobuf.message import DecodeError

from superfs.core.errors import Code, FsError
from superfs.core.limits import MIB
from superfs.kvcache.fastdecode.frames import (
    HANDSHAKE_S,
    receive_head,
    receive_into,
    send_frame,
    split_address,
    welcome,
)
from superfs.v1 import fastdecode_pb2 as pb

if TYPE_CHECKING:
    from superfs.kvcache.fastdecode.form import Area, Memory
    from superfs.kvcache.fastdecode.session import Room, Session

log = logging.getLogger("superfs.rworker")

AREA_BYTES_MAX = 512 * MIB
"""For the rows of one S-worker, besides its keys and values."""
STRANGERS_MAX = 32
"""That have not proved themselves yet."""
PEERS_MAX = 1024
"""Connections, sessions or not."""
BACKLOG = 16
PAUSE_S = 0.1
"""When no connection can be taken."""


class RemoteServer:
    def __init__(self, listen: str, secret: bytes, room: Room, lease_s: float) -> None:
        """OSError: the address cannot be had."""
        self._secret = secret
        self._room = room
        self._lease_s = lease_s
        self._peers: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        self._strangers = threading.BoundedSemaphore(STRANGERS_MAX)
        self._closing = threading.Event()
        host, port = split_address(listen)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        found = self._listener.getsockname()
        self.address = f"[{found[0]}]:{found[1]}" if ":" in host else f"{found[0]}:{found[1]}"
        self._thread = threading.Thread(target=self._accept, name="accept")
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        with self._lock:
            left = list(self._peers.items())
        for peer, thread in left:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                peer, address = self._listener.accept()
            except OSError:
                self._closing.wait(PAUSE_S)
                continue
            if len(self._peers) >= PEERS_MAX or not self._strangers.acquire(blocking=False):
                log.warning("%s was sent away: there are too many", address[0])
                peer.close()
                continue
            thread = threading.Thread(target=self._serve, args=(peer, address[0]), name="peer")
            with self._lock:
                self._peers[peer] = thread
            thread.start()

    def _serve(self, peer: socket.socket, host: str) -> None:
        try:
            try:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                welcome(peer, self._secret)
            finally:
                self._strangers.release()
            peer.settimeout(self._lease_s)
            self._talk(peer, host)
        except TimeoutError:
            log.warning("the S-worker at %s was silent: it has nothing here now", host)
        except (FsError, OSError) as error:
            log.info("%s is sent away: %s", host, error)
        except Exception:
            log.exception("a bug, while the S-worker at %s was served", host)
        finally:
            with self._lock:
                del self._peers[peer]
            peer.close()

    def _talk(self, peer: socket.socket, host: str) -> None:
        session: Session | None = None
        try:
            while (head := receive_head(peer)) is not None:
                message, announced = head
                request = _parsed(message)
                if request.WhichOneof("kind") == "open":
                    if session is not None:
                        raise FsError(Code.BAD_REQUEST, "one open")
                    _expect(announced, [])
                    session = self._room.admit(request.open, _area)
                    log.info("%s has come: %d tokens", host, session.cache.capacity_tokens)
                    reply: pb.RwReply | None = pb.RwReply(opened=session.opened)
                    payload: list[Memory] = []
                else:
                    if session is None:
                        raise FsError(Code.BAD_REQUEST, "it begins with an open")
                    rows = session.incoming(request)
                    _expect(announced, rows)
                    for part in rows:
                        receive_into(peer, memoryview(part).cast("B"))
                    reply = session.handle(request)
                    payload = session.outgoing(request)
                if reply is not None:
                    send_frame(peer, reply.SerializeToString(), payload)
        except FsError as error:
            peer.settimeout(HANDSHAKE_S)
            refusal = pb.RwReply(code=error.code, detail=error.detail)
            with contextlib.suppress(OSError):
                send_frame(peer, refusal.SerializeToString())
            raise
        finally:
            if session is not None:
                self._room.leave(session)


def _parsed(message: bytes) -> pb.RwRequest:
    try:
        return pb.RwRequest.FromString(message)
    except DecodeError:
        raise FsError(Code.BAD_REQUEST, "no message") from None


def _expect(announced: int, rows: list[Memory]) -> None:
    wanted = sum(part.nbytes for part in rows)
    if announced != wanted:
        raise FsError(Code.BAD_REQUEST, f"{announced} bytes of rows where {wanted} belong")


def _area(area: Area) -> Memory:
    if area.size > AREA_BYTES_MAX:
        raise FsError(
            Code.NO_SPACE,
            f"rows of {area.size} bytes: up to {AREA_BYTES_MAX}; take a smaller batch",
        )
    return np.zeros(area.size, np.uint8)
