"""What memory does not answer goes on to pyfuse3, through a socket pair that libfuse takes for
/dev/fuse; its answers come back the same way.

libfuse answers from the loop that reads its answers here, so the socket must have room for every
answer that can be waiting at once: requests beyond that wait here.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from superfs.mount.desk.protocol import (
    GETXATTR_IN,
    HEADER,
    HEADER_BYTES,
    INIT_IN,
    READ_IN,
    Op,
    greeting,
)

if TYPE_CHECKING:
    from superfs.mount.desk.device import Device
    from superfs.mount.desk.waits import Waits

SO_SNDBUFFORCE = 32
BUFFER_BYTES = 4 << 20
"""Wanted in each direction. Who is not root gets what net.core.wmem_max allows."""
MESSAGE_COST = 2048
"""Of the buffer, for one small message, as the kernel accounts for it."""
LISTED_BYTES_MAX = 64 * 1024
"""Of a directory, in one answer. The kernel asks for as much as the program has room for."""
ANSWER_BYTES_MAX = 256 * 1024
"""No answer is larger; what would not fit could not be handed on."""
_LISTED_AT = HEADER_BYTES + READ_IN.size - 4


class Relay:
    def __init__(self, device: Device) -> None:
        self._answer = device.answer
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.fd = theirs.detach()
        """For libfuse, which closes it."""
        self._ours.setblocking(False)
        self._room = min(_enlarge(self._ours), _enlarge_fd(self.fd)) // 2
        self._cost: dict[int, int] = {}  # of each request that is with libfuse
        self._waiting: deque[bytes] = deque()
        self._greeted: tuple[int, int] | None = None  # INIT, and what the kernel offers
        self.waits: Waits | None = None

    @property
    def outstanding(self) -> int:
        return len(self._cost) + len(self._waiting)

    def send(self, request: memoryview) -> None:
        """A request as the kernel has sent it."""
        if self.waits is not None:
            self.waits.begin(bytes(request[:HEADER_BYTES]))
        _, opcode, unique, *_ = HEADER.unpack_from(request)
        if opcode == Op.INIT and len(request) >= HEADER_BYTES + INIT_IN.size:
            self._greeted = unique, INIT_IN.unpack_from(request, HEADER_BYTES)[3]
        request = _bounded(request)
        if self._waiting or not self._send(request):
            self._waiting.append(bytes(request))

    def _send(self, request: memoryview | bytes) -> bool:
        cost = _cost_of(request)
        if self._cost and cost > self._room:
            return False
        try:
            self._ours.send(request)
        except BlockingIOError:
            return False
        unique = HEADER.unpack_from(request)[2]
        self._cost[unique] = cost
        self._room -= cost
        return True

    async def run(self) -> None:
        """Hands on every answer, until libfuse closes its end or the task is cancelled."""
        while self.drain():
            await trio.lowlevel.wait_readable(self._ours)

    def drain(self) -> bool:
        """Every answer that libfuse has given by now is with the kernel; False: there will be no
        more."""
        with suppress(BlockingIOError):
            while True:
                message = self._ours.recv(ANSWER_BYTES_MAX)
                if not message:
                    return False
                message = self._done(message)
                if self.waits is None or self.waits.answered(message):
                    self._answer(message)
        while self._waiting and self._send(self._waiting[0]):
            self._waiting.popleft()
        return True

    def _done(self, message: bytes) -> bytes:
        """As the kernel is to have it."""
        unique = int.from_bytes(message[8:16], sys.byteorder)
        self._room += self._cost.pop(unique, 0)
        if self._greeted is not None and self._greeted[0] == unique:
            message = greeting(message, self._greeted[1])
            self._greeted = None
        return message

    def close(self) -> None:
        self._ours.close()


def _bounded(request: memoryview) -> memoryview:
    """A listing may always be answered with less than was asked for."""
    if HEADER.unpack_from(request)[1] not in (Op.READDIR, Op.READDIRPLUS):
        return request
    if READ_IN.unpack_from(request, HEADER_BYTES)[2] <= LISTED_BYTES_MAX:
        return request
    less = bytearray(request)
    less[_LISTED_AT : _LISTED_AT + 4] = LISTED_BYTES_MAX.to_bytes(4, sys.byteorder)
    return memoryview(less)


def _cost_of(request: memoryview | bytes) -> int:
    """Of the request or of its answer, whichever is more."""
    opcode = HEADER.unpack_from(request)[1]
    answer = 0
    if opcode in (Op.READDIR, Op.READDIRPLUS):
        answer = READ_IN.unpack_from(request, HEADER_BYTES)[2]
    elif opcode in (Op.GETXATTR, Op.LISTXATTR):
        answer = GETXATTR_IN.unpack_from(request, HEADER_BYTES)[0]
    return MESSAGE_COST + 2 * max(len(request), answer)


def _enlarge(sock: socket.socket) -> int:
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER_BYTES)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


def _enlarge_fd(fd: int) -> int:
    borrowed = socket.socket(fileno=os.dup(fd))
    with borrowed:
        return _enlarge(borrowed)
