"""The data daemon's own Unix socket: descriptors for clients on the same host.

Only here the kernel says who calls, and only here a descriptor can be passed. A peer must be root
or the daemon's own user, and show the token and the capability of a host session with a right to
everything: a descriptor shows a whole segment, and so every file. What is passed is opened anew,
for reading only: the readers of one do not disturb the kernel's read-ahead for another.

Nothing a peer sends costs more than one packet's memory, and nobody is waited for: a peer that
breaks the protocol, or does not take its answers, is hung up on, and goes on by gRPC.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from superfs.core.errors import Code, FsError
from superfs.core.limits import DESCRIPTORS_PER_MESSAGE_MAX
from superfs.core.tokens import Purpose
from superfs.data.access import Access, Capabilities
from superfs.data.passed import CLOSE_WITHIN_S, Passed
from superfs.rpc import packets
from superfs.rpc.server import clear_socket
from superfs.v1.data_pb2 import LocalReply, LocalRequest

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.daemon.world import World
    from superfs.data.config import LocalConfig
    from superfs.data.metrics import DataMetrics
    from superfs.data.segments import Segment
    from superfs.data.shared import SharedBuffers
    from superfs.data.store import DataStore

HELLO_S = 5.0
REQUESTS_A_TURN = 16
_UCRED = struct.Struct("iII")  # pid, uid, gid


class LocalSocket:
    def __init__(
        self,
        path: Path,
        store: DataStore,
        shared: SharedBuffers,
        config: LocalConfig,
        metrics: DataMetrics,
        world: World,
    ) -> None:
        self.path = path
        self.store = store
        self.shared = shared
        self.buffers_max = config.buffers_max
        self.lent_max = config.lent_max
        self.metrics = metrics
        self.world = world
        self.passed = Passed(config.descriptors_max)
        self.capabilities = Capabilities(world.authority, world.clock.now_ns)
        self._peers_max = config.peers_max
        self._peers: set[Peer] = set()
        self._listener: socket.socket | None = None
        metrics.watch_passed(self.passed, shared)

    def start(self) -> None:
        """OSError if the path cannot be had."""
        clear_socket(self.path)
        self.path.unlink(missing_ok=True)
        listener = packets.local_socket()
        listener.setblocking(False)
        try:
            listener.bind(os.fspath(self.path))
            listener.listen(self._peers_max)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept)
        self.store.on_unlinked = self._unlinked
        self.store.on_fenced = self._fenced

    def close(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            self.path.unlink(missing_ok=True)
        for peer in list(self._peers):
            peer.hang_up()

    def left(self, peer: Peer) -> None:
        self._peers.discard(peer)
        self.passed.leave(peer.holder)
        self.shared.drop(peer.buffers)
        for number in peer.lent:
            self.store.lending.end(number)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # gone again, or no descriptor left: it will try another time
        connection.setblocking(False)
        peer = Peer(self, connection)
        self._peers.add(peer)
        peer.listen(too_many=len(self._peers) > self._peers_max)

    def _unlinked(self, segment: Segment) -> None:
        now_s = self.world.clock.monotonic()
        holders = self.passed.unlink(segment.number, segment.size, now_s)
        for peer in list(self._peers):
            if peer.holder in holders:
                peer.tell_unlinked(segment.number)

    def _fenced(self, session: int) -> None:
        for peer in list(self._peers):
            if peer.session == session:
                peer.hang_up()


class Peer:
    """One client, from its connection to its end."""

    def __init__(self, local: LocalSocket, connection: socket.socket) -> None:
        self._local = local
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._access: Access | None = None
        self._said_late = False
        self.session = 0
        self.holder = local.passed.join()
        self.buffers: set[int] = set()
        self.lent: set[int] = set()
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        self._pid, self._uid, _ = _UCRED.unpack(raw)
        self._patience = self._loop.call_later(HELLO_S, self._hello_is_late)

    def listen(self, *, too_many: bool) -> None:
        if self._uid not in (0, os.geteuid()):
            self._refuse(FsError(Code.FORBIDDEN, f"uid {self._uid} gets no descriptors here"))
        elif too_many:
            self._refuse(FsError(Code.UNAVAILABLE, "too many clients hold descriptors"))
        else:
            self._loop.add_reader(self._connection, self._readable)

    def hang_up(self) -> None:
        if self._connection.fileno() < 0:
            return
        self._patience.cancel()
        self._loop.remove_reader(self._connection)
        self._connection.close()
        self._local.left(self)

    def tell_unlinked(self, number: int) -> None:
        self._send(LocalReply(unlinked=[number]))
        self._loop.call_later(CLOSE_WITHIN_S, self._look_if_late)

    def _look_if_late(self) -> None:
        passed, now_s = self._local.passed, self._local.world.clock.monotonic()
        late = self._connection.fileno() >= 0 and passed.is_late(self.holder, now_s)
        if late and not self._said_late:
            self._said_late = True
            self._local.world.log.warning(
                "a client keeps descriptors of removed segments: their space is not free",
                pid=self._pid, uid=self._uid, pinned_bytes=passed.pinned_bytes,
            )  # fmt: skip

    def _hello_is_late(self) -> None:
        if self._access is None:
            self.hang_up()

    def _refuse(self, error: FsError) -> None:
        self._local.world.log.warning(
            "refused a client on the local socket", pid=self._pid, uid=self._uid, error=str(error)
        )
        self._send(LocalReply(code=error.code, detail=error.detail))
        self.hang_up()

    def _send(self, reply: LocalReply, descriptors: list[int] | None = None) -> None:
        if self._connection.fileno() < 0:
            return
        try:
            packets.send(self._connection, reply.SerializeToString(), descriptors)
        except OSError:
            self.hang_up()  # gone, or it does not take what it asked for

    # ---- requests

    def _readable(self) -> None:
        for _ in range(REQUESTS_A_TURN):
            try:
                message, descriptors = packets.receive(self._connection, 1)
            except BlockingIOError:
                return
            except OSError:
                self.hang_up()
                return
            except FsError as error:
                self._refuse(error)
                return
            if not message:
                self.hang_up()
                return
            try:
                self._answer(LocalRequest.FromString(message), descriptors)
            except DecodeError:
                self._refuse(FsError(Code.BAD_REQUEST, "not a message of this protocol"))
            except FsError as error:
                self._refuse(error)
            except OSError as error:
                self._refuse(FsError(Code.IO, f"{error.strerror}"))
            finally:
                packets.close_all(descriptors)
            if self._connection.fileno() < 0:
                return

    def _answer(self, request: LocalRequest, descriptors: list[int]) -> None:
        """Takes those descriptors out of the list that it keeps."""
        body = request.WhichOneof("body")
        if self._access is None:
            if body != "hello":
                raise FsError(Code.UNAUTHENTICATED, "a hello comes first")
            self._hello(request)
        elif body == "want":
            self._want(request)
        elif body == "share":
            self._share(request.tag, descriptors)
        elif body == "lend":
            self._lend(request.tag)
        elif body == "give_back":
            for number in self.lent.intersection(request.give_back.segments):
                self.lent.discard(number)
                self._local.store.lending.give_back(self.session, number)
        elif body == "closed":
            mine = self.buffers.intersection(request.closed.buffers)
            self.buffers -= mine
            self._local.shared.drop(mine)
            self._local.passed.close(self.holder, request.closed.segments)
            self._local.metrics.read_by_descriptor.inc(request.closed.read_bytes)
        else:
            raise FsError(Code.BAD_REQUEST, "a request that is not known here")

    def _hello(self, request: LocalRequest) -> None:
        local, world = self._local, self._local.world
        now_ns = world.clock.now_ns
        grant = world.authority.verify(Purpose.SESSION, request.hello.token, now_ns())
        if grant.kind != "host":
            raise FsError(Code.FORBIDDEN, "not for sessions of users")
        access = Access(grant, local.capabilities, local.store.fences, now_ns)
        access.show(request.hello.capability)
        access.may_hold()
        if access.grant is None or access.grant.session_id != grant.session_id:
            raise FsError(Code.FORBIDDEN, "the capability is of another session")
        self._access = access
        self.session = grant.session_id
        self._patience.cancel()
        reply = LocalReply(
            tag=request.tag, boot_epoch=local.store.boot_epoch, lent_max=local.lent_max
        )
        self._send(reply, [local.store.marks.fd])

    def _share(self, tag: int, descriptors: list[int]) -> None:
        if len(descriptors) != 1:
            raise FsError(Code.BAD_REQUEST, "one descriptor is shared at a time")
        if len(self.buffers) >= self._local.buffers_max:
            code = Code.TOO_LARGE
            detail = f"{self._local.buffers_max} buffers are shared already"
            self._send(LocalReply(tag=tag, codes=[code], detail=detail))
            return
        number = self._local.shared.add(self.session, descriptors[0])
        descriptors.clear()
        self.buffers.add(number)
        self._send(LocalReply(tag=tag, codes=[Code.OK], buffer=number))

    def _lend(self, tag: int) -> None:
        assert self._access is not None
        self._access.may_write_all()
        local = self._local
        try:
            if len(self.lent) >= local.lent_max:
                raise FsError(Code.TOO_LARGE, f"{local.lent_max} segments are lent already")
            segment = local.store.lend(self.session)
        except FsError as error:
            self._send(LocalReply(tag=tag, codes=[error.code], detail=error.detail))
            return
        assert segment.file is not None
        self.lent.add(segment.number)
        reply = LocalReply(
            tag=tag, codes=[Code.OK], segment=segment.number, segment_bytes=segment.size
        )
        descriptor = os.open(segment.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._send(reply, [descriptor])
        finally:
            os.close(descriptor)

    def _want(self, request: LocalRequest) -> None:
        assert self._access is not None
        self._access.may_hold()
        segments = request.want.segments
        if len(segments) > DESCRIPTORS_PER_MESSAGE_MAX:
            raise FsError(Code.TOO_LARGE, f"at most {DESCRIPTORS_PER_MESSAGE_MAX} at a time")
        codes: list[int] = []
        opened: list[int] = []
        try:
            for number in segments:
                try:
                    opened.append(self._open(number))
                    codes.append(Code.OK)
                except FsError as error:
                    codes.append(error.code)
            self._send(LocalReply(tag=request.tag, codes=codes), opened)
        finally:
            packets.close_all(opened)

    def _open(self, number: int) -> int:
        local = self._local
        local.passed.check(self.holder, local.world.clock.monotonic())
        segment = local.store.segments.by_number.get(number)
        if segment is None:
            raise FsError(Code.NOT_FOUND, "no such segment")
        try:
            descriptor = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise FsError(Code.IO, f"{segment.path}: {error.strerror}") from None
        local.passed.hold(self.holder, number)
        return descriptor
