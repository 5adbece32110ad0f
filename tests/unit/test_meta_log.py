"""What a client did by itself is done again here, all of it or nothing, and once."""

from __future__ import annotations

import asyncio
import stat
from typing import TYPE_CHECKING, Any

import pytest

from superfs.core.attrs import unpack_attr
from superfs.core.errors import Code
from superfs.core.ids import directory_id
from superfs.meta.keys import Table
from superfs.v1 import meta_pb2
from unit.meta_exclusive import (
    NOW,
    ExclusiveClient,
    attrs_of,
    files,
    log,
    mkdir,
    plain,
    unlinks,
    until,
    with_directory,
)
from unit.meta_leases import LeaseClient
from unit.meta_node import ROOT, FakeDataDaemons, make, ref, running

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.meta.node import MetaNode
    from superfs.v1 import common_pb2

TOP = int(ROOT["ino"])


def test_files_of_a_log_are_there_for_all(tmp_path: Path) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        one, two = client.file(made.ino, 5), client.on_daemons(made.ino, 100_000)
        link = client.file(made.ino, 3, mode=stat.S_IFLNK | 0o777)
        group = [(b"one", one, b"hello"), (b"two", two, b""), (b"link", link, b"one")]
        after = plain(made, size=3, change=node.lessor.announced + 50, mtime_ns=NOW, ctime_ns=NOW)
        reply = await client.ask(client.op(log=log(files(made.ino, group), attrs=[after])))
        (result,) = reply.results
        assert not result.code, result
        assert result.number == reply.commit
        (told,) = attrs_of(result)
        assert (told.size, told.change) == (3, after.change)  # its own count goes on
        assert [d.ino for d in result.dirs] == [made.ino]
        other = LeaseClient(node, 2)
        await other.hello()
        listing = (
            await other.good(read_dir={"dir": ref(made), "plus": True, "inline_max": 8192})
        ).listing
        size = len(listing.attrs) // 3
        seen = {a.ino: a for a in (unpack_attr(listing.attrs, i * size) for i in range(3))}
        assert listing.inline == b"one" + b"hello"  # by name: the link, then the file
        for attr in (one, two, link):
            attr.change = result.number
            assert seen[attr.ino] == attr
        got = await other.good(read_inline={"inode": ref(link)})
        assert got.data == b"one"

    with_directory(tmp_path, body)


def test_a_tree_is_made_and_is_exclusive(tmp_path: Path) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        sub = directory_id(made.ino, b"sub")
        generation = client.generations[0]
        new = client.file(sub, 2)
        entries = (mkdir(made.ino, b"sub", generation), files(sub, [(b"f", new, b"hi")]))
        reply = await client.ask(client.op(log=log(*entries)))
        assert not reply.results[0].code, reply
        assert sub in client.mine
        assert set(reply.exclusive) == {made.ino, sub}
        found = (await client.good(lookup={"dir": ref(made), "name": b"sub"})).attr
        assert (found.ino, found.generation, found.size) == (sub, generation, 1)
        other = LeaseClient(node, 2)
        await other.hello()
        await other.good(lookup={"dir": {"ino": sub, "place": sub}, "name": b"f"})
        assert sub in client.recalled()

    with_directory(tmp_path, body)


def test_every_kind_of_entry(tmp_path: Path) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        into = ref(made)
        a, b = client.file(made.ino, 1), client.file(made.ino, 1)
        of_a = {"ino": a.ino, "generation": 1, "place": made.ino}
        entry = meta_pb2.LogEntry
        entries = [
            files(made.ino, [(b"a", a, b"a"), (b"b", b, b"b")]),
            entry(now_ns=NOW, rename={"old_dir": into, "old_name": b"a", "new_dir": into,
                                      "new_name": b"c"}),
            entry(now_ns=NOW, setattr={"inode": of_a, "mask": 1, "mode": 0o600}),
            entry(now_ns=NOW, publish={"inode": of_a, "writes": [{"offset": 1, "data": b"bc"}]}),
            entry(now_ns=NOW, setxattr={"inode": of_a, "name": b"user.x", "value": b"y"}),
            entry(now_ns=NOW, setxattr={"inode": of_a, "name": b"user.z", "value": b"y"}),
            entry(now_ns=NOW, removexattr={"inode": of_a, "name": b"user.x"}),
            mkdir(made.ino, b"s", client.generations[0]),
            entry(now_ns=NOW, rmdir={"dir": into, "name": b"s"}),
            unlinks(made.ino, b"b"),
        ]  # fmt: skip
        a.mode, a.size, a.flags = stat.S_IFREG | 0o600, 3, a.flags | 2
        done = await client.do(log=log(*entries, attrs=[a, plain(made, size=1)]))
        assert not done.code, done
        assert (await client.good(read_inline={"inode": of_a})).data == b"abc"
        assert (await client.good(listxattr={"inode": of_a})).data == b"user.z"
        names = (await client.good(read_dir={"dir": into})).listing
        assert names.count == 1
        assert (await client.do(lookup={"dir": into, "name": b"c"})).attr.ctime_ns >= NOW

    with_directory(tmp_path, body)


# ---- all or nothing


WRONG: list[dict[str, Any]] = [
    {"size": 7}, {"nlink": 3}, {"mode": stat.S_IFDIR | 0o700}, {"uid": 1}, {"gid": 1},
    {"generation": 9},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=lambda w: next(iter(w)))
def test_a_wrong_result_for_a_directory_refuses_all(tmp_path: Path, wrong: dict[str, Any]) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        new = client.file(made.ino)
        claimed = plain(made, **{"size": 1, **wrong})
        entries = log(files(made.ino, [(b"f", new, b"")]), attrs=[claimed])
        await nothing_of_it(client, made, entries)

    with_directory(tmp_path, body)


WRONG_FILE: list[dict[str, Any]] = [
    *WRONG[:2], {"mode": stat.S_IFREG | 0o600}, *WRONG[3:], {"rdev": 1}, {"flags": 3},
    {"data_generation": 1}, {"chains": (1,)}, {"ino": 0},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_FILE, ids=lambda w: next(iter(w)))
def test_a_wrong_result_for_a_file_refuses_all(tmp_path: Path, wrong: dict[str, Any]) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        new = client.file(made.ino)
        (entry,) = log(files(made.ino, [(b"f", new, b"")])).entries
        for name, value in wrong.items():
            setattr(new, name, value)
        await nothing_of_it(client, made, log(entry, attrs=[new]))

    with_directory(tmp_path, body)


async def nothing_of_it(
    client: ExclusiveClient, made: common_pb2.Attr, entries: meta_pb2.Log
) -> None:
    before = _records(client.node)
    op = client.op(log=entries)
    refused = (await client.send(op))[0]
    assert refused.code == Code.LOG_REFUSED, refused
    assert refused.detail
    assert _records(client.node) == before
    assert (await client.send(op))[0] == refused  # kept as any answer
    later = client.file(made.ino)
    good = log(files(made.ino, [(b"later", later, b"")]))
    assert not (await client.do(log=good)).code


def _records(node: MetaNode) -> dict[Table, dict[bytes, bytes]]:
    tables = (Table.DENTRY, Table.INODE, Table.DIRECTORY, Table.XATTR, Table.INLINE, Table.ORPHAN)
    with node.environment.reading() as rows:
        return {table: dict(rows.scan(table, b"")) for table in tables}


def test_a_rule_that_refuses_late_undoes_the_rest(tmp_path: Path) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        await client.create(b"other")
        entries = log(
            files(made.ino, [(b"f", client.file(made.ino, 2), b"xy")]),
            mkdir(made.ino, b"s", client.generations[0]),
            unlinks(made.ino, b"f"),
            unlinks(made.ino, b"nobody"),
        )
        respoiled = node.committer.respoiled
        await nothing_of_it(client, made, entries)
        assert node.committer.respoiled == respoiled  # and costs nobody else anything

    with_directory(tmp_path, body)


def test_data_of_files_that_will_never_be_goes(tmp_path: Path) -> None:
    datads = FakeDataDaemons()

    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        lost = client.on_daemons(made.ino, 100_000)
        group = files(made.ino, [(b"f", lost, b"")])
        refused = await client.do(log=log(group, unlinks(made.ino, b"g")))
        assert refused.code == Code.LOG_REFUSED
        await until(lambda: len(datads.reaped) == 2)  # at all of them
        assert {(ino, generation) for _, ino, generation in datads.reaped} == {(lost.ino, 1)}
        again = await client.do(log=log(group))
        assert again.code == Code.LOG_REFUSED  # its data is not there any more

    with_directory(tmp_path, body, datads)


def test_data_that_a_refused_log_has_written_to_another_file_goes(tmp_path: Path) -> None:
    datads = FakeDataDaemons()

    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        there = client.on_daemons(made.ino, 100_000)
        await client.good(log=log(files(made.ino, [(b"f", there, b"")])))
        inode = {"ino": there.ino, "generation": there.generation, "place": made.ino}
        publish = meta_pb2.LogEntry()
        publish.publish.inode.ino = there.ino
        publish.publish.inode.generation = there.generation
        publish.publish.inode.place = made.ino
        publish.publish.data_generation, publish.publish.size = 7, 200_000
        assert (await client.do(log=log(publish))).code == Code.LOG_REFUSED
        await until(lambda: bool(datads.reaped))
        assert {(ino, generation) for _, ino, generation in datads.reaped} == {(there.ino, 7)}
        assert (await client.good(getattr={"inode": inode})).attr.data_generation == 1

    with_directory(tmp_path, body, datads)


def test_data_of_a_log_that_its_client_has_given_up_goes(tmp_path: Path) -> None:
    datads = FakeDataDaemons()

    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        lost = client.on_daemons(made.ino, 100_000)
        later = client.file(made.ino)
        given_up = log(files(made.ino, [(b"f", lost, b"")]))
        given_up.lost = True
        before = _records(node)
        await client.good(log=given_up)
        assert _records(node) == before
        await until(lambda: len(datads.reaped) == 2)  # at all of them
        assert {(ino, generation) for _, ino, generation in datads.reaped} == {(lost.ino, 1)}
        assert not (await client.do(log=log(files(made.ino, [(b"f", later, b"")])))).code

    with_directory(tmp_path, body, datads)


# ---- once


def test_a_log_is_done_once(tmp_path: Path) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        op = client.op(log=log(files(made.ino, [(b"f", client.file(made.ino), b"")])))
        first = (await client.send(op))[0]
        assert not first.code
        assert (await client.send(op))[0] == first
        op.seq += 1
        client.seq += 1
        assert (await client.send(op))[0].code == Code.LOG_REFUSED

    with_directory(tmp_path, body)


def test_no_number_is_taken_twice_not_even_after_a_restart(tmp_path: Path) -> None:
    made_config = make(tmp_path)

    async def run() -> None:
        async with running(made_config) as node:
            client = ExclusiveClient(node, 1)
            await client.hello()
            made = await client.directory(b"d")
            first, second = client.file(made.ino), client.file(made.ino)
            assert not (await client.do(log=log(files(made.ino, [(b"a", second, b"")])))).code
            before = await client.do(log=log(files(made.ino, [(b"b", first, b"")])))
            assert before.code == Code.LOG_REFUSED
            await client.good(unlink={"dir": ref(made), "name": b"a"})
        async with running(made_config) as node:
            again = ExclusiveClient(node, 1)
            again.seq = client.seq
            await again.hello()
            again.settled()
            assert again.range == client.range
            refused = await again.do(log=log(files(made.ino, [(b"a", second, b"")])))
            assert refused.code == Code.LOG_REFUSED
            again.counter = 2
            third = again.file(made.ino)
            assert not (await again.do(log=log(files(made.ino, [(b"a", third, b"")])))).code
            other = ExclusiveClient(node, 2)
            await other.hello()
            assert other.range == client.range + 1

    asyncio.run(run())


def test_generations_are_the_sessions_own_and_used_once(tmp_path: Path) -> None:
    async def body(node: MetaNode, client: ExclusiveClient, made: common_pb2.Attr) -> None:
        other = ExclusiveClient(node, 2)
        await other.hello()
        await other.reserve(4)
        assert not set(other.generations) & set(client.generations)
        foreign = await client.do(log=log(mkdir(made.ino, b"s", other.generations[0])))
        assert foreign.code == Code.LOG_REFUSED
        assert not (await client.do(log=log(mkdir(made.ino, b"s", client.generations[3])))).code
        await client.good(rmdir={"dir": ref(made), "name": b"s"})
        for used in client.generations[:4]:
            again = await client.do(log=log(mkdir(made.ino, b"s", used)))
            assert again.code == Code.LOG_REFUSED
        wrong = mkdir(made.ino, b"s", client.generations[4])
        wrong.ino += 1
        assert (await client.do(log=log(wrong))).code == Code.LOG_REFUSED
        too_many = await client.do(reserve={"generations": 65_537})
        assert too_many.code == Code.TOO_LARGE

    with_directory(tmp_path, body)
