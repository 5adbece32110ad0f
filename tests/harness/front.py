"""A mount whose kernel is the test: a socket pair stands for /dev/fuse, and its other end for the
kernel."""

from __future__ import annotations

import os
import socket
import stat
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from harness.memmount import TOP, World, ctx
from superfs.mount.desk.desk import Desk
from superfs.mount.desk.device import Device, Notices
from superfs.mount.desk.protocol import HEADER, HEADER_BYTES, Op
from superfs.mount.desk.relay import Relay
from superfs.mount.meter import Meter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from superfs.mount.kvtree import KvTree

OUT = struct.Struct("=IiQ")
ANSWER_S = 10
Answer = tuple[int, bytes]  # errno, what follows the header


class Front:
    """A mount whose kernel is this test. Behind the desk, `behind` is where pyfuse3 would be."""

    def __init__(self, kv: KvTree | None = None) -> None:
        self.world = World(attr_timeout_s=1000.0, entry_timeout_s=1000.0)
        self.kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._device = device
        self.meter = Meter()
        self.relay = Relay(Device(device.fileno()))
        self.notices = Notices(device.fileno(), self.relay.drain)
        self.desk = Desk(
            Device(device.fileno()), self.relay, self.world.services, self.meter, kv=kv
        )
        self.behind = socket.socket(fileno=self.relay.fd)
        self.behind.setblocking(False)
        self.kernel.setblocking(False)
        self._unique = 100

    def close(self) -> None:
        for sock in (self.kernel, self.behind, self._device):
            sock.close()
        self.relay.close()

    async def send(self, op: int, number: int, body: bytes = b"", *, uid: int = 0) -> int:
        self._unique += 2
        head = HEADER.pack(
            HEADER_BYTES + len(body), op, self._unique, number, uid, 0, os.getpid(), 0, 0
        )
        await trio.lowlevel.wait_writable(self.kernel)
        self.kernel.send(head + body)
        return self._unique

    async def ask(self, op: int, number: int, body: bytes = b"", *, uid: int = 0) -> Answer:
        return await self.answer(await self.send(op, number, body, uid=uid))

    async def answer(self, expected: int) -> Answer:
        with trio.fail_after(ANSWER_S):
            await trio.lowlevel.wait_readable(self.kernel)
        message = self.kernel.recv(1 << 20)
        length, error, unique = OUT.unpack_from(message)
        assert (length, unique) == (len(message), expected)
        return -error, message[OUT.size :]

    async def handed_on(self) -> tuple[int, int]:
        """The next request that went to pyfuse3: what it is, and its number."""
        with trio.fail_after(ANSWER_S):
            await trio.lowlevel.wait_readable(self.behind)
        _, op, unique, *_ = HEADER.unpack_from(self.behind.recv(1 << 20))
        return op, unique

    async def open(self, number: int, flags: int = os.O_RDONLY) -> tuple[int, int]:
        """(file handle, what the kernel was told of it)"""
        error, body = await self.ask(Op.OPEN, number, struct.pack("=II", flags, 0))
        assert error == 0
        fh, options, _ = struct.unpack("=QII", body)
        return fh, options


@asynccontextmanager
async def front(kv: KvTree | None = None) -> AsyncIterator[Front]:
    served = Front(kv)
    try:
        await served.world.ops.getattr(TOP, ctx())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.desk.run)
            yield served
            nursery.cancel_scope.cancel()
    finally:
        served.close()


def read_in(fh: int, offset: int, size: int) -> bytes:
    return struct.pack("=QQIIQII", fh, offset, size, 0, 0, 0, 0)


def write_in(fh: int, offset: int, data: bytes, flags: int = 0) -> bytes:
    return struct.pack("=QQIIQII", fh, offset, len(data), flags, 0, 0, 0) + data


def listed(body: bytes) -> tuple[dict[bytes, int], list[int]]:
    found, cookies, at = {}, [], 0
    while at < len(body):
        ino, cookie, length, kind = struct.unpack_from("=QQII", body, at + 128)
        name = body[at + 152 : at + 152 + length]
        assert kind == (stat.S_IFDIR if name in (b".", b"..") else stat.S_IFREG) >> 12
        found[name] = ino
        cookies.append(cookie)
        at += 152 + -(-length // 8) * 8
    return found, cookies
