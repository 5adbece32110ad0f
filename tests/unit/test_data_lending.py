"""Segments that a data daemon lends: what is placed there counts, and what hostile peers get."""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING

import pytest

from harness import datastore
from harness.datalocal import Client, run
from harness.datastore import HOST, SMALL, Served, Tools, capability
from harness.lentsegments import KEY, placed, read_all
from superfs.core.errors import Code, FsError
from superfs.core.limits import KIB, MIB, PAGE_BYTES, PLACED_BYTES_MAX
from superfs.core.tokens import Grant
from superfs.data import records
from superfs.data.lending import FREE_SEGMENTS_MIN
from superfs.v1.data_pb2 import (
    DataReply,
    Fence,
    GiveBack,
    Lend,
    LocalReply,
    LocalRequest,
    Promise,
    Read,
    Want,
    Write,
    WriteMany,
)
from superfs.v1.data_pb2 import Placed as Said

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from superfs.data.segments import Segment

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left")


async def lent(peer: Client) -> LocalReply:
    reply = await peer.ask(lend=Lend())
    assert reply is not None
    return reply


async def give_back(peer: Client, *segments: int) -> None:
    peer.socket.send(LocalRequest(give_back=GiveBack(segments=segments)).SerializeToString())
    await peer.ask(want=Want())  # what has an answer


async def say(
    served: Served, reply: LocalReply, place: int, data: bytes, *, grant: Grant = HOST,
    offset: int = 0, crcs: bytes | None = None,
) -> DataReply:  # fmt: skip
    crcs = records.block_crcs(data) if crcs is None else crcs
    said = Said(segment=reply.segment, place=place, length=len(data), crcs=crcs)
    body = Write(ino=1, data_generation=1, chunk=0, offset=offset, placed=said)
    return await served.ask(grant, capability=capability(grant), write=body)


async def stored(served: Served, length: int, offset: int = 0) -> bytes:
    read = Read(ino=1, data_generation=1, chunk=0, offset=offset, length=length)
    return bytes((await served.ask(HOST, capability=capability(HOST), read=read)).data)


def live(served: Served, reply: LocalReply) -> Segment:
    return served.daemon.store.segments.by_number[reply.segment]


# ---- what it is for ------------------------------------------------------------------------------


def test_what_is_placed_is_stored(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        data = os.urandom(PLACED_BYTES_MAX)
        peer = client()
        await peer.hello()
        reply = await lent(peer)
        assert reply.segment_bytes == live(served, reply).size
        fd = peer.descriptors[-1]
        os.pwrite(fd, data, 2 * PAGE_BYTES)
        assert await stored(served, 10) == b"", "it was written, and is not placed"
        answer = await say(served, reply, 2 * PAGE_BYTES, data)
        assert (answer.code, answer.version) == (0, 1)
        assert await stored(served, MIB, MIB) == data[MIB:]
        counted = served.daemon.world.metrics.get_sample_value
        assert counted("superfs_data_written_bytes_total", {"path": "descriptor"}) == len(data)
        assert counted("superfs_data_lent_segments") == 1
        wanted = await peer.ask(want=Want(segments=[reply.segment]))
        assert wanted is not None
        assert list(wanted.codes) == [Code.OK], "others read it, like any segment"

    run(tmp_path, test)


def test_a_segment_that_is_given_back_keeps_what_was_placed_and_no_more(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        peer = client()
        await peer.hello()
        first, second = await lent(peer), await lent(peer)
        data = os.urandom(300 * KIB)
        os.pwrite(peer.descriptors[-2], data, 2 * PAGE_BYTES)
        assert (await say(served, first, 2 * PAGE_BYTES, data)).code == 0
        await give_back(peer, first.segment, second.segment, 999)
        segment = live(served, first)
        assert segment.path.stat().st_size == segment.size == 2 * PAGE_BYTES + 300 * KIB
        assert segment.sealed
        assert await stored(served, len(data)) == data
        assert (await say(served, first, 4 * MIB, data)).code == Code.NOT_FOUND
        unused = live(served, second).path
        await served.daemon.syncer.ask()
        async with asyncio.timeout(10):
            while unused.exists():  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    run(tmp_path, test)


def test_they_are_emptied_like_any(tmp_path: Path) -> None:
    """Compaction finds what was placed in any order, with room between."""
    store = datastore.opened(tmp_path / "store")
    segment = store.lend(7)
    rng = random.Random(1)
    places = [place * 256 * KIB for place in range(1, 24)]
    rng.shuffle(places)
    model = bytearray(4 * MIB)
    for place in places:
        data = rng.randbytes(rng.randrange(1, 200 * KIB))
        offset = rng.randrange(4 * MIB - len(data))
        placed(store, segment, place, data, offset)
        model[offset : offset + len(data)] = data
    end = max(piece.end for piece in store.chunks.get(KEY))
    assert read_all(store, end) == model[:end]
    store.lending.end(segment.number)
    tools = Tools(store)
    assert tools.empty(segment.number)
    assert not segment.path.exists()
    assert read_all(store, end) == model[:end]
    assert not tools.check()
    tools.close()
    store.close()


# ---- who may, and what hostile peers get ---------------------------------------------------------


def test_places_that_are_none(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        peer = client()
        await peer.hello()
        reply = await lent(peer)
        page, size = b"x" * PAGE_BYTES, reply.segment_bytes
        assert (await say(served, reply, 8 * PAGE_BYTES, page * 2)).code == 0
        for place, data, crcs, code in (
            (8 * PAGE_BYTES, page, None, Code.INVALID),
            (9 * PAGE_BYTES, page, None, Code.INVALID),
            (10 * PAGE_BYTES, page, None, Code.INVALID),  # its head would lie in the one before
            (6 * PAGE_BYTES, page * 2, None, Code.INVALID),  # it would end in the head behind it
            (7 * PAGE_BYTES, page, None, Code.INVALID),
            (0, page, None, Code.INVALID),
            (PAGE_BYTES, page, None, Code.INVALID),  # the header of the segment is in the way
            (20 * PAGE_BYTES + 8, page, None, Code.INVALID),
            (size - PAGE_BYTES, page * 2, None, Code.INVALID),
            (size, page, None, Code.INVALID),
            ((1 << 32) - PAGE_BYTES, page, None, Code.INVALID),
            (20 * PAGE_BYTES, b"", None, Code.INVALID),
            (20 * PAGE_BYTES, page, b"", Code.INVALID),
            (20 * PAGE_BYTES, page, bytes(8), Code.INVALID),
            (20 * PAGE_BYTES, bytes(PLACED_BYTES_MAX + 1), None, Code.TOO_LARGE),
        ):
            answer = await say(served, reply, place, data, crcs=crcs)
            assert answer.code == code, (place, len(data), answer)
        assert (await say(served, reply, 11 * PAGE_BYTES, page)).code == 0
        assert (await say(served, reply, 6 * PAGE_BYTES, page)).code == 0
        assert (await say(served, reply, size - PAGE_BYTES, page)).code == 0
        body = Write(ino=1, data_generation=1, placed=Said(segment=reply.segment, length=1))
        many = WriteMany(writes=[body, body])
        answer = await served.ask(HOST, capability=capability(HOST), write_many=many)
        assert answer.code == Code.INVALID
        assert served.daemon.store.position.version == 4

    run(tmp_path, test)


def test_a_lent_segment_is_its_sessions_own(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        peer, other = client(), Grant("host", "another", session_id=8, epoch=1)
        await peer.hello()
        reply = await lent(peer)
        answer = await say(served, reply, 2 * PAGE_BYTES, b"x", grant=other)
        assert answer.code == Code.NOT_FOUND
        thief = client()
        await thief.hello(other)
        await give_back(thief, reply.segment)
        assert not live(served, reply).sealed

    run(tmp_path, test)


@pytest.mark.parametrize("how", ["hung up", "fenced"])
def test_the_end_of_its_client_seals_it(tmp_path: Path, how: str) -> None:
    """All of it stays: the client may have to read back there what it has not placed."""

    async def test(served: Served, client: Callable[[], Client]) -> None:
        peer = client()
        await peer.hello()
        reply = await lent(peer)
        fd = os.dup(peer.descriptors[-1])
        os.pwrite(fd, b"placed", 2 * PAGE_BYTES)
        assert (await say(served, reply, 2 * PAGE_BYTES, b"placed")).code == 0
        os.pwrite(fd, b"not placed", MIB)
        segment = live(served, reply)
        if how == "fenced":
            fence = Fence(session_id=HOST.session_id, epoch=HOST.epoch + 1)
            assert (await served.ask(datastore.DAEMON, fence=fence)).code == 0
            assert await peer.hear() is None
        else:
            peer.close()
        async with asyncio.timeout(10):
            while not segment.sealed:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        late = await say(served, reply, MIB, b"not placed")
        assert late.code == (Code.SESSION_EXPIRED if how == "fenced" else Code.NOT_FOUND)
        assert os.pread(fd, 10, MIB) == b"not placed"
        os.pwrite(fd, b"zombie", 4 * PAGE_BYTES)  # where nothing is
        os.close(fd)
        assert len(served.daemon.store.lending) == 0
        assert datastore.read(served.daemon.store, 1, 0, 10) == b"placed"

    run(tmp_path, test)


def test_as_many_as_one_may_have(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        peer, second = client(), client()
        await peer.hello()
        await second.hello()
        codes = [(await lent(peer)).codes[0] for _ in range(3)]
        assert codes == [Code.OK, Code.OK, Code.TOO_LARGE]
        assert (await lent(second)).codes[0] == Code.OK

    run(tmp_path, test, lent_max=2)


def test_who_may_only_read_borrows_nothing(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        peer = client()
        await peer.hello(right=Grant("host", "r", session_id=7, epoch=1, read_only=True))
        reply = await peer.ask(lend=Lend())
        assert reply is not None
        assert reply.code == Code.FORBIDDEN
        assert await peer.hear() is None
        assert len(served.daemon.store.lending) == 0

    run(tmp_path, test)


def test_what_a_client_says_wrongly_of_its_bytes_is_damage_of_its_own(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        peer = client()
        await peer.hello()
        reply = await lent(peer)
        datastore.write(served.daemon.store, 2, 0, b"others'")
        assert (await say(served, reply, 2 * PAGE_BYTES, b"x" * 100, crcs=bytes(4))).code == 0
        with pytest.raises(FsError) as caught:
            datastore.read(served.daemon.store, 1, 0, 100)
        assert caught.value.code is Code.DAMAGED
        assert datastore.read(served.daemon.store, 2, 0, 10) == b"others'"

    run(tmp_path, test)


def test_nothing_is_lent_of_what_is_scarce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = datastore.opened(tmp_path / "store", SMALL)
    size = SMALL.segment_bytes
    room = [(FREE_SEGMENTS_MIN + 2) * size - 1]  # what is lent, and what is promised to others
    monkeypatch.setattr("superfs.data.segments.free_bytes", lambda _: room[0])
    store.promises._by_session[9] = store.promises.total = size
    with pytest.raises(FsError) as caught:
        store.lend(7)
    assert caught.value.code is Code.NO_SPACE
    assert len(store.lending) == 0
    room[0] += 1
    assert store.lend(7).size == size
    datastore.kill(store)


def test_a_promise_is_kept_beside_what_is_lent(tmp_path: Path) -> None:
    async def test(served: Served, client: Callable[[], Client]) -> None:
        peer = client()
        await peer.hello()
        await lent(peer)
        promise = Promise(bytes=MIB)
        answer = await served.ask(HOST, capability=capability(HOST), promise=promise)
        assert answer.code == 0

    run(tmp_path, test)
