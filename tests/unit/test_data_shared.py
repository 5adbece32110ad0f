"""Writes out of memory that a client has shared: what is stored, and what hostile memory does."""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import threading
from typing import TYPE_CHECKING

import pytest

from harness import datastore
from harness.datalocal import Client, run
from harness.datastore import HOST, Served, capability
from superfs.core.errors import Code, FsError
from superfs.core.limits import BUFFER_BYTES_MAX, KIB, MESSAGE_DATA_BYTES_MAX, MIB
from superfs.core.tokens import Grant
from superfs.data.segments import Blob
from superfs.v1.data_pb2 import (
    Closed,
    DataReply,
    LocalRequest,
    Read,
    Share,
    Shared,
    Write,
    WriteMany,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left")
SHARE = LocalRequest(tag=5, share=Share()).SerializeToString()
SEALED = fcntl.F_SEAL_SHRINK


def memory(data: bytes, seals: int = SEALED) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.pwrite(fd, data, 0)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


async def shared(peer: Client, fd: int) -> int:
    """Its number; 0 if that was refused."""
    reply = await peer.send(SHARE, [fd])
    return reply.buffer if reply is not None else 0


async def write(served: Served, place: Shared, *, grant: Grant = HOST) -> DataReply:
    body = Write(ino=1, data_generation=1, chunk=0, offset=0, shared=place)
    return await served.ask(grant, capability=capability(grant), write=body)


def test_what_lies_in_shared_memory_is_stored(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        data = os.urandom(MIB)
        fd = memory(b"before" + data)
        peer = client()
        await peer.hello()
        number = await shared(peer, fd)
        reply = await write(served, Shared(buffer=number, offset=6, length=MIB))
        assert (reply.code, reply.version) == (0, 1)
        os.pwrite(fd, bytes(MIB), 6)
        read = Read(ino=1, data_generation=1, chunk=0, offset=0, length=MIB)
        assert (await served.ask(HOST, capability=capability(HOST), read=read)).data == data
        counted = served.daemon.world.metrics.get_sample_value(
            "superfs_data_written_bytes_total", {"path": "memfd"}
        )
        assert counted == MIB
        os.close(fd)

    run(tmp_path, test)


@pytest.mark.parametrize("ended", ["closed", "hung up"])
def test_memory_that_is_not_shared_any_more(tmp_path: Path, ended: str) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        fd = memory(b"data")
        peer = client()
        await peer.hello()
        number = await shared(peer, fd)
        os.close(fd)
        if ended == "closed":
            peer.socket.send(LocalRequest(closed=Closed(buffers=[number])).SerializeToString())
            await peer.ask(share=Share())  # hung up on: it names no memory
            await peer.hear()
        else:
            peer.close()
            await peer_left(served)
        reply = await write(served, Shared(buffer=number, length=4))
        assert reply.code == Code.NOT_FOUND

    run(tmp_path, test)


async def peer_left(served: Served) -> None:
    async with asyncio.timeout(10):
        while len(served.daemon.requests.shared):  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def test_places_outside(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        fd = memory(bytes(2 * MIB))
        peer = client()
        await peer.hello()
        number = await shared(peer, fd)
        os.close(fd)
        limit = MESSAGE_DATA_BYTES_MAX
        for place, code in (
            (Shared(buffer=number, offset=2 * MIB - 3, length=4), Code.INVALID),
            (Shared(buffer=number, offset=(1 << 32) - 1, length=4), Code.INVALID),
            (Shared(buffer=number, length=limit + 1), Code.TOO_LARGE),
            (Shared(buffer=number, length=0), Code.INVALID),
            (Shared(buffer=number + 1, length=4), Code.NOT_FOUND),
            (Shared(), Code.NOT_FOUND),
        ):
            assert (await write(served, place)).code == code, place
        body = Write(ino=1, data_generation=1, shared=Shared(buffer=number, length=4))
        many = WriteMany(writes=[body, body])
        reply = await served.ask(HOST, capability=capability(HOST), write_many=many)
        assert reply.code == Code.INVALID
        assert served.daemon.store.position.version == 0

    run(tmp_path, test)


def test_memory_is_its_sessions_own(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        fd = memory(b"secret")
        peer = client()
        await peer.hello()
        number = await shared(peer, fd)
        os.close(fd)
        other = Grant("host", "another", session_id=8, epoch=1)
        place = Shared(buffer=number, length=6)
        assert (await write(served, place, grant=other)).code == Code.NOT_FOUND
        await client().hello(other)
        thief = client()
        await thief.hello(other)
        thief.socket.send(LocalRequest(closed=Closed(buffers=[number])).SerializeToString())
        assert (await shared(thief, 0)) == 0
        assert (await write(served, place)).code == 0

    run(tmp_path, test)


@pytest.mark.parametrize("kind", ["unsealed", "file", "empty", "huge", "pipe", "device"])
def test_what_is_no_such_memory(tmp_path: Path, kind: str) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        if kind == "unsealed":
            fd = memory(b"data", fcntl.F_SEAL_GROW)
        elif kind == "file":
            fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        elif kind == "empty":
            fd = memory(b"")
        elif kind == "huge":
            fd = os.memfd_create("huge", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(fd, BUFFER_BYTES_MAX + 1)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALED)
        elif kind == "pipe":
            fd, writing = os.pipe()
            os.close(writing)
        else:
            fd = os.open("/dev/zero", os.O_RDWR)
        peer = client()
        await peer.hello()
        reply = await peer.send(SHARE, [fd])
        os.close(fd)
        assert reply is not None
        assert reply.code == Code.INVALID
        assert await peer.hear() is None
        assert len(served.daemon.requests.shared) == 0

    run(tmp_path, test)


def test_too_much_memory(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        fd = memory(b"data")
        peer = client()
        await peer.hello()
        numbers = [await shared(peer, fd) for _ in range(4)]
        assert [bool(number) for number in numbers] == [True, True, False, False]
        assert len(served.daemon.requests.shared) == 2
        os.close(fd)

    run(tmp_path, test, buffers_max=2)


def test_memory_that_changes_while_it_is_read(tmp_path: Path) -> None:
    """Some mixture is stored; its checksums are right."""

    async def test(served: Served, client: Callable[[], Client]) -> None:
        fd = memory(bytes(MIB))
        peer = client()
        await peer.hello()
        number = await shared(peer, fd)
        stop = threading.Event()
        mapped = mmap.mmap(fd, MIB)

        def scribble() -> None:
            turn = 0
            while not stop.is_set():
                turn += 1
                mapped[:] = bytes([turn & 255]) * MIB

        thread = threading.Thread(target=scribble)
        thread.start()
        try:
            for _ in range(50):
                reply = await write(served, Shared(buffer=number, length=MIB))
                assert reply.code == 0
                datastore.read(served.daemon.store, 1, 0, MIB)  # raises where it is damaged
        finally:
            stop.set()
            thread.join()
        mapped.close()
        os.close(fd)

    run(tmp_path, test)


def test_memory_that_cannot_be_read(tmp_path: Path) -> None:
    """Nothing of it counts, and nothing that came before or comes behind it suffers."""
    store = datastore.opened(tmp_path / "store")
    datastore.write(store, 1, 0, b"before")
    with (tmp_path / "file").open("w+b") as file:
        file.truncate(MIB)
        mapped = mmap.mmap(file.fileno(), MIB)
        file.truncate(64 * KIB)  # as no sealed memory can: the rest is not there any more
        for length in (32 * KIB, 128 * KIB):
            blob = Blob(1, 1, 0, 0, memoryview(mapped)[64 * KIB - 16 * KIB :][:length], True)
            with pytest.raises(FsError) as caught:
                store.write([blob])
            assert caught.value.code is Code.INVALID
            assert datastore.read(store, 1, 0, 6) == b"before"
    assert store.position.version == 1
    datastore.write(store, 1, 0, b"behind")
    datastore.kill(store)
    store = datastore.reopen(tmp_path / "store")
    assert datastore.read(store, 1, 0, 6) == b"behind"
    assert store.position.version == 2
    datastore.kill(store)


def test_killed_before_the_head_of_a_shared_write(tmp_path: Path) -> None:
    """It was not answered, and has not happened."""
    world = datastore.new_world("datad.append.head=error*2")
    store = datastore.opened(tmp_path / "store", world=world)
    data = os.urandom(128 * KIB)
    store.write([Blob(1, 1, 0, 0, memoryview(data), True)])
    with pytest.raises(OSError, match="failpoint"):
        store.write([Blob(1, 1, 0, 0, memoryview(bytes(128 * KIB)), True)])
    datastore.kill(store)
    store = datastore.reopen(tmp_path / "store")
    assert datastore.read(store, 1, 0, len(data)) == data
    assert store.position.version == 1
    store.write([Blob(1, 1, 0, 0, memoryview(b"x" * 300), True)])
    datastore.kill(store)
    store = datastore.reopen(tmp_path / "store")
    assert datastore.read(store, 1, 0, 301) == b"x" * 300 + data[300:301]
    datastore.kill(store)
