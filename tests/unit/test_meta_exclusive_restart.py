"""What a restarted daemon waits for: clients that may have done something by themselves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from superfs.core.errors import Code
from superfs.daemon.clock import ManualClock
from unit.meta_exclusive import ExclusiveClient, files, log
from unit.meta_leases import LeaseClient, is_waiting
from unit.meta_node import ROOT, TestClient, make, ref, running, world

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.meta.config import MetadConfig
    from superfs.meta.node import MetaNode
    from superfs.v1 import common_pb2

NEW = {"mode": 0o100644, "exclusive": True}


async def before(
    config: MetadConfig, *sessions: int
) -> tuple[list[ExclusiveClient], list[common_pb2.Attr]]:
    """Clients with a directory of their own each, of a daemon that is no more."""
    clients, made = [], []
    async with running(config) as node:
        for session in sessions:
            client = ExclusiveClient(node, session)
            await client.hello()
            made.append(await client.directory(b"d%d" % session))
            clients.append(client)
    return clients, made


def again(node: MetaNode, client: ExclusiveClient) -> ExclusiveClient:
    client.node = node
    return client


def test_others_wait_with_questions_until_all_is_shipped(tmp_path: Path) -> None:
    config = make(tmp_path)

    async def run() -> None:
        (client,), (made,) = await before(config, 1)
        async with running(config) as node:
            other = LeaseClient(node, 2, acks=True)
            await other.hello()
            reading = other.asking(read_dir={"dir": ref(made)})
            making = other.asking(create={"dir": ROOT, "name": b"f", **NEW})
            assert await is_waiting(reading)
            await again(node, client).hello()
            assert await is_waiting(reading)
            assert await is_waiting(making)
            # What it is waited for runs; what else it wants to change waits as everybody's.
            entries = log(files(made.ino, [(b"f", client.file(made.ino), b"")]))
            assert not (await client.do(log=entries)).code
            await client.good(getattr={"inode": ref(made)})
            own = client.asking(create={"dir": ref(made), "name": b"g", **NEW})
            assert await is_waiting(own)
            assert await is_waiting(reading)
            client.settled()
            assert (await reading).results[0].listing.count == 1
            assert not (await making).results[0].code
            assert not (await own).results[0].code

    asyncio.run(run())


def test_two_who_have_something_to_ship_wait_for_each_other_to_read(tmp_path: Path) -> None:
    config = make(tmp_path)

    async def run() -> None:
        (one, two), (first, second) = await before(config, 1, 2)
        async with running(config) as node:
            await again(node, one).hello()
            await again(node, two).hello()
            reading = one.asking(getattr={"inode": ref(second)})
            assert await is_waiting(reading)
            entries = log(files(second.ino, [(b"f", two.file(second.ino), b"")]))
            assert not (await two.do(log=entries)).code
            two.settled()
            assert (await reading).results[0].attr.size == 1
            own = two.asking(read_dir={"dir": ref(first)})
            assert await is_waiting(own)
            one.settled()
            await own

    asyncio.run(run())


def test_who_never_comes_back_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    config, clock = make(tmp_path), ManualClock()

    async def run() -> None:
        (one, two, three), _ = await before(config, 1, 2, 3)
        async with running(config, given=world(clock)) as node:
            other = TestClient(node, 9)
            reading = asyncio.ensure_future(other.ask(other.op(getattr={"inode": ROOT})))
            await again(node, one).hello()
            await node.goodbye(three.grant)
            clock.advance(29)
            node.grace.tick(clock.monotonic())
            await again(node, two).hello()
            clock.advance(2)
            node.grace.tick(clock.monotonic())
            assert await is_waiting(reading)  # the second has the rest of its time
            clock.advance(28)
            node.grace.tick(clock.monotonic())
            await reading

    asyncio.run(run())


def test_who_wants_nothing_exclusively_any_more_has_settled(tmp_path: Path) -> None:
    config = make(tmp_path)

    async def run() -> None:
        _, (made,) = await before(config, 1)
        async with running(config) as node:
            plain, other = LeaseClient(node, 1), TestClient(node, 2)
            reading = asyncio.ensure_future(other.ask(other.op(getattr={"inode": ref(made)})))
            assert await is_waiting(reading)
            await plain.hello()
            await reading

    asyncio.run(run())


def test_who_has_returned_all_is_not_waited_for(tmp_path: Path) -> None:
    config, clock = make(tmp_path), ManualClock()

    async def run() -> None:
        async with running(config, given=world(clock)) as node:
            client = ExclusiveClient(node, 1)
            await client.hello()
            made = await client.directory(b"d")
            node.lessor.returned(1, client, list(client.mine))
            held = node.sessions.get(1)
            assert held is not None
            assert held.may_hold
            clock.advance(11)
            await node.expiry._forget_exclusive(clock.monotonic())
            assert not held.may_hold
        async with running(config) as node:
            other = TestClient(node, 2)
            await other.good(getattr={"inode": ref(made)})
            client.node = node
            await client.hello()
            client.settled()
            await client.directory(b"e")  # on record again
        async with running(config) as node:
            other = TestClient(node, 2)
            other.seq = 10
            reading = asyncio.ensure_future(other.ask(other.op(getattr={"inode": ref(made)})))
            assert await is_waiting(reading)
            node.grace.settled(1)
            await reading

    asyncio.run(run())


def test_a_log_that_comes_late_is_compared_with_what_is_there(tmp_path: Path) -> None:
    config, clock = make(tmp_path), ManualClock()

    async def run() -> None:
        (client,), (made,) = await before(config, 1)
        async with running(config, given=world(clock)) as node:
            clock.advance(31)
            node.grace.tick(clock.monotonic())
            other = LeaseClient(node, 2)
            await other.hello()
            await other.good(create={"dir": ref(made), "name": b"f", **NEW})
            await again(node, client).hello()
            group = files(made.ino, [(b"f", client.file(made.ino), b"")])
            refused = await client.do(log=log(group))
            assert refused.code == Code.LOG_REFUSED
            late = files(made.ino, [(b"g", client.file(made.ino), b"")])
            taken = asyncio.ensure_future(client.do(log=log(late)))
            await other.hears()
            other.acks = True
            other.acknowledge()
            assert not (await taken).code

    asyncio.run(run())
