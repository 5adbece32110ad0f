"""A full metadata store: new things are refused, removals go on, and so does everything after."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING

from superfs.core.attrs import Set
from superfs.core.errors import Code
from superfs.meta import environment as environments
from unit.meta_exclusive import ExclusiveClient, files, log, unlinks
from unit.meta_node import KIB, ROOT, TestClient, everybody_had_a_turn, make, ref, running, world

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from superfs.meta.config import MetadConfig
    from superfs.v1 import meta_pb2

SMALL = {"map_initial_bytes": 3072 * KIB, "reserve_bytes": 1024 * KIB,
         "grow_below_bytes": 1280 * KIB, "map_step_bytes": 1024 * KIB}  # fmt: skip


def create(client: TestClient, name: bytes, size: int = 3000) -> meta_pb2.Op:
    return client.op(create={"dir": ROOT, "name": name, "mode": 0o100644, "exclusive": True,
                             "inline": b"x" * size})  # fmt: skip


async def fill(client: TestClient, prefix: bytes = b"f") -> int:
    """Files, in batches, until not one more has room; how many there are."""
    made = 0
    while True:
        names = [prefix + b"%d" % (made + i) for i in range(20)]
        results = await client.send(*(create(client, name) for name in names))
        client.acked_below = client.seq + 1
        good = sum(not r.code for r in results)
        made += good
        assert made < 20_000, "it never gets full"
        assert {r.code for r in results} <= {0, Code.NO_SPACE}
        assert [r.code for r in results] == sorted(r.code for r in results)
        if not good:
            return made


async def full_and_back(made: MetadConfig) -> int:
    async with running(made) as node:
        client = TestClient(node)
        await client.hello()
        count = await fill(client)
        assert (await client.send(create(client, b"d")))[0].code == Code.NO_SPACE
        # what is there can be read, removed and cut, down to the last one
        first = await client.good(lookup={"dir": ROOT, "name": b"f0"})
        shrink = {"inode": ref(first.attr), "mask": int(Set.SIZE), "size": 10}
        assert (await client.good(setattr=shrink)).attr.size == 10
        for start in range(0, count, 100):
            names = [b"f%d" % i for i in range(start, min(start + 100, count))]
            results = await client.send(
                *(client.op(unlink={"dir": ROOT, "name": name}) for name in names)
            )
            assert not any(r.code for r in results)
            client.acked_below = client.seq + 1
        # and then there is as much room as before
        again = await fill(client, b"g")
        assert again >= count * 0.8, (again, count)
        assert node.committer.respoiled == 0
        return count


def test_the_end_of_the_map(tmp_path: Path) -> None:
    made = make(tmp_path, map_max_bytes=3072 * KIB, **SMALL)
    assert asyncio.run(full_and_back(made)) > 100


def test_the_map_grows_ahead_of_need(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    for path in (small, large):
        path.mkdir()
    one = asyncio.run(full_and_back(make(small, map_max_bytes=3072 * KIB, **SMALL)))
    two = asyncio.run(full_and_back(make(large, map_max_bytes=6144 * KIB, **SMALL)))
    assert two > 2 * one


def test_one_batch_larger_than_the_room_that_is_left(tmp_path: Path) -> None:
    """The map grows for it, as often as needed: NO_SPACE is for when it cannot."""
    made = make(tmp_path, map_max_bytes=1 << 30, **SMALL)

    async def run() -> None:
        async with running(made) as node:
            client = TestClient(node)
            await client.hello()
            results = await client.send(*(create(client, b"f%d" % i) for i in range(1000)))
            assert {r.code for r in results} == {0}

    asyncio.run(run())


def test_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC where the file would grow: it stays as long as it was, nothing is lost, and growing
    is tried again later."""
    made = make(tmp_path, map_max_bytes=1 << 40, **SMALL)
    before = environments.data_file(tmp_path).stat().st_size

    def no_room(_descriptor: int, _offset: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    async def run() -> None:
        async with running(made) as node:
            client = TestClient(node)
            await client.hello()
            with monkeypatch.context() as patch:
                patch.setattr(os, "posix_fallocate", no_room)
                count = await fill(client)
                assert environments.data_file(tmp_path).stat().st_size == before
            node.committer._grow_not_before = 0.0
            results = await client.send(create(client, b"more"))
            assert not results[0].code
            assert environments.data_file(tmp_path).stat().st_size > before
            assert count > 100

    asyncio.run(run())


def test_an_error_at_commit_is_the_end(tmp_path: Path) -> None:
    """Nobody knows what a later commit would make durable: nothing is answered any more."""
    made = make(tmp_path)
    given = world()
    told: list[str] = []

    def fatal(message: str, code: int = 75) -> None:
        told.append(message)

    given.fatal = fatal  # type: ignore[assignment]

    async def run() -> None:
        async with running(made, given=given) as node:
            client = TestClient(node)
            await client.hello()
            await client.create(b"kept")
            for _ in range(2):  # at its start a node clears up by itself, in two transactions
                await everybody_had_a_turn()
            given.failpoints.arm("metad.commit.before=error")
            assert (await client.send(create(client, b"lost")))[0].code == Code.UNAVAILABLE
            assert told
            given.failpoints.arm("")
            assert (await client.send(create(client, b"lost")))[0].code == Code.UNAVAILABLE
            found = await client.send(
                client.op(lookup={"dir": ROOT, "name": b"kept"}),
                client.op(lookup={"dir": ROOT, "name": b"lost"}),
            )
            assert [r.code for r in found] == [0, Code.NOT_FOUND]

    asyncio.run(run())


def test_nothing_is_granted_that_there_is_no_room_for(tmp_path: Path) -> None:
    """A client that does things by itself cannot be told any more that the disk is full."""
    small = make(tmp_path, **SMALL, map_max_bytes=3072 * KIB)

    async def run() -> None:
        async with running(small) as node:
            client = ExclusiveClient(node, 1)
            await client.hello()
            reply = await client.ask(client.op(mkdir={"dir": ROOT, "name": b"d", "mode": 0o755}))
            assert not reply.results[0].code
            assert not reply.exclusive
            node.lessor.granting.room = lambda clients: clients < 2
            other = ExclusiveClient(node, 2)
            await other.hello()
            await client.directory(b"e")
            await client.directory(b"f")
            reply = await other.ask(other.op(mkdir={"dir": ROOT, "name": b"g", "mode": 0o755}))
            assert not reply.exclusive, "there is room for the log of one"

    asyncio.run(run())


def test_a_log_without_room_is_not_done_and_may_come_again(tmp_path: Path) -> None:
    """With the numbers that it had: nothing of it was refused for good."""
    small = make(tmp_path, **SMALL, map_max_bytes=3072 * KIB)

    async def run() -> None:
        async with running(small) as node:
            node.lessor.granting.room = lambda _: True  # else there would be no log at all
            client = ExclusiveClient(node, 1)
            await client.hello()
            made = await client.directory(b"d")
            count, code = 0, 0
            while not code:
                group = [
                    (b"%d-%d" % (count, i), client.file(made.ino, 3000), b"x" * 3000)
                    for i in range(20)
                ]
                client.acked_below = client.seq + 1
                code = (await client.do(log=log(files(made.ino, group)))).code
                count += not code
                assert count < 1000, "it never gets full"
            assert code == Code.NO_SPACE
            assert (await client.good(getattr={"inode": ref(made)})).attr.size == 20 * count
            gone = [b"%d-%d" % (n, i) for n in range(count) for i in range(20)]
            assert not (await client.do(log=log(unlinks(made.ino, *gone)))).code
            assert not (await client.do(log=log(files(made.ino, group)))).code

    asyncio.run(run())
