"""The local socket of a data daemon: what it passes, to whom, and what hostile peers get."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from typing import TYPE_CHECKING

import pytest

from harness import datastore
from harness.datalocal import Client, run
from harness.datastore import DAEMON, HOST, Served, capability
from superfs.core import extents
from superfs.core.errors import Code, FsError
from superfs.core.limits import MIB
from superfs.core.tokens import Grant
from superfs.data.keys import ChunkKey, FileKey
from superfs.data.marks import Marks
from superfs.data.passed import CLOSE_WITHIN_S, Passed
from superfs.rpc import packets
from superfs.v1.data_pb2 import (
    Closed,
    Fence,
    LocalHello,
    LocalReply,
    LocalRequest,
    Locate,
    Reap,
    ReapItem,
    Want,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left")
USER = Grant("user", "alice", uid=1000, session_id=7, epoch=1)


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


# ---- what it is for ------------------------------------------------------------------------------


def test_bytes_can_be_read_where_they_were_located(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        store = served.daemon.store
        data = os.urandom(300_000)
        datastore.write(store, 1, 4 * MIB + 1000, data)
        reply = await served.ask(
            capability=capability(HOST), locate=Locate(ino=1, data_generation=1, chunks=[0, 1, 2])
        )
        first, second, third = (
            extents.parse(chunk.extents, chunk.crcs) for chunk in reply.located.chunks
        )
        assert (first, third) == ((), ())
        (extent,) = second
        peer = client()
        hello = await peer.hello()
        assert hello is not None
        assert (hello.code, hello.boot_epoch) == (0, store.boot_epoch)
        wanted = await peer.ask(want=Want(segments=[extent.segment, 999]))
        assert wanted is not None
        assert list(wanted.codes) == [Code.OK, Code.NOT_FOUND]
        marks, segment = peer.descriptors
        assert os.pread(segment, extent.length, extent.place + extent.skip) == data
        assert fcntl.fcntl(segment, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        value = reply.located.value.to_bytes(8, "little")
        assert os.pread(marks, 8, 8 * reply.located.mark) == value
        datastore.write(store, 1, 0, b"anywhere in the file")
        assert os.pread(marks, 8, 8 * reply.located.mark) != value

    run(tmp_path, test)


def test_every_change_of_a_file_changes_its_mark(tmp_path: Path) -> None:
    store = datastore.opened(tmp_path / "d")
    file, seen = FileKey(1, 1), set()

    def look() -> None:
        _, value = store.marks.of(file)
        assert value not in seen
        seen.add(value)

    datastore.write(store, 1, 0, b"a" * 100)
    look()
    store.sync()
    store.truncate(file, 50)
    look()
    piece = store.chunks.get(ChunkKey(1, 1, 0))[0]
    store.chunks.put(ChunkKey(1, 1, 0), (piece,))  # what compaction comes down to
    look()
    store.reap(file)
    look()
    store.close()


def test_marks_are_nobody_elses_to_write() -> None:
    marks = Marks()
    try:
        with pytest.raises(PermissionError):
            os.open(f"/proc/self/fd/{marks.fd}", os.O_RDWR | os.O_TRUNC)
        again = os.open(f"/proc/self/fd/{marks.fd}", os.O_RDWR)
        with pytest.raises(PermissionError):
            os.pwrite(again, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(again, 8)
        os.close(again)
        number, value = marks.of(FileKey(3, 4))
        marks.change(FileKey(3, 4))
        assert marks.of(FileKey(3, 4)) == (number, value + 1)
        assert os.pread(marks.fd, 8, 8 * number) == (value + 1).to_bytes(8, "little")
    finally:
        marks.close()


def test_a_holder_of_an_unlinked_segment_is_told(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        store, local = served.daemon.store, served.daemon.local
        assert local is not None
        datastore.write(store, 1, 0, b"x" * 10_000)
        number = store.position.segment
        segment = store.segments.by_number[number]
        peer, other = client(), client()
        await peer.hello()
        await other.hello()
        await peer.ask(want=Want(segments=[number]))
        assert local.passed.descriptors == 1
        store.segments.seal()
        reap = Reap(items=[ReapItem(ino=1, data_generation=1)])
        assert (await served.ask(DAEMON, reap=reap)).code == 0
        notice = await peer.hear()
        assert notice is not None
        assert list(notice.unlinked) == [number]
        assert not segment.path.exists()
        assert local.passed.pinned_bytes == segment.size
        assert b"x" * 10_000 in os.pread(peer.descriptors[1], 20_000, 0)
        packets.send(
            peer.socket,
            LocalRequest(closed=Closed(segments=[number], read_bytes=77)).SerializeToString(),
        )
        await wait_until(lambda: not local.passed.pinned_bytes)
        read = served.daemon.world.metrics.get_sample_value(
            "superfs_data_read_bytes_total", {"path": "descriptor"}
        )
        assert read == 77
        again = await peer.ask(want=Want(segments=[number]))
        assert again is not None
        assert list(again.codes) == [Code.NOT_FOUND]

    run(tmp_path, test)


def test_the_end_of_a_peer_frees_what_it_held(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        store, local = served.daemon.store, served.daemon.local
        assert local is not None
        datastore.write(store, 1, 0, b"x")
        peer = client()
        await peer.hello()
        await peer.ask(want=Want(segments=[store.position.segment]))
        assert local.passed.descriptors == 1
        peer.close()
        await wait_until(lambda: not local.passed.descriptors)

    run(tmp_path, test)


# ---- limits --------------------------------------------------------------------------------------


def test_a_client_that_holds_for_ever_gets_no_more() -> None:
    passed = Passed(descriptors_max=2)
    late, other = passed.join(), passed.join()
    for number in (1, 2):
        passed.check(late, 0.0)
        passed.hold(late, number)
    with pytest.raises(FsError, match="held already"):
        passed.check(late, 0.0)
    passed.hold(other, 1)
    assert passed.unlink(1, 64, 10.0) in ([late, other], [other, late])
    assert passed.pinned_bytes == 64
    passed.close(other, [1])
    assert passed.pinned_bytes == 64
    passed.close(late, [2])
    passed.check(late, 10.0 + CLOSE_WITHIN_S - 1)
    with pytest.raises(FsError, match="removed segments"):
        passed.check(late, 10.0 + CLOSE_WITHIN_S)
    passed.check(other, 10.0 + CLOSE_WITHIN_S)
    passed.leave(late)
    assert (passed.pinned_bytes, passed.descriptors) == (0, 0)


def test_more_than_may_be_held(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        store = served.daemon.store
        datastore.write(store, 1, 0, b"x")
        store.segments.seal()
        datastore.write(store, 1, 0, b"y")
        peer = client()
        await peer.hello()
        reply = await peer.ask(want=Want(segments=list(store.segments.by_number)))
        assert reply is not None
        assert list(reply.codes) == [Code.OK, Code.TOO_LARGE]
        assert await peer.ask(want=Want(segments=range(17))) is not None  # says why
        assert await peer.hear() is None

    run(tmp_path, test, descriptors_max=1)


def test_too_many_clients(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        first = client()
        assert await first.hello() is not None
        refusal = await client().hear()
        assert refusal is not None
        assert refusal.code == Code.UNAVAILABLE
        first.close()
        assert served.daemon.local is not None
        passed = served.daemon.local.passed
        await wait_until(lambda: not passed._holders)
        reply = await client().hello()
        assert reply is not None
        assert reply.code == 0

    run(tmp_path, test, peers_max=1)


# ---- hostile peers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grant", "right", "code"),
    [
        (USER, USER, Code.FORBIDDEN),
        (HOST, USER, Code.FORBIDDEN),
        (HOST, Grant("host", "m", session_id=8, epoch=1), Code.FORBIDDEN),
        (HOST, Grant("host", "m", session_id=7, epoch=1, inode=5), Code.FORBIDDEN),
        (DAEMON, HOST, Code.FORBIDDEN),
        (HOST, Grant("host", "m", session_id=7, epoch=1, expires_ns=1), Code.UNAUTHENTICATED),
    ],
)
def test_only_host_sessions_with_a_right_to_everything(
    tmp_path: Path, grant: Grant, right: Grant, code: Code
) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        peer = client()
        reply = await peer.hello(grant, right)
        assert reply is not None
        assert reply.code == code
        assert not peer.descriptors
        assert await peer.hear() is None

    run(tmp_path, test)


def test_another_user_of_this_host(tmp_path: Path) -> None:
    """Even if the modes of directories and socket would let it in."""

    async def test(served: Served, client: Callable[[], Client]) -> None:
        local = served.daemon.local
        assert local is not None
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for path in (local.path, *list(local.path.parents)[:-1]):
            os.chmod(path, 0o777)
        child = os.fork()
        if child == 0:
            try:
                os.setgid(65534)
                os.setuid(65534)
                peer = packets.local_socket()
                peer.connect(os.fspath(local.path))
                theirs.send(packets.receive(peer, 16)[0])
            finally:
                os._exit(0)
        reply = LocalReply.FromString(await asyncio.to_thread(mine.recv, 1000))
        assert reply.code == Code.FORBIDDEN
        await asyncio.to_thread(os.waitpid, child, 0)
        mine.close()
        theirs.close()

    if os.geteuid() != 0:
        pytest.skip("needs root")
    run(tmp_path, test)


@pytest.mark.parametrize(
    "message",
    [
        b"\xff" * 100,
        LocalRequest(want=Want(segments=[1])).SerializeToString(),
        LocalRequest(hello=LocalHello(token=b"x" * 100)).SerializeToString(),
        LocalRequest(hello=LocalHello()).SerializeToString(),
        b"\0",
    ],
)
def test_garbage(tmp_path: Path, message: bytes) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        peer = client()
        reply = await peer.send(message)
        assert reply is not None
        assert reply.code
        assert await peer.hear() is None
        good = await client().hello()
        assert good is not None
        assert good.code == 0

    run(tmp_path, test)


def test_descriptors_that_nobody_asked_for(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        for count in (1, 200):
            peer = client()
            reply = await peer.send(b"\0", [0] * count)
            assert reply is not None
            assert reply.code == Code.BAD_REQUEST
        peer = client()
        peer.socket.send(bytes(packets.PACKET_BYTES_MAX + 1))
        reply = await peer.hear()
        assert reply is not None
        assert reply.code == Code.BAD_REQUEST

    run(tmp_path, test)


def test_a_peer_that_takes_no_answers_is_hung_up_on(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        local = served.daemon.local
        assert local is not None
        peer = client()
        await peer.hello()
        request = LocalRequest(tag=1, want=Want(segments=[1] * 16)).SerializeToString()
        peer.socket.settimeout(None)
        while local.passed._holders:
            with contextlib.suppress(OSError):  # full, then broken
                packets.send(peer.socket, request)
            await asyncio.sleep(0)

    run(tmp_path, test)


def test_a_fenced_session_is_hung_up_on(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        peer = client()
        await peer.hello()
        await served.ask(DAEMON, fence=Fence(session_id=HOST.session_id, epoch=2))
        assert await peer.hear() is None
        refused = await client().hello()
        assert refused is not None
        assert refused.code == Code.SESSION_EXPIRED

    run(tmp_path, test)
