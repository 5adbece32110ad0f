"""The way to pyfuse3 and back has room for what libfuse answers at once."""

from __future__ import annotations

import os
import socket
import struct

import trio

from superfs.mount.desk.device import Device
from superfs.mount.desk.protocol import HEADER, Op
from superfs.mount.desk.relay import Relay

OUT = struct.Struct("=IiQ")


async def test_no_more_is_with_pyfuse3_than_its_answers_have_room() -> None:
    answers: list[bytes] = []

    class Kernel(Device):
        def answer(self, *parts: bytes) -> None:
            answers.extend(parts)

    nowhere = os.open(os.devnull, os.O_RDWR)
    relay = Relay(Kernel(nowhere))
    behind = socket.socket(fileno=relay.fd)
    behind.setblocking(False)
    count = 5000
    with behind:
        for unique in range(count):
            body = struct.pack("=II", 65536, 0) + b"user.x\0"
            head = HEADER.pack(40 + len(body), Op.GETXATTR, unique, 1, 0, 0, 0, 0, 0)
            relay.send(memoryview(head + body))
        assert relay.outstanding == count
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.run)
            with trio.fail_after(60):
                while len(answers) < count:
                    held = []
                    try:
                        while True:
                            held.append(HEADER.unpack_from(behind.recv(1000))[2])
                    except BlockingIOError:
                        pass
                    for unique in held:  # all at once, before anybody takes one of them
                        behind.send(OUT.pack(16 + 65536, 0, unique) + bytes(65536))
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert relay.outstanding == 0
    relay.close()
    os.close(nowhere)
