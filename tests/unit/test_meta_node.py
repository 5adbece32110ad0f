"""A metadata daemon's node: exactly once, sessions, orphans, truncation, over restarts."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any

import pytest

from superfs.core.attrs import Flag, Set
from superfs.core.errors import Code, FsError
from superfs.core.limits import LISTING_BYTES_MAX, MESSAGE_BYTES_MAX, REPLY_WINDOW_OPS
from superfs.daemon.clock import ManualClock
from superfs.meta.keys import Table
from superfs.v1 import meta_pb2
from unit.meta_node import BRIEF, ROOT, FakeDataDaemons, TestClient, make, ref, running, world

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from superfs.meta.node import MetaNode


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - another thread makes it true
            await asyncio.sleep(0.005)


def count(node: MetaNode, table: Table) -> int:
    with node.environment.reading() as rows:
        return rows.state.counts[table]


async def big_file(client: TestClient, name: bytes, size: int) -> Any:  # noqa: ANN401
    """A file whose contents lie on data daemons."""
    attr = (await client.create(name)).attr
    fresh = await client.good(new_data={"inode": ref(attr)})
    published = await client.good(
        publish={
            "inode": ref(attr),
            "data_generation": fresh.number,
            "size": size,
            "spill": True,
            "inline_change": fresh.attr.change,
        }
    )
    assert not published.attr.flags & Flag.INLINE
    return published.attr


def test_a_batch_runs_in_order_and_each_operation_has_its_own_fate(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client = TestClient(node)
            await client.hello()
            entry = {"dir": ROOT, "name": b"a"}
            made = {**entry, "mode": 0o100600, "exclusive": True}
            results = await client.send(
                client.op(lookup=entry),
                client.op(create=made),
                client.op(create=made),
                client.op(lookup=entry),
                client.op(unlink=entry),
                client.op(lookup=entry),
                client.op(statfs={}),
                meta_pb2.Op(seq=99),
            )
            assert [r.code for r in results] == [
                Code.NOT_FOUND, 0, Code.EXISTS, 0, 0, Code.NOT_FOUND, 0, Code.BAD_REQUEST,
            ]  # fmt: skip
            assert results[1].attr.ino == results[3].attr.ino
            assert results[6].fs_stat.inodes_used == 1
            assert results[6].fs_stat.inodes_free > 1000

    asyncio.run(run())


def test_a_retry_is_answered_from_its_record_also_after_a_restart(tmp_path: Path) -> None:
    made = make(tmp_path)
    kept: dict[str, Any] = {}

    async def first() -> None:
        async with running(made) as node:
            client = TestClient(node)
            await client.hello()
            kept["op"] = client.op(create={"dir": ROOT, "name": b"a", "mode": 0o100600})
            kept["refused"] = client.op(rmdir={"dir": ROOT, "name": b"none"})
            kept["result"], kept["error"] = await client.send(kept["op"], kept["refused"])
            again = await client.send(kept["op"])
            assert again == [kept["result"]]

    async def second() -> None:
        async with running(made) as node:
            client = TestClient(node)
            # What was refused stays refused, though it would be possible by now.
            client.seq = 10
            await client.good(mkdir={"dir": ROOT, "name": b"none", "mode": 0o755})
            assert await client.send(kept["op"], kept["refused"]) == [
                kept["result"],
                kept["error"],
            ]
            assert count(node, Table.INODE) == 1

    asyncio.run(first())
    asyncio.run(second())


def test_the_window_of_sequence_numbers(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client = TestClient(node)
            await client.hello()
            first = client.op(create={"dir": ROOT, "name": b"first", "mode": 0o100600})
            await client.send(first)
            for i in range(8):
                names = [b"%d-%d" % (i, j) for j in range(100)]
                await client.send(
                    *(client.op(create={"dir": ROOT, "name": n, "mode": 0o100600}) for n in names)
                )
                client.acked_below = client.seq + 1
            assert count(node, Table.REPLY) < 400
            (again,) = await client.send(first)
            assert again.code == Code.BAD_REQUEST
            client.seq = client.acked_below + REPLY_WINDOW_OPS
            assert (await client.do(mkdir={"dir": ROOT, "name": b"d"})).code == Code.BAD_REQUEST
            client.seq = client.acked_below - 1
            none = client.op(mkdir={"dir": ROOT, "name": b"d"})
            none.seq = 0
            assert (await client.send(none))[0].code == Code.BAD_REQUEST

    asyncio.run(run())


def test_an_ended_session_never_runs_again(tmp_path: Path) -> None:
    made = make(tmp_path, **BRIEF)
    clock = ManualClock()

    async def run() -> None:
        async with running(made, given=world(clock)) as node:
            gone, alive = TestClient(node, 1), TestClient(node, 2)
            await gone.hello()
            await alive.hello()
            await gone.create(b"a")
            while len(node.sessions) == 2:
                clock.advance(0.02)
                await alive.good(lookup={"dir": ROOT, "name": b"a"})
                await asyncio.sleep(0.01)
            assert node.sessions.get(2) is not None
            assert (await gone.do(unlink={"dir": ROOT, "name": b"a"})).code == Code.SESSION_EXPIRED
            assert (await gone.do(lookup={"dir": ROOT, "name": b"a"})).code == Code.SESSION_EXPIRED
            with pytest.raises(FsError, match="SESSION_EXPIRED"):
                await gone.hello()
            await alive.good(lookup={"dir": ROOT, "name": b"a"})
            assert count(node, Table.REPLY) == 0

    async def after_restart() -> None:
        async with running(made) as node:
            gone = TestClient(node, 1)
            assert (await gone.do(unlink={"dir": ROOT, "name": b"a"})).code == Code.SESSION_EXPIRED

    asyncio.run(run())
    asyncio.run(after_restart())


def test_times_follow_a_clock_that_is_set_right(tmp_path: Path) -> None:
    """A clock that is adjusted by seconds does not turn time back; one that had been years ahead
    does, and nothing keeps the years."""
    clock = ManualClock()
    right = clock.now_ns()

    async def run() -> None:
        async with running(make(tmp_path), given=world(clock)) as node:
            client = TestClient(node)
            await client.hello()
            before = (await client.create(b"a")).attr.ctime_ns
            clock.set_wall(right - 10 * 10**9)
            assert before < (await client.create(b"b")).attr.ctime_ns < before + 1000
            clock.set_wall(right + 100 * 365 * 86_400 * 10**9)
            late = (await client.create(b"c")).attr
            clock.set_wall(right)
            assert right <= (await client.create(b"d")).attr.ctime_ns < right + 1000
            write = {"offset": 0, "data": b"x"}
            clock.set_wall(right + 10**9)
            wrote = {"inode": ref(late), "writes": [write], "mtime_ns": right + 5 * 10**8}
            attr = (await client.good(publish=wrote)).attr
            assert right + 10**9 <= attr.mtime_ns == attr.ctime_ns < right + 10**9 + 1000

    asyncio.run(run())


def test_nobody_expires_for_a_pause_of_the_daemon_itself(tmp_path: Path) -> None:
    clock = ManualClock()

    async def run() -> None:
        async with running(make(tmp_path, **BRIEF), given=world(clock)) as node:
            client = TestClient(node)
            await client.hello()
            entered = node.sessions.get(1)
            assert entered is not None
            clock.advance(3600)
            await until(lambda: entered.heard > clock.monotonic() - 1)
            await client.create(b"still here")

    asyncio.run(run())


def test_an_unlinked_file_lives_while_somebody_has_it_open(tmp_path: Path) -> None:
    async def run() -> None:
        datads = FakeDataDaemons()
        async with running(make(tmp_path), datads) as node:
            one, two = TestClient(node, 1), TestClient(node, 2)
            await one.hello()
            await two.hello()
            attr = await big_file(one, b"a", 5 << 20)
            await two.good(open={"inode": ref(attr)})
            await one.good(unlink={"dir": ROOT, "name": b"a"})
            assert (await two.good(getattr={"inode": ref(attr)})).attr.nlink == 0
            assert not datads.reaped
            await two.good(release={"inodes": [ref(attr)]})
            await until(lambda: count(node, Table.REAP) == 0)
            assert {(i, g) for _, i, g in datads.reaped} == {(attr.ino, attr.data_generation)}
            assert (await two.do(getattr={"inode": ref(attr)})).code == Code.STALE
            assert count(node, Table.ORPHAN) == 0

    asyncio.run(run())


def test_open_files_over_a_restart(tmp_path: Path) -> None:
    """Until a session has said what it has open, it may have anything open."""
    made = make(tmp_path)
    kept: dict[str, Any] = {}

    async def first() -> None:
        async with running(made) as node:
            client = TestClient(node)
            await client.hello()
            for name in (b"held", b"closed", b"before"):
                kept[name.decode()] = (await client.create(name, open=True)).attr
            await client.good(unlink={"dir": ROOT, "name": b"before"})

    async def second() -> None:
        async with running(made) as node:
            other = TestClient(node, 2)
            await other.hello()
            for name in (b"held", b"closed"):
                await other.good(unlink={"dir": ROOT, "name": name})
            assert count(node, Table.ORPHAN) == 3
            client = TestClient(node)
            client.seq = 100
            await client.hello(kept["held"].ino, kept["before"].ino)
            assert count(node, Table.ORPHAN) == 2
            await client.good(getattr={"inode": ref(kept["held"])})
            assert (await client.do(getattr={"inode": ref(kept["closed"])})).code == Code.STALE
            await node.goodbye(client.grant)
            assert count(node, Table.ORPHAN) == 0

    asyncio.run(first())
    asyncio.run(second())


def test_truncation_is_answered_when_the_data_daemons_have_done_it(tmp_path: Path) -> None:
    made = make(tmp_path)
    kept: dict[str, Any] = {}
    shrink = {"mask": int(Set.SIZE), "size": 5 << 20}

    async def first() -> None:
        datads = FakeDataDaemons()
        async with running(made, datads) as node:
            client = TestClient(node)
            await client.hello()
            kept["attr"] = attr = await big_file(client, b"a", 50 << 20)
            datads.away = {11, 12}
            kept["op"] = client.op(setattr={"inode": ref(attr), **shrink})
            waiting = asyncio.ensure_future(client.send(kept["op"]))
            await until(lambda: count(node, Table.REAP) == 1)
            busy = await client.do(publish={"inode": ref(attr), "size": 1})
            assert busy.code == Code.BUSY
            assert not waiting.done()
            waiting.cancel()

    async def second() -> None:
        datads = FakeDataDaemons()
        async with running(made, datads) as node:
            client = TestClient(node)
            client.seq = 100
            (result,) = await client.send(kept["op"])
            assert result.code == 0
            assert result.attr.size == 5 << 20
            assert not result.attr.flags & Flag.TRUNCATING
            attr = kept["attr"]
            assert {t[1:] for t in datads.truncated} == {(attr.ino, attr.data_generation, 5 << 20)}
            assert {t[0] for t in datads.truncated} == {11, 12}
            found = await client.good(getattr={"inode": ref(attr)})
            assert not found.attr.flags & Flag.TRUNCATING
            assert (await client.send(kept["op"]))[0].attr.flags == found.attr.flags

    asyncio.run(first())
    asyncio.run(second())


def test_answers_fit_into_a_message(tmp_path: Path) -> None:
    """However long each of them is: what does not fit is to be asked for again."""

    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client = TestClient(node)
            await client.hello()
            names = [b"%03d" % n + b"x" * 252 for n in range(700)]
            for name in names:
                client.acked_below = client.seq
                await client.create(name, inline=b"c" * 3800)
            column = b"".join(len(n).to_bytes(2, "little") + n for n in names)
            ask = {"dir": ROOT, "names": column, "inline_max": 4096}
            ops = [client.op(get_many=ask) for _ in range(4)]
            batch = meta_pb2.Batch(batch=7, ops=ops)
            reply = await client.node.execute(client.grant, batch)
            assert reply.ByteSize() <= MESSAGE_BYTES_MAX
            codes = [result.code for result in reply.results]
            assert codes[0] == Code.OK
            assert Code.BUSY in codes
            found = reply.results[0].listing
            assert found.count == 700
            lengths = struct.unpack("<700I", found.inline_lengths)
            assert lengths.count(3800) * 3800 <= LISTING_BYTES_MAX
            assert set(lengths) == {3800, 0xFFFFFFFF}

    asyncio.run(run())
