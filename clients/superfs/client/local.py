"""The Unix socket to a data daemon on the same host, through which it passes descriptors.

One connection, of one life of the stream beside it: when either ends, so does what was passed. A
descriptor of a segment shows the same bytes for ever. It is closed when the daemon says that the
segment is gone, when nobody has used it for `IDLE_S`, and when there are too many.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import select
import socket
import threading
import time
import weakref
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from superfs.client.lent import Borrowed, LentSegment
from superfs.core.errors import Code, FsError, known_code
from superfs.core.limits import DESCRIPTORS_PER_MESSAGE_MAX
from superfs.rpc import packets
from superfs.rpc.pending import Pending
from superfs.v1.data_pb2 import (
    Closed,
    GiveBack,
    Lend,
    LocalHello,
    LocalReply,
    LocalRequest,
    Share,
    Want,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from superfs.client.sharedmem import Arena

log = logging.getLogger("superfs.client")

IDLE_S = 30.0
HELLO_S = 5.0
HELD_MAX = 128
MARK_BYTES = 8


class Descriptor:
    """Closed when nobody refers to it any more: whoever reads keeps it."""

    __slots__ = ("fd", "used_s")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.used_s = time.monotonic()

    def __del__(self) -> None:
        os.close(self.fd)


class LocalLink:
    def __init__(self, path: str, boot_epoch: int, token: bytes, capability: bytes) -> None:
        self.path = path
        self._boot_epoch = boot_epoch
        self._hello = LocalHello(token=token, capability=capability)
        self._socket = packets.local_socket()
        self._end_seen = select.epoll()
        self._lock = threading.Lock()
        self._sending = threading.Lock()  # so that nobody sends to what is being closed
        self._held: dict[int, Descriptor] = {}
        self._wanted: dict[int, tuple[list[int], Pending[None]]] = {}
        self._early: list[LocalRequest] = []  # until there is a connection
        self._tags = itertools.count(1)
        self._marks: Descriptor | None = None
        self._read_bytes = 0
        self._shared: dict[int, tuple[weakref.ref[Arena], int]] = {}
        self._sharing: dict[int, Arena] = {}  # by tag
        self._lending: dict[int, Pending[LentSegment]] = {}  # by tag
        self.borrowed = Borrowed(self._borrow, self._give_back)
        self.ready = False
        self.ended = False
        self.error: FsError | None = None  # why it could not be had
        self._thread = threading.Thread(
            target=self._run, name=f"superfs local {os.path.basename(path)}", daemon=True
        )
        self._thread.start()

    # ---- for readers, in any thread

    def is_current(self, mark: int, value: bytes) -> bool:
        """Whether nothing of a file with this mark was changed and answered since it had this
        value; as of the moment of asking."""
        marks = self._marks
        if not self.ready or marks is None:
            return False
        try:
            return (
                not self._end_seen.poll(0, 1)
                and os.pread(marks.fd, MARK_BYTES, mark * MARK_BYTES) == value
            )
        except (OSError, ValueError):
            return False  # closed meanwhile

    def held(self, segment: int) -> Descriptor | None:
        descriptor = self._held.get(segment)
        if descriptor is not None:
            descriptor.used_s = time.monotonic()
        return descriptor

    def want(self, segments: Iterable[int]) -> Pending[None]:
        """Done when those that can be had are held; a connection that is not made yet is waited
        for. UNAVAILABLE at its end."""
        pending: Pending[None] = Pending()
        numbers = list(segments)[:DESCRIPTORS_PER_MESSAGE_MAX]
        tag = next(self._tags)
        with self._lock:
            if self.ended:
                pending.fail(FsError(Code.UNAVAILABLE, "the local socket has ended"))
                return pending
            for asked, theirs in self._wanted.values():
                if set(numbers) <= set(asked):
                    return theirs
            self._wanted[tag] = (numbers, pending)
            if not self.ready:
                self._early.append(LocalRequest(tag=tag, want=Want(segments=numbers)))
                return pending
        self._say(LocalRequest(tag=tag, want=Want(segments=numbers)))
        return pending

    def note_read(self, size: int) -> None:
        with self._lock:
            self._read_bytes += size

    def buffer_of(self, arena: Arena) -> int:
        """By which the daemon knows this memory; 0: it does not, or not yet."""
        known = self._shared.get(arena.key)
        if known is not None:
            return known[1]
        with self._lock:
            if not self.ready or arena in self._sharing.values():
                return 0
            tag = next(self._tags)
            self._sharing[tag] = arena
        self._say(LocalRequest(tag=tag, share=Share()), [arena.fd])
        return 0

    def _borrow(self) -> Pending[LentSegment]:
        pending: Pending[LentSegment] = Pending()
        tag = next(self._tags)
        with self._lock:
            if not self.ready:
                pending.fail(FsError(Code.UNAVAILABLE, "the local socket is not there"))
                return pending
            self._lending[tag] = pending
        self._say(LocalRequest(tag=tag, lend=Lend()))
        return pending

    def _give_back(self, segments: list[int]) -> None:
        self._say(LocalRequest(give_back=GiveBack(segments=segments)))

    # ---- from time to time

    def tick(self) -> None:
        """Closes what nobody uses; tells the daemon."""
        if not self.ready:
            return
        self.borrowed.tick()
        before = time.monotonic() - IDLE_S
        with self._lock:
            old = [n for n, descriptor in self._held.items() if descriptor.used_s < before]
            for number in old:
                del self._held[number]
            read_bytes, self._read_bytes = self._read_bytes, 0
            gone = {key: number for key, (arena, number) in self._shared.items() if not arena()}
            for key in gone:
                del self._shared[key]
        if old or read_bytes or gone:
            closed = Closed(segments=old, read_bytes=read_bytes, buffers=gone.values())
            self._say(LocalRequest(closed=closed))

    def close(self) -> None:
        """What was lent goes back first, as far as it can."""
        if self.ready:
            back = self.borrowed.leave()
            if back:
                self._give_back(back)
        self._end()

    def _end(self) -> None:
        self.ready = False
        self.ended = True
        with self._sending, contextlib.suppress(OSError):  # not connected yet, or not any more
            self._socket.shutdown(socket.SHUT_RDWR)

    # ---- inside

    def _say(self, request: LocalRequest, descriptors: list[int] | None = None) -> None:
        try:
            with self._sending:
                packets.send(self._socket, request.SerializeToString(), descriptors)
        except OSError:
            self._end()  # the thread sees the end too, and fails who waits

    def _run(self) -> None:
        try:
            self._connect()
            while self._receive():
                pass
        except OSError as error:
            self.error = FsError(Code.UNAVAILABLE, f"{self.path}: {error.strerror or error}")
        except DecodeError:
            self.error = FsError(Code.BAD_FORMAT, f"{self.path}: not a message of this protocol")
        except FsError as error:
            self.error = error
        finally:
            self._finish()

    def _connect(self) -> None:
        self._socket.settimeout(HELLO_S)
        self._socket.connect(self.path)
        packets.send(self._socket, LocalRequest(hello=self._hello).SerializeToString())
        message, descriptors = packets.receive(self._socket, 1)
        reply = LocalReply.FromString(message)
        if reply.code or reply.boot_epoch != self._boot_epoch or len(descriptors) != 1:
            packets.close_all(descriptors)
            detail = reply.detail or f"{self.path} is not the socket of this data daemon"
            raise FsError(known_code(reply.code) if reply.code else Code.WRONG_IDENTITY, detail)
        self._marks = Descriptor(descriptors[0])
        self.borrowed.begin(reply.lent_max)
        self._socket.settimeout(None)
        self._end_seen.register(self._socket, select.EPOLLRDHUP)
        with self._lock:
            self.ready = not self.ended
            early, self._early = self._early, []
        for request in early:
            self._say(request)

    def _receive(self) -> bool:
        message, descriptors = packets.receive(self._socket, DESCRIPTORS_PER_MESSAGE_MAX)
        if not message:
            return False
        opened = [Descriptor(fd) for fd in descriptors]
        reply = LocalReply.FromString(message)
        if reply.code:
            raise FsError(known_code(reply.code), reply.detail)
        if reply.unlinked:
            self._drop(list(reply.unlinked))
            return True
        with self._lock:
            arena = self._sharing.pop(reply.tag, None)
            if arena is not None:  # a refusal is remembered as 0
                self._shared[arena.key] = (weakref.ref(arena), reply.buffer)
                return True
            lending = self._lending.pop(reply.tag, None)
            segments, pending = self._wanted.pop(reply.tag, ([], None))
            for number, code in zip(segments, reply.codes, strict=False):
                if code == Code.OK and opened:
                    self._held[number] = opened.pop(0)
            extra = sorted(self._held, key=self._used)[: max(0, len(self._held) - HELD_MAX)]
        if extra:
            self._drop(extra)
        if lending is not None:
            self._lent(lending, reply, descriptors)
        if pending is not None:
            pending.complete(None)
        return True

    def _lent(self, asked: Pending[LentSegment], reply: LocalReply, descriptors: list[int]) -> None:
        code = known_code(reply.codes[0]) if reply.codes else Code.BAD_FORMAT
        if code is not Code.OK or len(descriptors) != 1:
            asked.fail(FsError(code or Code.BAD_FORMAT, reply.detail))
            return
        own = os.dup(descriptors[0])
        asked.complete(LentSegment(reply.segment, reply.segment_bytes, own, self))

    def _used(self, number: int) -> float:
        return self._held[number].used_s

    def _drop(self, numbers: list[int]) -> None:
        with self._lock:
            for number in numbers:
                self._held.pop(number, None)
        self._say(LocalRequest(closed=Closed(segments=numbers)))

    def _finish(self) -> None:
        with self._lock:
            self.ready = False
            self.ended = True
            self._held.clear()
            self._shared.clear()
            self._sharing.clear()
            waiting, self._wanted = self._wanted, {}
            asked, self._lending = self._lending, {}
        self._marks = None
        self._end_seen.close()
        with self._sending:
            self._socket.close()
        self.borrowed.close()
        error = self.error or FsError(Code.UNAVAILABLE, "the local socket has ended")
        for _, pending in waiting.values():
            pending.fail(error)
        for segment in asked.values():
            segment.fail(error)
