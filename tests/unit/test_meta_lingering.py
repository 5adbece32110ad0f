"""A file that loses its last name while another client may just have opened it under a lease."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from superfs.core.errors import Code
from superfs.daemon.clock import ManualClock
from superfs.meta.heat import MESSAGES_MAX
from superfs.meta.keys import Table
from superfs.meta.lingering import LINGER_S
from superfs.meta.recalls import THINGS_MAX
from unit.meta_leases import LeaseClient
from unit.meta_node import ROOT, TestClient, make, ref, running, world
from unit.test_meta_limits import many

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.meta.node import MetaNode

A = {"dir": ROOT, "name": b"a"}
NEW = {**A, "mode": 0o100644, "exclusive": True}


def orphans(node: MetaNode) -> int:
    with node.environment.reading() as rows:
        return rows.state.counts[Table.ORPHAN]


async def with_contents(client: TestClient) -> dict[str, int]:
    made = (await client.good(create=NEW)).attr
    await client.good(publish={"inode": ref(made), "writes": [{"offset": 0, "data": b"hello"}]})
    return ref(made)


@pytest.mark.parametrize("verb", ["unlink", "rename", "remove_tree"])
def test_who_says_so_a_moment_later_has_it_open(tmp_path: Path, verb: str) -> None:
    async def run() -> None:
        clock = ManualClock()
        async with running(make(tmp_path), given=world(clock)) as node:
            reader, writer = LeaseClient(node, 1, acks=True), TestClient(node, 2)
            await reader.hello()
            await writer.hello()
            old = await with_contents(writer)
            assert (await reader.good(lookup=A)).attr.size == 5  # and opens it, telling nobody
            if verb == "rename":
                await writer.good(create={**NEW, "name": b"b"})
                await writer.good(
                    rename={"old_dir": ROOT, "old_name": b"b", "new_dir": ROOT, "new_name": b"a"}
                )
            elif verb == "unlink":
                await writer.good(unlink=A)
            else:
                await writer.good(remove_tree=A)
            assert (await reader.good(getattr={"inode": old})).attr.nlink == 0
            await reader.good(open={"inode": old})
            clock.advance(LINGER_S)
            assert await node.lingering.settle()
            assert (await reader.good(read_inline={"inode": old})).data == b"hello"
            await reader.good(release={"inodes": [old]})
            assert (await reader.do(read_inline={"inode": old})).code == Code.STALE
            assert not orphans(node)

    asyncio.run(run())


def test_who_does_not_has_not(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock()
        async with running(make(tmp_path), given=world(clock)) as node:
            readers = [LeaseClient(node, session, acks=True) for session in (1, 2)]
            writer = TestClient(node, 3)
            for client in (*readers, writer):
                await client.hello()
            old = await with_contents(writer)
            for reader in readers:
                await reader.good(lookup=A)
            await writer.good(unlink=A)
            assert orphans(node) == 1
            assert not await node.lingering.settle(), "not yet"
            await node.goodbye(readers[1].grant)
            clock.advance(LINGER_S)
            await node.lingering.settle()
            assert not orphans(node)
            assert (await readers[0].do(getattr={"inode": old})).code == Code.STALE

    asyncio.run(run())


def test_where_leases_were_just_recalled_everybody_may_have_it_open(tmp_path: Path) -> None:
    async def run() -> None:
        clock = ManualClock()
        async with running(make(tmp_path), given=world(clock)) as node:
            reader, writer = LeaseClient(node, 1, acks=True), TestClient(node, 2)
            await reader.hello()
            await writer.hello()
            old = await with_contents(writer)
            await reader.good(lookup=A)
            for number in range(MESSAGES_MAX + 1):
                await writer.create(b"%d" % number)
            assert not reader.held
            assert node.lessor.heat.refuses(int(ROOT["ino"]), clock.monotonic())
            await reader.good(lookup=A)
            assert not reader.held
            await writer.good(unlink=A)
            await reader.good(open={"inode": old})
            clock.advance(LINGER_S)
            await node.lingering.settle()
            assert (await reader.good(read_inline={"inode": old})).data == b"hello"
            await reader.good(release={"inodes": [old]})
            assert not orphans(node)

    asyncio.run(run())


def test_a_recall_late_in_a_second_counts_for_a_second(tmp_path: Path) -> None:
    """Who lost the lease a moment ago may have opened the file a moment before."""

    async def run() -> None:
        clock = ManualClock()
        async with running(make(tmp_path), given=world(clock)) as node:
            reader, writer = LeaseClient(node, 1, acks=True), TestClient(node, 2)
            await reader.hello()
            await writer.hello()
            old = await with_contents(writer)
            await reader.good(lookup=A)
            await writer.create(b"told")
            clock.advance(0.9)
            names = [b"%d" % number for number in range(THINGS_MAX + 1)]
            await writer.good(create_many=many(ROOT, names, b""))
            assert not reader.held
            clock.advance(0.5)
            node.lessor.tick(clock.monotonic())
            await writer.good(unlink=A)
            await reader.good(open={"inode": old})
            assert (await reader.good(read_inline={"inode": old})).data == b"hello"

    asyncio.run(run())


def test_nothing_lingers_for_who_removes_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client = LeaseClient(node, 1, acks=True)
            await client.hello()
            await with_contents(client)
            assert client.held
            await client.good(unlink=A)
            assert not orphans(node)

    asyncio.run(run())


def test_who_comes_back_after_a_restart_is_taken_at_his_word(tmp_path: Path) -> None:
    async def run() -> None:
        made = make(tmp_path)
        async with running(made) as node:
            reader, writer = LeaseClient(node, 1, acks=True), TestClient(node, 2)
            await reader.hello()
            await writer.hello()
            await with_contents(writer)
            await reader.good(lookup=A)
            await writer.good(unlink=A)
        async with running(made) as node:
            assert orphans(node) == 1
            await LeaseClient(node, 1).hello()
            assert not orphans(node)

    asyncio.run(run())
