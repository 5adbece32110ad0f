"""Leases that end by themselves: too many, too long silent, too much asked of, after a restart."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

import pytest

from superfs.core.errors import Code, FsError
from superfs.daemon.clock import ManualClock
from superfs.meta import leases, recalls
from superfs.meta.leases import Leases
from unit.meta_exclusive import until
from unit.meta_leases import LeaseClient, is_waiting
from unit.meta_node import BRIEF, ROOT, TestClient, make, ref, running, world

if TYPE_CHECKING:
    from pathlib import Path

TOP = int(ROOT["ino"])
A = {"dir": ROOT, "name": b"a"}
NEW = {**A, "mode": 0o100644, "exclusive": True}


def test_the_lease_granted_longest_ago_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases.Leases.__init__, "__defaults__", (2,))

    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client, other = LeaseClient(node, 1), LeaseClient(node, 2, acks=True)
            await client.hello()
            await other.hello()
            made = [
                (await other.good(mkdir={**A, "name": n, "mode": 0o755})).attr for n in (b"a", b"b")
            ]
            first, second = made
            await client.granted(read_dir={"dir": ref(first)})
            await client.granted(read_dir={"dir": ref(second)})
            await client.granted(lookup={"dir": ref(first), "name": b"x"})
            assert client.held == {first.ino, second.ino}
            await client.granted(read_dir={"dir": ROOT})
            assert client.held == {first.ino, TOP}
            assert client.heard() == {second.ino: None}
            changed = other.asking(create={**NEW, "dir": ref(second)})
            assert await is_waiting(changed)  # it may not know yet
            client.acknowledge()
            await changed

    asyncio.run(run())


def _are_told(reader: LeaseClient, count: int) -> bool:
    return len(reader.told) >= count


def test_who_owes_many_acknowledgements_loses_leases_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recalls, "UNANSWERED_MAX", 2)

    async def run() -> None:
        async with running(make(tmp_path)) as node:
            reader, writer = LeaseClient(node, 1), LeaseClient(node, 2)
            await reader.hello()
            await writer.hello()
            await reader.granted(read_dir={"dir": ROOT})
            waiting = []
            for i, told in enumerate((1, 2, 3, 3)):
                waiting.append(writer.asking(create={**NEW, "name": b"%d" % i}))
                await until(functools.partial(_are_told, reader, told))
            assert len(reader.told) == 3
            assert reader.heard() == {TOP: None}
            assert not reader.held
            reader.acknowledge()
            await asyncio.gather(*waiting)

    asyncio.run(run())


# ---- time


def test_a_silent_holder_is_waited_for_until_its_leases_must_be_over(tmp_path: Path) -> None:
    clock = ManualClock()

    async def run() -> None:
        async with running(make(tmp_path), given=world(clock)) as node:
            reader, writer = LeaseClient(node, 1), LeaseClient(node, 2)
            await reader.hello()
            await writer.hello()
            await reader.granted(lookup=A)
            made = writer.asking(create=NEW)
            assert await is_waiting(made)
            clock.advance(29)
            writer.keep_alive()
            node.lessor.tick(clock.monotonic())
            assert await is_waiting(made)
            clock.advance(2)
            node.lessor.tick(clock.monotonic())
            await made
            assert reader.closed
            assert not reader.held
            assert not writer.closed
            with pytest.raises(FsError, match="UNAVAILABLE"):
                reader.keep_alive()
            assert not await reader.granted(lookup=A)
            await reader.hello()
            assert await reader.granted(lookup=A)

    asyncio.run(run())


def test_who_lives_and_does_not_acknowledge_loses_its_stream_then_its_leases(
    tmp_path: Path,
) -> None:
    clock = ManualClock()

    async def run() -> None:
        async with running(make(tmp_path), given=world(clock)) as node:
            reader, writer = LeaseClient(node, 1), LeaseClient(node, 2)
            await reader.hello()
            await writer.hello()
            await reader.granted(lookup=A)
            made = writer.asking(create=NEW)
            assert await is_waiting(made)
            for _ in range(4):
                clock.advance(10)
                writer.keep_alive()
                if not reader.closed:
                    reader.keep_alive()
                node.lessor.tick(clock.monotonic())
            assert reader.closed
            assert await is_waiting(made)  # it may have had its last answer only now
            clock.advance(31)
            node.lessor.tick(clock.monotonic())
            await made

    asyncio.run(run())


def test_a_pause_of_the_daemon_is_nobodys_silence(tmp_path: Path) -> None:
    clock = ManualClock()

    async def run() -> None:
        async with running(make(tmp_path, **BRIEF), given=world(clock)) as node:
            reader = LeaseClient(node, 1)
            await reader.hello()
            await reader.granted(lookup=A)
            clock.advance(3600)
            await asyncio.sleep(0.3)
            assert reader.held
            assert not reader.closed

    asyncio.run(run())


def test_a_session_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            reader, writer = LeaseClient(node, 1), LeaseClient(node, 2)
            await reader.hello()
            await writer.hello()
            await reader.granted(lookup=A)
            made = writer.asking(create=NEW)
            assert await is_waiting(made)
            node.lessor.hung_up(1, reader)
            assert await is_waiting(made)  # a broken stream says nothing about the leases
            await node.goodbye(reader.grant)
            await made

    asyncio.run(run())


def test_a_hot_directory_is_recalled_and_refused_for_a_while(tmp_path: Path) -> None:
    clock = ManualClock()

    async def run() -> None:
        async with running(make(tmp_path), given=world(clock)) as node:
            reader, writer = LeaseClient(node, 1, acks=True), LeaseClient(node, 2, acks=True)
            await reader.hello()
            await writer.hello()
            for i in range(65):
                assert await reader.granted(lookup=A) == {TOP}
                await writer.good(create={**NEW, "name": b"%d" % i})
            assert reader.heard() == writer.heard() == {TOP: None}
            assert not reader.held
            assert not writer.held
            assert not await reader.granted(lookup=A)
            assert (await writer.do(lookup=A)).code == Code.NOT_FOUND
            clock.advance(1.01)
            assert await reader.granted(lookup=A) == {TOP}

    asyncio.run(run())


def test_who_is_slow_to_acknowledge_is_granted_nothing_for_a_while(tmp_path: Path) -> None:
    clock = ManualClock()

    async def run() -> None:
        async with running(make(tmp_path), given=world(clock)) as node:
            reader, writer = LeaseClient(node, 1), TestClient(node, 2)
            await reader.hello()
            assert await reader.granted(lookup=A) == {TOP}
            made = asyncio.ensure_future(writer.good(create=NEW))
            assert await is_waiting(made)
            clock.advance(2)
            reader.acknowledge()
            await made
            assert not await reader.granted(lookup=A)
            clock.advance(19.9)
            assert not await reader.granted(lookup=A)
            clock.advance(0.2)
            assert await reader.granted(lookup=A) == {TOP}

    asyncio.run(run())


def test_who_owes_many_acknowledgements_is_granted_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("superfs.meta.recalls.UNANSWERED_MAX", 1)

    async def run() -> None:
        async with running(make(tmp_path)) as node:
            reader, writer = LeaseClient(node, 1), TestClient(node, 2)
            await reader.hello()
            assert await reader.granted(lookup=A) == {TOP}
            made = asyncio.ensure_future(writer.good(create=NEW))
            assert await is_waiting(made)
            assert not await reader.granted(lookup=A)
            reader.acknowledge()
            await made
            await reader.granted(lookup=A)
            assert reader.held == {TOP}

    asyncio.run(run())


def test_the_two_sides_of_the_bookkeeping_agree() -> None:
    held = Leases(per_session_max=2)
    assert held.grant(1, [10, 11]) == []
    assert held.grant(2, [10]) == []
    assert held.grant(1, [10, 12]) == [11]
    assert set(held.holders(10)) == {1, 2}
    assert 11 not in held
    assert (len(held), held.sessions) == (3, 2)
    held.give_up(2, 10)
    held.give_up(2, 10)
    held.forget(1)
    held.forget(1)
    assert (len(held), held.sessions) == (0, 0)
    assert 10 not in held


# ---- a restart


def test_after_a_restart_changes_wait_for_those_who_had_leases(tmp_path: Path) -> None:
    made = make(tmp_path)

    async def before() -> None:
        async with running(made) as node:
            for session in (1, 2):
                await LeaseClient(node, session).hello()
            await TestClient(node, 3).hello()
            await LeaseClient(node, 4).hello()
            await node.goodbye(LeaseClient(node, 4).grant)

    async def after() -> None:
        async with running(made) as node:
            one, two, plain = LeaseClient(node, 1), LeaseClient(node, 2), TestClient(node, 3)
            await plain.hello()
            assert node.grace.active
            first = asyncio.ensure_future(plain.good(create=NEW))
            gone = asyncio.ensure_future(plain.do(unlink=A))
            again = asyncio.ensure_future(plain.good(create=NEW))
            assert (await plain.do(lookup=A)).code == Code.NOT_FOUND
            opened = await plain.do(open={"inode": ROOT})
            assert not opened.code
            await one.hello()
            assert await is_waiting(first)
            await two.hello()
            assert not node.grace.active
            old, new = (await first).attr, (await again).attr
            assert not (await gone).code
            assert old.ino != new.ino
            assert await one.granted(lookup=A) == {TOP}

    async def without() -> None:
        async with running(made) as node:
            for session in (1, 2):
                await TestClient(node, session).hello()
        async with running(made) as node:
            assert not node.grace.active
            assert not node.grace.seconds
            await TestClient(node, 3).good(unlink=A)

    asyncio.run(before())
    asyncio.run(after())
    asyncio.run(without())


def test_what_waits_in_a_grace_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("superfs.meta.grace.HELD_BYTES_MAX", 1)
    made = make(tmp_path)

    async def before() -> None:
        async with running(made) as node:
            await LeaseClient(node, 1).hello()

    async def after() -> None:
        async with running(made) as node:
            plain = TestClient(node, 3)
            first = asyncio.ensure_future(plain.do(create=NEW))
            assert await is_waiting(first)
            assert (await plain.do(unlink=A)).code == Code.GRACE
            await LeaseClient(node, 1).hello()
            assert not (await first).code

    asyncio.run(before())
    asyncio.run(after())


def test_the_grace_ends_by_time_by_goodbye_and_with_the_daemon(tmp_path: Path) -> None:
    made = make(tmp_path)

    async def before() -> None:
        async with running(made) as node:
            await LeaseClient(node, 1).hello()

    async def stopped() -> None:
        async with running(made) as node:
            plain = TestClient(node, 3)
            held = asyncio.ensure_future(plain.do(create=NEW))
            assert await is_waiting(held)
            node.grace.stop()
            assert (await held).code == Code.UNAVAILABLE
            plain.seq -= 1

    async def timed_out() -> None:
        clock = ManualClock()
        async with running(made, given=world(clock)) as node:
            held = asyncio.ensure_future(TestClient(node, 3).do(create=NEW))
            clock.advance(29)
            node.grace.tick(clock.monotonic())
            assert await is_waiting(held)
            clock.advance(1)
            node.grace.tick(clock.monotonic())
            assert not (await held).code
            assert node.grace.seconds == pytest.approx(30)

    async def ended() -> None:
        async with running(made) as node:
            held = asyncio.ensure_future(TestClient(node, 5).do(unlink=A))
            assert await is_waiting(held)
            await node.goodbye(TestClient(node, 1).grant)
            assert not (await held).code

    for run in (before, stopped, timed_out, ended):
        asyncio.run(run())
