"""Who is granted a directory exclusively, and how it is got back."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from superfs.client.codec import encode_touch
from superfs.core.errors import Code
from superfs.core.ids import directory_id
from superfs.core.namespace.txn import Ref
from superfs.daemon.clock import ManualClock
from unit.meta_exclusive import ExclusiveClient, until
from unit.meta_leases import Late, LeaseClient, is_waiting
from unit.meta_node import ROOT, TestClient, make, ref, running, world

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.meta.node import MetaNode

TOP = int(ROOT["ino"])
NEW = {"mode": 0o100644, "exclusive": True}


def test_a_new_directory_is_its_makers(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client, other = ExclusiveClient(node, 1), ExclusiveClient(node, 2)
            first, second = await client.hello(), await other.hello()
            assert 0 < first.number_range != second.number_range > 0
            assert first.now_ns
            made = await client.directory(b"d")
            assert client.mine == {TOP, made.ino}  # the root too: nobody else has a lease on it
            assert client.held >= client.mine

    asyncio.run(run())


def test_only_hosts_that_may_write_get_any(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            plain = LeaseClient(node, 1)
            assert not (await plain.hello()).number_range
            made = {"dir": ROOT, "name": b"d", "mode": 0o755}
            assert not (await plain.ask(plain.op(mkdir=made))).exclusive
            user = ExclusiveClient(node, 2)
            user.grant = TestClient(node, 2, "user", 0).grant
            assert not (await user.hello()).number_range
            refused = await user.do(reserve={"generations": 1})
            assert refused.code == Code.FORBIDDEN
            assert (await user.do(log={})).code == Code.FORBIDDEN

    asyncio.run(run())


def test_who_asks_waits_until_the_holder_has_let_go(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client, other = ExclusiveClient(node, 1, acks=False), LeaseClient(node, 2)
            await client.hello()
            await other.hello()
            made = await client.directory(b"d")
            asks = [
                other.asking(getattr={"inode": ref(made)}),
                other.asking(read_dir={"dir": ref(made)}),
                other.asking(create={"dir": ref(made), "name": b"f", **NEW}),
                other.asking(setattr={"inode": ref(made), "mask": 1, "mode": 0o700}),
                other.asking(read_dir={"dir": ROOT, "plus": True}),
            ]
            await client.hears()
            for ask in asks:
                assert await is_waiting(ask)
            assert client.recalled() == {TOP, made.ino}
            client.lets_go()
            for ask in asks:
                reply = await ask
                assert not reply.results[0].code, reply
                assert not reply.exclusive
            assert not client.mine

    asyncio.run(run())


def test_access_times_have_nothing_shipped(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client, other = ExclusiveClient(node, 1), ExclusiveClient(node, 2)
            await client.hello()
            await other.hello()
            made = await client.directory(b"d")
            file = (await client.good(create={"dir": ref(made), "name": b"f", **NEW})).attr
            touch = encode_touch([(Ref(file.ino, file.generation, made.ino), file.atime_ns + 5)])
            await other.good(touch=touch)
            assert not client.recalled()
            before = (await client.good(getattr={"inode": ref(file)})).attr.atime_ns
            assert before == file.atime_ns, "passed over"
            await client.good(touch=touch)
            after = (await client.good(getattr={"inode": ref(file)})).attr.atime_ns
            assert after == file.atime_ns + 5

    asyncio.run(run())


def test_a_lease_of_which_only_the_right_to_change_is_returned_is_shared(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client, other = ExclusiveClient(node, 1), LeaseClient(node, 2)
            await client.hello()
            await other.hello()
            made = await client.directory(b"d")
            node.lessor.returned(client.grant.session_id, client, (), (made.ino,))
            assert made.ino not in client.mine
            await other.good(create={"dir": ref(made), "name": b"f", **NEW})
            assert not client.recalled()
            assert b"f" in (client.heard()[made.ino] or ())

    asyncio.run(run())


def test_a_downgraded_lease_is_shared_and_told_of_what_follows(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client, other = ExclusiveClient(node, 1), LeaseClient(node, 2)
            await client.hello()
            await other.hello()
            made = await client.directory(b"d")
            await other.good(create={"dir": ref(made), "name": b"f", **NEW})
            first, *rest = client.told
            assert [r.exclusive for r in first.recalls] == [True]
            assert not any(r.exclusive for told in rest for r in told.recalls)
            heard = client.heard()[made.ino]
            assert heard is not None
            assert b"f" in heard
            assert made.ino in client.held

    asyncio.run(run())


def test_what_another_has_a_lease_on_is_not_granted(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client, reader = ExclusiveClient(node, 1), LeaseClient(node, 2, acks=True)
            await client.hello()
            await reader.hello()
            await reader.granted(read_dir={"dir": ROOT})
            create = {"dir": ROOT, "name": b"f", **NEW}
            assert not (await client.ask(client.op(create=create))).exclusive
            assert reader.heard()[TOP] is not None  # it is news, and the lease stands
            assert TOP in reader.held

    asyncio.run(run())


def test_an_old_lease_of_others_is_recalled_for_the_next_change(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client, reader = ExclusiveClient(node, 1), LeaseClient(node, 2, acks=True)
            await client.hello()
            await reader.hello()
            await reader.granted(read_dir={"dir": ROOT})
            node.lessor.leases._held[2][TOP] -= 6.0
            create = {"dir": ROOT, "name": b"f", **NEW}
            assert not (await client.ask(client.op(create=create))).exclusive
            assert reader.heard()[TOP] is None
            assert TOP not in reader.held
            again = client.op(create={**create, "name": b"g"})
            assert list((await client.ask(again)).exclusive) == [TOP]

    asyncio.run(run())


def test_after_a_recall_there_is_none_for_a_while(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client, other = ExclusiveClient(node, 1), LeaseClient(node, 2)
            await client.hello()
            await other.hello()
            made = await client.directory(b"d")
            await other.good(getattr={"inode": ref(made)})
            node.lessor.leases.give_up(2, made.ino)
            create = {"dir": ref(made), "name": b"f", **NEW}
            assert not (await client.ask(client.op(create=create))).exclusive
            now = node.lessor._now()
            granting = node.lessor.granting
            assert granting.refuses(made.ino, now)
            assert not granting.refuses(made.ino, now + 1.1)
            granting.recalled(made.ino, now + 1.1)
            assert granting.refuses(made.ino, now + 1.1 + 1.9)  # twice as long
            assert not granting.refuses(made.ino, now + 1.1 + 2.1)

    asyncio.run(run())


def test_where_two_change_names_nobody_is_granted_anything(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client, plain = ExclusiveClient(node, 1), TestClient(node, 2)
            await client.hello()
            await plain.hello()
            await plain.create(b"a")
            assert not (await client.ask(client.op(create={"dir": ROOT, "name": b"b", **NEW}))
                        ).exclusive  # fmt: skip
            granting, now = node.lessor.granting, node.lessor._now()
            assert granting.refuses(TOP, now + 9.5)
            assert not granting.refuses(TOP, now + 10.5)

    asyncio.run(run())


def test_a_job_behind_the_grant_in_one_transaction_finds_it_closed(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client, other = ExclusiveClient(node, 1, acks=False), LeaseClient(node, 2)
            await client.hello()
            await other.hello()
            parent = await client.directory(b"p")
            assert client.mine == {TOP, parent.ino}
            child = directory_id(parent.ino, b"c")
            gate = _Gate(node)
            making = client.asking(mkdir={"dir": ref(parent), "name": b"c", "mode": 0o755})
            dir_ref = {"ino": child, "generation": 0, "place": child}
            asking = other.asking(create={"dir": dir_ref, "name": b"f", **NEW})
            await gate.open()
            reply = await making
            assert child in reply.exclusive
            await client.hears()
            assert await is_waiting(asking)
            client.lets_go()
            assert not (await asking).results[0].code

    asyncio.run(run())


def test_a_reader_between_commit_and_announcement_ends_the_grant(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client, other = ExclusiveClient(node, 1, acks=False), LeaseClient(node, 2, acks=True)
            await client.hello()
            await other.hello()
            late = Late(node)
            making = client.asking(mkdir={"dir": ROOT, "name": b"d", "mode": 0o755})
            await late.first.wait()
            asking = other.asking(read_dir={"dir": ROOT, "plus": True})
            assert await is_waiting(asking)  # until it is announced
            late.release()
            assert (await asking).results[0].listing.count == 1
            assert not (await making).exclusive
            assert not client.told  # it was told of nothing that could be recalled
            assert not node.lessor.exclusives

    asyncio.run(run())


def test_a_holder_that_is_silent_loses_all(tmp_path: Path) -> None:
    clock = ManualClock()

    async def run() -> None:
        async with running(make(tmp_path), given=world(clock)) as node:
            client, other = ExclusiveClient(node, 1, acks=False), LeaseClient(node, 2)
            await client.hello()
            await other.hello()
            made = await client.directory(b"d")
            asking = other.asking(getattr={"inode": ref(made)})
            await client.hears()
            clock.advance(31)
            other.keep_alive()
            node.lessor.tick(clock.monotonic())
            assert not (await asking).results[0].code
            assert client.closed
            assert not client.mine
            assert not client.held

    asyncio.run(run())


def test_a_holder_that_lives_but_does_not_let_go_loses_its_stream(tmp_path: Path) -> None:
    clock = ManualClock()

    async def run() -> None:
        async with running(make(tmp_path), given=world(clock)) as node:
            client, other = ExclusiveClient(node, 1, acks=False), LeaseClient(node, 2)
            await client.hello()
            await other.hello()
            made = await client.directory(b"d")
            asking = other.asking(getattr={"inode": ref(made)})
            await client.hears()
            for _ in range(2):
                assert not client.closed
                clock.advance(16)
                client.keep_alive()
                other.keep_alive()
                node.lessor.tick(clock.monotonic())
            assert client.closed
            assert await is_waiting(asking)
            clock.advance(31)
            other.keep_alive()
            node.lessor.tick(clock.monotonic())
            assert not (await asking).results[0].code
            assert not client.mine

    asyncio.run(run())


def test_after_a_hello_all_stays_closed_until_it_has_settled(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client, other = ExclusiveClient(node, 1, acks=False), LeaseClient(node, 2)
            first = await client.hello()
            await other.hello()
            made = await client.directory(b"d")
            again = await client.hello()
            assert again.number_range == first.number_range
            asking = other.asking(getattr={"inode": ref(made)})
            assert await is_waiting(asking)
            assert not client.told
            await client.good(create={"dir": ref(made), "name": b"f", **NEW})  # what is left
            assert await is_waiting(asking)
            client.settled()
            assert (await asking).results[0].attr.size == 1
            assert not client.mine

    asyncio.run(run())


def test_settling_has_its_time_too(tmp_path: Path) -> None:
    clock = ManualClock()

    async def run() -> None:
        async with running(make(tmp_path), given=world(clock)) as node:
            client, other = ExclusiveClient(node, 1, acks=False), LeaseClient(node, 2)
            await client.hello()
            await other.hello()
            made = await client.directory(b"d")
            await client.hello()
            asking = other.asking(getattr={"inode": ref(made)})
            for _ in range(2):
                assert await is_waiting(asking)
                clock.advance(16)
                await client.hello()  # wins nothing
                other.keep_alive()
                node.lessor.tick(clock.monotonic())
            assert not (await asking).results[0].code
            assert not client.mine

    asyncio.run(run())


def test_it_is_returned(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client, other = ExclusiveClient(node, 1, acks=False), LeaseClient(node, 2)
            await client.hello()
            await other.hello()
            made = await client.directory(b"d")
            node.lessor.returned(1, client, [made.ino])
            assert client.mine == {TOP}
            await other.good(getattr={"inode": ref(made)})
            assert not client.told

    asyncio.run(run())


class _Gate:
    """Holds the writer, so that what is submitted meanwhile goes into one transaction."""

    def __init__(self, node: MetaNode) -> None:
        self._node = node
        self._open = threading.Event()
        self._held = asyncio.ensure_future(node.committer.run(lambda txn: self._open.wait(20)))

    async def open(self) -> None:
        await until(lambda: self._node.committer.waiting >= 2)
        self._open.set()
        await self._held
