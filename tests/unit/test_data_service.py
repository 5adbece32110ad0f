"""The Data service: what requests do, who may make them, and what hostile ones get."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from harness import datastore
from harness.datastore import (
    DAEMON,
    HOST,
    SMALL,
    Served,
    Stream,
    Stub,
    capability,
    run,
    serving,
    session,
)
from superfs.core.errors import Code, FsError
from superfs.core.limits import (
    CHUNK_BYTES,
    MESSAGE_DATA_BYTES_MAX,
    MIB,
    REQUESTS_PER_MESSAGE_MAX,
)
from superfs.core.tokens import Authority, Grant, Purpose
from superfs.v1.data_pb2 import (
    Commit,
    DataCheckRequest,
    DataListRequest,
    DataRequest,
    Fence,
    Read,
    ReadMany,
    Reap,
    ReapItem,
    Truncate,
    Usage,
    Write,
    WriteMany,
)

if TYPE_CHECKING:
    from pathlib import Path

USER = Grant("user", "alice", uid=1000, session_id=9, epoch=1)
HOST_CAPABILITY = capability(HOST)


def w(data: bytes = b"data", ino: int = 1, offset: int = 0, chunk: int = 0) -> Write:
    return Write(ino=ino, data_generation=1, chunk=chunk, offset=offset, data=data)


def r(length: int = 100, ino: int = 1, offset: int = 0, chunk: int = 0) -> Read:
    return Read(ino=ino, data_generation=1, chunk=chunk, offset=offset, length=length)


# ---- what requests do ----------------------------------------------------------------------------


def test_stream_runs_in_order(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        requests = [
            DataRequest(capability=HOST_CAPABILITY, usage=Usage()),
            DataRequest(write=w(b"one")),
            DataRequest(read=r()),
            DataRequest(commit=Commit()),
            DataRequest(write=w(b"two")),
            DataRequest(read=r()),
            DataRequest(write_many=WriteMany(writes=[w(b"x", ino=5), w(b"yy", ino=6)])),
            DataRequest(read_many=ReadMany(reads=[r(ino=5), r(ino=6), r(ino=7), r(0, ino=5)])),
        ]
        replies = await session(served, HOST, requests)
        assert [reply.code for reply in replies] == [0] * len(requests)
        assert len({reply.boot_epoch for reply in replies}) == 1
        assert replies[0].boot_epoch
        assert (replies[2].data, replies[5].data) == (b"one", b"two")
        assert [part.data for part in replies[7].reads] == [b"x", b"yy", b"", b""]
        assert replies[0].usage.bytes_total > replies[0].usage.bytes_free > 0

    run(tmp_path, test)


def test_many_requests_in_one_message(tmp_path: Path) -> None:
    """They take effect in order, and those that wait for nothing are answered together."""

    async def test(served: Served) -> None:
        show = DataRequest(tag=1, capability=HOST_CAPABILITY, write=w(b"a"))
        show.more.extend(DataRequest(tag=tag, write=w(b"%d" % tag)) for tag in range(2, 9))
        show.more.append(DataRequest(tag=9, read=Read(ino=1, data_generation=1, length=9)))
        mixed = DataRequest(tag=10, write=w(b"b"))
        mixed.more.append(DataRequest(tag=11, commit=Commit()))
        mixed.more.append(DataRequest(tag=12, read=Read(ino=1, data_generation=1, length=9)))
        mixed.more.append(DataRequest(tag=13, read=Read(ino=1, data_generation=1, length=1 << 30)))
        last = DataRequest(tag=14, usage=Usage())
        stream = Stream(HOST, [show, mixed, last])
        await served.daemon.service.Session(None, stream)
        together = [[reply.tag for reply in (r, *r.more)] for r in stream.replies]
        assert together == [list(range(1, 10)), [10], [11], [12], [13], [14]]
        replies = [reply for r in stream.replies for reply in (r, *r.more)]
        assert [r.version for r in replies[:8]] == list(range(1, 9))
        assert (replies[8].data, replies[11].data) == (b"8", b"b")
        assert [r.code for r in replies] == [0] * 12 + [Code.TOO_LARGE, 0]
        assert len({r.boot_epoch for r in replies}) == 1
        assert replies[-1].usage.requests_max == REQUESTS_PER_MESSAGE_MAX

    run(tmp_path, test)


def test_messages_that_hold_too_much(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        one = DataRequest(tag=2, write=w())
        many = DataRequest(capability=HOST_CAPABILITY, write=w())
        many.more.extend([one] * REQUESTS_PER_MESSAGE_MAX)
        nested = DataRequest(capability=HOST_CAPABILITY, write=w())
        nested.more.append(DataRequest(write=w(), more=[one]))
        for request in (many, nested):
            with pytest.raises(FsError) as caught:
                await served.daemon.service.Session(None, Stream(HOST, [request]))
            assert caught.value.code is Code.BAD_REQUEST
            with pytest.raises(FsError) as caught:
                await served.daemon.service.Execute(request, Stub(HOST))
            assert caught.value.code is Code.BAD_REQUEST
        assert served.daemon.store.position.version == 0

    run(tmp_path, test)


def test_slow_answers_hold_up_nothing_but_answers(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        bodies: list[dict[str, Any]] = [
            {"write": w(b"12", offset=7)},
            {"commit": Commit()},
            {"read": r(1, offset=7)},
        ]
        requests = [DataRequest(**bodies[i % 3]) for i in range(600)]
        requests[0].capability = HOST_CAPABILITY
        replies = await session(served, HOST, requests)
        assert len(replies) == 600
        assert not any(reply.code for reply in replies)

    run(tmp_path, test)


def test_sender_waits_when_answers_are_not_taken(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        requests = [DataRequest(commit=Commit(), tag=i) for i in range(2000)]
        stream = Stream(HOST, [DataRequest(capability=HOST_CAPABILITY, write=w()), *requests])
        stream.blocked = asyncio.Event()
        stream.blocked.set()
        task = asyncio.create_task(served.daemon.service.Session(None, stream))
        await stream.answered.wait()
        stream.blocked.clear()
        for _ in range(3000):
            await asyncio.sleep(0)
        assert len(stream.requests) > 1000
        stream.blocked.set()
        await task
        assert len(stream.replies) == 2001

    run(tmp_path, test)


def test_lost_stream_delivers_nothing_behind_its_successor(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        service = served.daemon.service
        late = DataRequest(tag=2, write=w(b"late"))
        lost = Stream(HOST, [DataRequest(tag=1, capability=HOST_CAPABILITY, write=w(b"one"))])
        lost.requests.append(late)
        lost.blocked = asyncio.Event()
        old = asyncio.create_task(service.Session(None, lost))
        while len(lost.requests) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0)
        fresh = [DataRequest(capability=HOST_CAPABILITY, write=w(b"two")), DataRequest(read=r())]
        replies = await session(served, HOST, fresh)
        lost.blocked.set()
        with pytest.raises(FsError) as caught:
            await old
        assert caught.value.code is Code.UNAVAILABLE
        assert replies[1].data == (await served.ask(read=r())).data == b"two"

    run(tmp_path, test)


def test_read_is_short_only_where_nothing_is_behind(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        await served.ask(write=w(b"abc", offset=100))
        await served.ask(write=w(b"xyz", offset=300))
        assert (await served.ask(read=r(50))).data == bytes(50)
        assert (await served.ask(read=r(200, offset=100))).data == b"abc" + bytes(197)
        assert (await served.ask(read=r(1000, offset=302))).data == b"z"
        assert (await served.ask(read=r(1000, offset=303))).data == b""
        assert (await served.ask(read=r(1000, chunk=9))).data == b""

    run(tmp_path, test)


def test_truncate_and_reap(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        for chunk in range(70):
            await served.ask(write=w(b"x" * 10, chunk=chunk))
        size = CHUNK_BYTES + 4
        reply = await served.ask(truncate=Truncate(ino=1, data_generation=1, size=size))
        assert reply.code == 0
        assert (await served.ask(read=r(chunk=1))).data == b"xxxx"
        assert (await served.ask(read=r(chunk=2))).data == b""
        item = ReapItem(ino=1, data_generation=1)
        for _ in range(2):  # a retry after a lost answer
            assert (await served.ask(reap=Reap(items=[item]))).code == 0
        assert (await served.ask(write=w())).code == Code.STALE_DATA
        assert (await served.ask(read=r())).code == Code.STALE_DATA
        assert (await served.ask(usage=Usage())).usage.bytes_live == 0
        again = await served.ask(truncate=Truncate(ino=1, data_generation=1, size=5))
        assert again.code == 0

    run(tmp_path, test)


def test_check_and_list(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        service = served.daemon.service
        for ino in (3, 1, 2):
            await served.ask(write=w(b"x" * ino, ino=ino, chunk=ino - 1))
        pages = [page async for page in service.ListData(DataListRequest(), Stub(HOST))]
        (page,) = pages
        assert page.inos == b"".join(i.to_bytes(8, "little") for i in (1, 2, 3))
        sizes = [1, CHUNK_BYTES + 2, 2 * CHUNK_BYTES + 3]
        assert page.sizes == b"".join(i.to_bytes(8, "little") for i in sizes)
        request = DataCheckRequest(verify_data=True)
        assert [f async for f in service.Check(request, Stub(HOST))] == []
        with pytest.raises(FsError) as caught:
            _ = [f async for f in service.Check(request, Stub(USER))]
        assert caught.value.code is Code.FORBIDDEN

    run(tmp_path, test)


# ---- who may ask ---------------------------------------------------------------------------------


async def code(
    served: Served,
    grant: Grant,
    shown: Grant | bytes,
    **body: Any,  # noqa: ANN401
) -> Code:
    token = shown if isinstance(shown, bytes) else capability(shown)
    return Code((await served.ask(grant, capability=token, **body)).code)


def test_capabilities(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        reaping = Reap(items=[ReapItem(ino=1, data_generation=1)])
        one = Grant("user", "alice", uid=1000, session_id=9, epoch=1, inode=1)
        reader = Grant("user", "alice", session_id=9, epoch=1, inode=1, read_only=True)
        over = Grant("host", "m", session_id=7, epoch=1, expires_ns=1)
        forged = Authority(b"x" * 32).issue(Purpose.CAPABILITY, HOST)
        other_use = Authority(datastore.KEY).issue(Purpose.SESSION, DAEMON)
        flipped = HOST_CAPABILITY[:-1] + bytes([HOST_CAPABILITY[-1] ^ 1])
        assert await code(served, HOST, b"", write=w()) is Code.UNAUTHENTICATED
        assert await code(served, HOST, b"", read=r()) is Code.UNAUTHENTICATED
        for bad in (forged, other_use, flipped, b"x", b"\0" * 300, capability(over)):
            assert await code(served, HOST, bad, write=w()) is Code.UNAUTHENTICATED
        assert await code(served, HOST, HOST_CAPABILITY, write=w()) is Code.OK
        assert await code(served, USER, one, write=w()) is Code.OK
        assert await code(served, USER, one, write=w(ino=2)) is Code.FORBIDDEN
        assert await code(served, USER, USER, read=r()) is Code.FORBIDDEN
        assert await code(served, USER, reader, read=r()) is Code.OK
        assert await code(served, USER, reader, write=w()) is Code.READ_ONLY
        many = ReadMany(reads=[r(ino=1), r(ino=2)])
        reply = await served.ask(USER, capability=capability(one), read_many=many)
        assert [part.code for part in reply.reads] == [0, Code.FORBIDDEN]
        for shown in (HOST, one):
            assert await code(served, HOST, shown, reap=reaping) is Code.FORBIDDEN
            truncate = Truncate(ino=1, data_generation=1, size=1)
            assert await code(served, HOST, shown, truncate=truncate) is Code.FORBIDDEN
            fence = Fence(session_id=9, epoch=5)
            assert await code(served, HOST, shown, fence=fence) is Code.FORBIDDEN

    run(tmp_path, test)


def test_fenced_sessions_stay_out(tmp_path: Path) -> None:
    renewed = Grant("host", "a mount", session_id=HOST.session_id, epoch=4)

    async def before(served: Served) -> None:
        assert await code(served, HOST, HOST, write=w()) is Code.OK
        assert (await served.ask(fence=Fence(session_id=HOST.session_id, epoch=4))).code == 0
        assert (await served.ask(fence=Fence(session_id=HOST.session_id, epoch=2))).code == 0
        await after(served)

    async def after(served: Served) -> None:
        assert await code(served, HOST, HOST, write=w()) is Code.SESSION_EXPIRED
        assert await code(served, HOST, HOST, read=r()) is Code.SESSION_EXPIRED
        assert await code(served, HOST, renewed, write=w()) is Code.OK

    async def main() -> None:
        for test in (before, after):
            async with serving(tmp_path / "d") as served:
                await test(served)

    datastore.make(tmp_path / "d")
    asyncio.run(main())


# ---- hostile numbers -----------------------------------------------------------------------------

BIG = bytes(MESSAGE_DATA_BYTES_MAX)
HOSTILE: list[tuple[str, Any, Code]] = [
    ("write", w(b""), Code.INVALID),
    ("write", w(ino=0), Code.INVALID),
    ("write", Write(ino=1, data=b"x"), Code.INVALID),
    ("write", w(offset=CHUNK_BYTES), Code.INVALID),
    ("write", w(offset=CHUNK_BYTES - 3), Code.INVALID),
    ("write", w(offset=0xFFFFFFFF), Code.INVALID),
    ("write", w(BIG + b"x"), Code.TOO_LARGE),
    ("write", w(BIG, ino=(1 << 64) - 1, chunk=0xFFFFFFFF, offset=3 * MIB), Code.OK),
    ("write_many", WriteMany(), Code.OK),
    ("write_many", WriteMany(writes=[w(), w(ino=0)]), Code.INVALID),
    ("write_many", WriteMany(writes=[w()] * 4097), Code.TOO_LARGE),
    ("read", r(0), Code.OK),
    ("read", r(ino=0), Code.INVALID),
    ("read", r(0xFFFFFFFF), Code.TOO_LARGE),
    ("read", r(MIB + 1), Code.TOO_LARGE),
    ("read", r(100, offset=CHUNK_BYTES - 99), Code.INVALID),
    ("read", r(1, offset=0xFFFFFFFF), Code.INVALID),
    ("read_many", ReadMany(reads=[r(1)] * 4097), Code.TOO_LARGE),
    ("read_many", ReadMany(reads=[r(MIB), r(1)]), Code.TOO_LARGE),
    ("truncate", Truncate(ino=1, data_generation=1, size=0), Code.INVALID),
    ("truncate", Truncate(ino=0, data_generation=1, size=1), Code.INVALID),
    ("truncate", Truncate(ino=1, data_generation=1, size=1 << 63), Code.INVALID),
    ("truncate", Truncate(ino=1, data_generation=1, size=(1 << 63) - 1), Code.OK),
    ("truncate", Truncate(ino=(1 << 64) - 1, data_generation=1, size=1), Code.OK),
    ("reap", Reap(items=[ReapItem()]), Code.INVALID),
    ("reap", Reap(items=[ReapItem(ino=1, data_generation=1)] * 4097), Code.TOO_LARGE),
    ("fence", Fence(session_id=(1 << 64) - 1, epoch=(1 << 64) - 1), Code.OK),
]


def test_hostile_numbers(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        for body, value, expected in HOSTILE:
            reply = await served.ask(**{body: value})
            assert Code(reply.code) is expected, (body, str(value)[:200], reply.detail)
        reply = await served.daemon.service.Execute(DataRequest(tag=3), Stub(DAEMON))
        assert (reply.code, reply.tag) == (Code.BAD_REQUEST, 3)
        # a refused list of writes has done nothing
        assert (await served.ask(read=r())).data == b""

    run(tmp_path, test)


def test_small_limits_are_refused_at_load() -> None:
    from superfs.core.config import ConfigError, from_dict
    from superfs.data.config import DatadConfig

    assert from_dict(DatadConfig, {}) == DatadConfig()
    for table, key, value in [
        ("store", "segment_bytes", MIB),
        ("store", "index_bytes", 12345),
        ("store", "sync_interval_s", 0),
        ("store", "surprise", 1),
        ("compaction", "live_percent_max", 100),
        ("scrub", "bytes_per_s", 0),
        ("stream", "in_flight_bytes_max", 10),
    ]:
        with pytest.raises(ConfigError):
            from_dict(DatadConfig, {table: {key: value}})
    assert SMALL.segment_bytes == 8 * MIB


def test_a_fence_outlives_the_tombstones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(served: Served) -> None:
        store = served.daemon.store
        ask = {"capability": HOST_CAPABILITY, "write": w()}
        assert (await served.ask(HOST, **ask)).code == Code.OK
        await served.ask(fence=Fence(session_id=HOST.session_id, epoch=HOST.epoch + 1))
        now_ns, day_ns = store.world.clock.now_ns(), 86_400 * 10**9
        for days, known in ((2, True), (29, True), (31, False)):
            monkeypatch.setattr(store.world.clock, "now_ns", lambda d=days: now_ns + d * day_ns)
            store.prune()
            refused = (await served.ask(HOST, **ask)).code == Code.SESSION_EXPIRED
            assert refused == known, days

    run(tmp_path, test)
