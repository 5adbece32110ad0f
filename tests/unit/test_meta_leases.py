"""Who is granted what, who is told of a change, and whose answer waits for that."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from superfs.client.codec import encode_create_many, pack_names
from superfs.core.attrs import Attr
from superfs.core.errors import Code
from superfs.core.ids import ROOT_GENERATION
from superfs.core.namespace.outcome import Entry
from superfs.core.namespace.txn import Ref
from unit.meta_leases import Late, LeaseClient, is_waiting
from unit.meta_node import ROOT, TestClient, make, ref, running

if TYPE_CHECKING:
    from pathlib import Path

TOP = int(ROOT["ino"])
A = {"dir": ROOT, "name": b"a"}
NEW = {**A, "mode": 0o100644, "exclusive": True}


def test_a_holder_is_told_before_the_change_is_answered(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            reader, writer = LeaseClient(node, 1), LeaseClient(node, 2)
            assert (await reader.hello()).lease_ms == 20_000
            await writer.hello()
            assert await reader.granted(lookup=A) == {TOP}  # it is not there, and may say so
            made = writer.asking(create=NEW)
            await reader.hears()
            assert await is_waiting(made)
            (told,) = reader.told
            assert told.number == 1
            reader.acknowledge()
            reply = await made
            attr = reply.results[0].attr
            assert told.commit == reply.commit
            assert reader.heard() == {TOP: {b"a", TOP, attr.ino}}
            assert set(reply.leases) == {TOP}
            assert not writer.told

    asyncio.run(run())


def test_who_wants_no_leases_gets_none_and_waits_all_the_same(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            reader, plain = LeaseClient(node, 1), TestClient(node, 2)
            await reader.hello()
            assert (await plain.hello()).lease_ms == 0
            await reader.granted(lookup=A)
            made = asyncio.ensure_future(plain.ask(plain.op(create=NEW)))
            assert await is_waiting(made)
            look = asyncio.ensure_future(plain.ask(plain.op(lookup=A)))
            assert await is_waiting(look)
            again = asyncio.ensure_future(plain.ask(plain.op(create=NEW)))
            assert await is_waiting(again)  # EXISTS tells as much
            reader.acknowledge()
            assert not (await made).leases
            assert (await look).results[0].attr.ino
            assert (await again).results[0].code == Code.EXISTS

    asyncio.run(run())


def test_the_reader_that_has_to_forget_waits_for_nobody(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            reader, writer = LeaseClient(node, 1), LeaseClient(node, 2)
            await reader.hello()
            await writer.hello()
            await reader.granted(lookup=A)
            made = writer.asking(create=NEW)
            assert await is_waiting(made)
            assert await reader.granted(lookup=A) == {TOP}
            assert not made.done()
            reader.acknowledge()
            await made

    asyncio.run(run())


def test_two_who_change_one_directory_wait_for_each_other_and_end(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            one, two = LeaseClient(node, 1), LeaseClient(node, 2)
            await one.hello()
            await two.hello()
            await one.granted(read_dir={"dir": ROOT})
            await two.granted(read_dir={"dir": ROOT})
            first = one.asking(create=NEW)
            second = two.asking(create={**NEW, "name": b"b"})
            assert await is_waiting(first)
            await two.hears()
            await one.hears()
            assert await is_waiting(second)
            assert b"a" in (two.heard()[TOP] or ())
            assert b"b" in (one.heard()[TOP] or ())
            assert b"a" not in (one.heard()[TOP] or ())
            one.acknowledge()
            await second
            two.acknowledge()
            await first

    asyncio.run(run())


def test_a_file_that_gets_a_second_name_leaves_the_lease_of_its_directory(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            reader, writer = LeaseClient(node, 1, acks=True), LeaseClient(node, 2)
            await reader.hello()
            await writer.hello()
            attr = (await writer.create(b"a")).attr
            assert await reader.granted(getattr={"inode": ref(attr)}) == {TOP}
            linked = await writer.good(link={"inode": ref(attr), "dir": ROOT, "name": b"b"})
            assert attr.ino in (reader.heard()[TOP] or ())
            assert await reader.granted(lookup=A) == {TOP, attr.ino}
            reader.told.clear()
            await writer.good(setattr={"inode": ref(linked.attr), "mask": 1, "mode": 0o600})
            assert reader.heard() == {attr.ino: {attr.ino}}

    asyncio.run(run())


def test_a_hello_gives_up_everything_and_a_newer_stream_wins(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            reader, writer = LeaseClient(node, 1), LeaseClient(node, 2)
            await reader.hello()
            await writer.hello()
            await reader.granted(lookup=A)
            made = writer.asking(create=NEW)
            assert await is_waiting(made)
            second = LeaseClient(node, 1)
            await second.hello()
            await made
            assert reader.closed
            assert not second.held
            assert not await reader.granted(lookup=A)  # on the old stream
            assert await second.granted(lookup=A) == {TOP}
            second.node.lessor.returned(1, second, [TOP])
            assert not second.held

    asyncio.run(run())


def test_a_reader_that_sees_an_unannounced_commit_waits_for_its_holders(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            holder, writer = LeaseClient(node, 1), LeaseClient(node, 3)
            reader = LeaseClient(node, 2, acks=True)
            for client in (holder, reader, writer):
                await client.hello()
            await holder.granted(lookup=A)
            late = Late(node)
            made = writer.asking(create=NEW)
            await late.first.wait()
            look = reader.asking(lookup=A)
            assert await is_waiting(look)  # durable, and nobody was told
            late.release()
            assert await is_waiting(look)
            assert await is_waiting(made)
            holder.acknowledge()
            reply = await look
            assert reply.results[0].attr.ino
            assert reply.commit == (await made).commit

    asyncio.run(run())


def test_an_answer_that_was_read_before_a_commit_is_a_grant_the_commit_finds(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            reader, writer = LeaseClient(node, 1), LeaseClient(node, 2)
            await reader.hello()
            await writer.hello()
            late = Late(node)
            made = writer.asking(create=NEW)
            await late.first.wait()
            # Read after the commit; what counts is that it is a holder when it is announced.
            look = reader.asking(lookup=A)
            await asyncio.sleep(0.01)
            assert reader.held == {TOP}
            late.release()
            assert await is_waiting(made)
            assert set((await look).leases) == {TOP}
            reader.acknowledge()
            await made

    asyncio.run(run())


def test_a_mutation_answered_from_its_record_waits_for_all_that_is_pending(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            reader, writer = LeaseClient(node, 1), LeaseClient(node, 2)
            await reader.hello()
            await writer.hello()
            await reader.granted(lookup=A)
            op = writer.op(create=NEW)
            made = asyncio.ensure_future(writer.ask(op))
            assert await is_waiting(made)
            again = asyncio.ensure_future(writer.ask(op))
            assert await is_waiting(again)
            reader.acknowledge()
            assert not (await again).leases
            assert (await made).leases

    asyncio.run(run())


def test_much_under_one_lease_recalls_the_whole_of_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            reader, writer = LeaseClient(node, 1, acks=True), LeaseClient(node, 2)
            await reader.hello()
            await writer.hello()
            await reader.granted(read_dir={"dir": ROOT})
            new = {**NEW, "exclusive": True}
            few = [writer.op(create={**new, "name": b"%d" % i}) for i in range(31)]
            await writer.ask(*few)
            assert len(reader.heard()[TOP] or ()) == 63
            assert reader.held == {TOP}
            many = [writer.op(create={**new, "name": b"m%d" % i}) for i in range(32)]
            await writer.ask(*many)
            assert reader.heard() == {TOP: None}
            assert not reader.held
            await writer.ask(writer.op(create=NEW))
            assert len(reader.told) == 2

    asyncio.run(run())


def test_an_access_time_is_no_news(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            reader, writer = LeaseClient(node, 1), LeaseClient(node, 2)
            await reader.hello()
            await writer.hello()
            attr = (await writer.create(b"a")).attr
            await reader.granted(lookup=A)
            later = (attr.atime_ns + 1).to_bytes(8, "little")
            inos, generations = (
                attr.ino.to_bytes(8, "little"),
                attr.generation.to_bytes(4, "little"),
            )
            columns = {"inos": inos, "generations": generations, "atimes": later}
            await writer.good(touch={"place": attr.place, **columns})
            assert not reader.told

    asyncio.run(run())


def test_what_a_stream_before_asked_for_is_news_to_the_session(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            before, after = LeaseClient(node, 1), LeaseClient(node, 1)
            await before.hello()
            await after.hello()
            await after.granted(lookup=A)
            await before.ask(before.op(create=NEW))
            assert b"a" in (after.heard()[TOP] or ())

    asyncio.run(run())


def test_many_new_files_are_told_and_listings_grant(tmp_path: Path) -> None:
    """What goes column by column past the single records."""

    async def run() -> None:
        async with running(make(tmp_path)) as node:
            reader, writer = LeaseClient(node, 1, acks=True), LeaseClient(node, 2)
            await reader.hello()
            await writer.hello()
            assert await reader.granted(lookup=A) == {TOP}
            files = [Entry(name, attr=Attr(0, 0, 0, 0o100644, 1, 0, 0)) for name in (b"a", b"b")]
            message = encode_create_many(Ref(TOP, ROOT_GENERATION, TOP), files, replace=False)
            reply = await writer.ask(writer.op(create_many=message))
            assert reply.results[0].listing.count == 2
            heard = reader.heard()[TOP]
            assert heard is not None
            assert {b"a", b"b", TOP} <= heard
            for verb in ({"read_dir": {"dir": ROOT, "plus": True}},
                         {"get_many": {"dir": ROOT, "names": pack_names([b"a"])}}):  # fmt: skip
                node.lessor.leases.forget(1)
                assert await reader.granted(**verb) == {TOP}

    asyncio.run(run())


def test_an_answer_of_a_commit_is_granted_before_the_rest_of_it_is_news(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            one, two = LeaseClient(node, 1), LeaseClient(node, 2)
            await one.hello()
            await two.hello()
            busy = asyncio.ensure_future(node.committer.run(lambda txn: time.sleep(0.1)))
            await asyncio.sleep(0.02)
            first = one.asking(create=NEW)
            second = two.asking(create={**NEW, "name": b"b"})
            await busy
            assert await is_waiting(first)
            assert await is_waiting(second)
            assert b"b" in (one.heard()[TOP] or ())
            assert b"a" in (two.heard()[TOP] or ())
            one.acknowledge()
            two.acknowledge()
            assert (await first).commit == (await second).commit

    asyncio.run(run())
