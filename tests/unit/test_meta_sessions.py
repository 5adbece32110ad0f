"""What sessions leave when they end, and what the daemon does by itself on a full store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from superfs.core.errors import Code, FsError
from superfs.daemon.clock import ManualClock
from superfs.meta import expiry, fences, reaper, sessions
from superfs.meta.chains import Layout
from superfs.meta.keys import Table
from superfs.meta.service import MetaService
from superfs.v1 import data_pb2
from unit.meta_node import (
    BRIEF,
    CHAINS,
    ROOT,
    FakeDataDaemons,
    TestClient,
    make,
    ref,
    running,
    world,
)
from unit.test_meta_node import big_file, count, until

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.meta.node import MetaNode


def test_an_ended_session_holds_nothing_open(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            gone, other = TestClient(node, 1), TestClient(node, 2)
            await gone.hello()
            await other.hello()
            attr = (await other.create(b"a")).attr
            await node.goodbye(gone.grant)
            wants = gone.op(open={"inode": ref(attr)})
            assert (await gone.send(wants))[0].code == Code.SESSION_EXPIRED
            changes = gone.op(mkdir={"dir": ROOT, "name": b"d", "mode": 0o755})
            assert {r.code for r in await gone.send(wants, changes)} == {Code.SESSION_EXPIRED}
            assert not node.opens.sessions(attr.ino)
            await other.good(unlink={"dir": ROOT, "name": b"a"})
            assert count(node, Table.ORPHAN) == 0

    asyncio.run(run())


def test_orphans_of_nobody_go_at_the_next_start(tmp_path: Path) -> None:
    made = make(tmp_path)

    async def first() -> None:
        async with running(made) as node:
            one, two = TestClient(node, 1), TestClient(node, 2)
            await one.hello()
            await two.hello()
            for name, holders in ((b"a", {1, 2, 99}), (b"b", {99})):
                attr = (await one.create(name)).attr
                for holder in holders:
                    node.opens.open(holder, attr.ino)
                await one.good(unlink={"dir": ROOT, "name": name})
            assert count(node, Table.ORPHAN) == 2

    async def second() -> None:
        async with running(made) as node:
            await until(lambda: count(node, Table.ORPHAN) == 1)

    with pytest.raises(AssertionError, match="orphan-without-session"):  # says fsck at its end
        asyncio.run(first())
    asyncio.run(second())


def test_records_of_ended_sessions_go_while_the_daemon_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "FORGET_EVERY_S", 0.005)
    monkeypatch.setattr(sessions, "FORGET_PART", 3)
    clock = ManualClock()

    async def run() -> None:
        async with running(make(tmp_path), given=world(clock)) as node:
            for number in range(1, 11):
                client = TestClient(node, number)
                await client.hello()
                if number != 5:
                    await node.goodbye(client.grant)
            clock.set_wall(clock.now_ns() + 29 * 86_400 * 10**9)
            await node.committer.run(lambda txn: None)
            assert count(node, Table.SESSION) == 10
            clock.set_wall(clock.now_ns() + 2 * 86_400 * 10**9)
            await until(lambda: count(node, Table.SESSION) == 1)

    asyncio.run(run())


def test_a_store_without_a_page_left_is_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expiry and reaping try again; the daemon lives."""
    monkeypatch.setattr(reaper, "RETRY_MAX_S", 0.005)
    clock = ManualClock()

    async def run() -> None:
        made = make(tmp_path, **BRIEF)
        async with running(made, given=world(clock)) as node:
            alive, gone = TestClient(node, 1), TestClient(node, 2)
            await alive.hello()
            await gone.hello()
            attr = await big_file(alive, b"a", 5 << 20)
            refused: list[int] = []
            original = node.committer.run

            async def full(function: Any, *, weight: int = 1) -> Any:  # noqa: ANN401
                if len(refused) < 5:
                    refused.append(weight)
                    raise FsError(Code.NO_SPACE, "the metadata store is full")
                return await original(function, weight=weight)

            monkeypatch.setattr(node.committer, "run", full)
            await alive.good(unlink={"dir": ROOT, "name": b"a"})
            async with asyncio.timeout(20):
                while len(node.sessions) == 2 or count(node, Table.REAP):
                    clock.advance(0.01)
                    node.sessions.heard(1)
                    await asyncio.sleep(0.01)
            assert len(refused) == 5
            assert (await alive.do(getattr={"inode": ref(attr)})).code == Code.STALE

    asyncio.run(run())


def test_data_written_for_files_that_were_never_made_is_reaped(tmp_path: Path) -> None:
    """Reserved numbers that a session leaves, on whichever data daemon; the check names them as
    long as it lives."""

    async def run() -> None:
        datads = FakeDataDaemons()
        async with running(make(tmp_path), datads) as node:
            client = TestClient(node, 1)
            await client.hello()
            first = (await client.good(reserve={"dir": ROOT, "count": 4})).number
            await client.good(
                create={"dir": ROOT, "name": b"a", "mode": 0o100600, "ino": first + 1}
            )
            listed = {i for run in MetaService(node, tmp_path)._reserved() for i, _, _ in run}
            left = {first, first + 2, first + 3}
            assert listed == left
            await node.goodbye(client.grant)
            await until(lambda: count(node, Table.REAP) == 0)
            nodes_of = {node for node, _, _ in datads.reaped}
            assert {(n, i, 1) for n in nodes_of for i in left} == set(datads.reaped)
            assert len(nodes_of) == len(CHAINS)
            assert count(node, Table.RESERVED) == 0

    asyncio.run(run())


def test_a_data_daemon_that_was_away_is_told_of_ended_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fences, "RETRY_S", 0.005)
    away = {3}
    told: list[tuple[int, int, int]] = []

    done: list[int] = []

    async def paid(session: int) -> None:
        done.append(session)

    async def call(node: int, request: data_pb2.DataRequest) -> data_pb2.DataReply:
        if node in away:
            raise FsError(Code.UNAVAILABLE, "away")
        told.append((node, request.fence.session_id, request.fence.epoch))
        return data_pb2.DataReply()

    async def run() -> None:
        owed = fences.Fences(call, lambda: {2, 3}, paid, world())
        sending = asyncio.create_task(owed.run())
        owed.owe({7: 2})
        await until(lambda: told == [(2, 7, 2)])
        await owed.put_up(8, 5)  # waits for nobody who is away
        assert told == [(2, 7, 2), (2, 8, 5)]
        assert not done
        away.clear()
        await until(lambda: sorted(done) == [7, 8])
        assert sorted(told[2:]) == [(3, 7, 2), (3, 8, 5)]
        assert not owed
        sending.cancel()

    asyncio.run(run())


def test_nobody_goes_on_before_an_expired_session_is_fenced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is owed to a data daemon that is away survives a restart."""
    monkeypatch.setattr(fences, "RETRY_S", 0.005)
    made = make(tmp_path)
    order: list[object] = []

    def prepare(node: MetaNode, away: set[int]) -> None:
        async def call(to: int, request: data_pb2.DataRequest) -> data_pb2.DataReply:
            if to in away:
                raise FsError(Code.UNAVAILABLE, "away")
            order.append((to, request.fence.session_id, request.fence.epoch))
            return data_pb2.DataReply()

        layout = node.layout
        addresses: dict[int, tuple[str, ...]] = {2: ("unix:/2",), 3: ("unix:/3",)}
        monkeypatch.setattr(node.expiry.fences, "_tell", call)
        monkeypatch.setattr(node.lessor, "end", order.append)
        node.set_layout(Layout(1, layout.owned, CHAINS, layout.nodes_of, addresses))

    async def run(away: set[int], *expected: object) -> None:
        async with running(made) as node:
            prepare(node, away)
            if away:
                await TestClient(node, 7).hello()
                await node.expiry.end(7, node._world.clock.monotonic() + 1)
            await until(lambda: order == list(expected))
            await until(lambda: bool(node.expiry.fences) == bool(away))

    asyncio.run(run({3}, (2, 7, 2), 7))
    order.clear()
    asyncio.run(run(set(), (2, 7, 2), (3, 7, 2)))
    order.clear()
    asyncio.run(run(set()))
