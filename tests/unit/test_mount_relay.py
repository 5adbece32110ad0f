"""The way to pyfuse3 and back has room for what libfuse answers at once."""

from __future__ import annotations

import errno
import os
import socket
import struct

import pytest
import trio

from superfs.mount.desk.device import Device
from superfs.mount.desk.protocol import HANDLE_KILLPRIV_V2, HEADER, INIT_IN, Op
from superfs.mount.desk.relay import LISTED_BYTES_MAX, Relay

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


@pytest.mark.parametrize("offered", [0xFF, 0xFF | HANDLE_KILLPRIV_V2])
async def test_privileges_are_taken_over_where_the_kernel_offers_it(offered: int) -> None:
    answers: list[bytes] = []

    class Kernel(Device):
        def answer(self, *parts: bytes) -> None:
            answers.extend(parts)

    nowhere = os.open(os.devnull, os.O_RDWR)
    relay = Relay(Kernel(nowhere))
    rest = bytes(range(44))
    answer = OUT.pack(16 + 16 + 44, 0, 2) + INIT_IN.pack(7, 31, 0, 0x11) + rest
    hello = INIT_IN.pack(7, 45, 0, offered)
    with socket.socket(fileno=relay.fd) as behind:
        for unique, op, body in ((2, Op.INIT, hello), (4, Op.LOOKUP, b"")):
            relay.send(memoryview(HEADER.pack(40 + len(body), op, unique, 1, 0, 0, 0, 0, 0) + body))
        behind.send(answer)
        behind.send(answer[:8] + struct.pack("=Q", 4) + answer[16:])
        assert relay.drain()
    taken = offered & HANDLE_KILLPRIV_V2
    assert answers[0] == answer[:16] + INIT_IN.pack(7, 31, 0, 0x11 | taken) + rest
    assert answers[1][16:] == answer[16:]
    relay.close()
    os.close(nowhere)


async def test_a_listing_is_never_larger_than_an_answer_may_be() -> None:
    """Whoever reads a directory says how much room he has: a megabyte, if he likes."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    relay = Relay(Device(nowhere))
    with socket.socket(fileno=relay.fd) as behind:
        for unique, op in enumerate((Op.READDIR, Op.READDIRPLUS)):
            body = struct.pack("=QQIIQII", 7, 3, 1 << 20, 0, 0, 0, 0)
            head = HEADER.pack(40 + len(body), op, unique, 1, 0, 0, 0, 0, 0)
            relay.send(memoryview(head + body))
            handed_on = behind.recv(1000)
            assert len(handed_on) == len(head + body)
            fh, start, room = struct.unpack_from("=QQI", handed_on, len(head))
            assert (fh, start, room) == (7, 3, LISTED_BYTES_MAX)
    relay.close()
    os.close(nowhere)


@pytest.mark.allow_log("does not take an answer")
def test_an_answer_that_the_kernel_does_not_take(caplog: pytest.LogCaptureFixture) -> None:
    """It costs whoever asked an error, and nobody the mount."""
    kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel, device:
        device.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        Device(device.fileno()).answer(OUT.pack(16 + (1 << 20), 0, 9), bytes(1 << 20))
        kernel.setblocking(False)
        assert kernel.recv(100) == OUT.pack(16, -errno.EIO, 9)
    assert "does not take an answer" in caplog.text
