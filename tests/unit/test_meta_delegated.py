"""Every way in which one client comes upon what another holds exclusively: it waits, then all that
was done there by itself is seen."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from superfs.core.attrs import Set
from superfs.core.errors import Code
from superfs.meta import leases
from unit.meta_exclusive import ExclusiveClient, files, log, until
from unit.meta_leases import LeaseClient, is_waiting
from unit.meta_node import ROOT, FakeDataDaemons, TestClient, make, ref, running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from superfs.meta.node import MetaNode
    from superfs.meta.store import LmdbTxn
    from superfs.v1 import common_pb2, meta_pb2

TOP = int(ROOT["ino"])


class Shipping(ExclusiveClient):
    """Ships one file when it is asked to let go of a directory, as clients do."""

    __test__ = False

    def __init__(self, node: MetaNode, session: int) -> None:
        super().__init__(node, session, acks=False)
        self.unshipped: dict[int, bytes] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    def push(self, invalidate: meta_pb2.Invalidate) -> None:
        super().push(invalidate)
        task = asyncio.ensure_future(self._ship(invalidate))
        self.tasks.add(task)

    async def _ship(self, invalidate: meta_pb2.Invalidate) -> None:
        for recall in invalidate.recalls:
            name = self.unshipped.pop(recall.lease, None)
            if name is not None:
                entry = files(recall.lease, [(name, self.file(recall.lease), b"")])
                result = await self.do(log=log(entry))
                assert not result.code, result
        self.node.lessor.acknowledged(self.grant.session_id, self, invalidate.number)


def scene(
    tmp_path: Path, body: Callable[[MetaNode, Shipping, LeaseClient, list[common_pb2.Attr]], Any]
) -> None:
    """A client with /a, /a/b, /a/b/c and in each of them a file `new` that it has not shipped."""

    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client, other = Shipping(node, 1), LeaseClient(node, 2, acks=True)
            await client.hello()
            await other.hello()
            made: list[common_pb2.Attr] = []
            for name in (b"a", b"b", b"c"):
                made.append(await client.directory(name, ref(made[-1]) if made else ROOT))
            client.unshipped = {attr.ino: b"new" for attr in made}
            assert client.mine == {TOP, *(attr.ino for attr in made)}
            await body(node, client, other, made)
            for task in client.tasks:
                await task

    asyncio.run(run())


def test_a_tree_is_removed_with_all_that_is_not_shipped_yet(tmp_path: Path) -> None:
    async def body(
        node: MetaNode, client: Shipping, other: LeaseClient, made: list[common_pb2.Attr]
    ) -> None:
        tree = {"dir": ROOT, "name": b"a"}
        gone = await other.good(remove_tree={**tree, "limit": 100})
        assert (gone.number, gone.more) == (6, False)
        assert not client.unshipped
        assert len(client.told) <= 3  # not one message for each directory

    scene(tmp_path, body)


def test_a_tree_in_parts(tmp_path: Path) -> None:
    async def body(
        node: MetaNode, client: Shipping, other: LeaseClient, made: list[common_pb2.Attr]
    ) -> None:
        tree, removed = {"dir": ROOT, "name": b"a", "limit": 1}, 0
        more = True
        while more:
            part = await other.good(remove_tree=tree)
            removed, more = removed + part.number, part.more
        assert removed == 6

    scene(tmp_path, body)


def test_rename_into_and_over(tmp_path: Path) -> None:
    async def body(
        node: MetaNode, client: Shipping, other: LeaseClient, made: list[common_pb2.Attr]
    ) -> None:
        a, b, c = made
        moved = await other.good(
            rename={"old_dir": ref(b), "old_name": b"new", "new_dir": ref(c), "new_name": b"x"}
        )
        assert [d.size for d in moved.dirs] == [1, 2]
        assert a.ino not in client.recalled()
        await client.directory(b"empty", ref(a))
        into = {"old_dir": ref(b), "old_name": b"c", "new_dir": ref(a), "new_name": b"empty"}
        assert not (await other.do(rename=into)).code

    scene(tmp_path, body)


def test_a_second_name_for_what_is_not_shipped_yet(tmp_path: Path) -> None:
    async def body(
        node: MetaNode, client: Shipping, other: LeaseClient, made: list[common_pb2.Attr]
    ) -> None:
        attr = client.file(made[0].ino)
        client.counter -= 1  # it is the number that it will ship
        linked = await other.good(
            link={"inode": {"ino": attr.ino, "generation": 1, "place": made[0].ino},
                  "dir": ROOT, "name": b"second"}
        )  # fmt: skip
        assert linked.attr.nlink == 2

    scene(tmp_path, body)


def test_a_mode_is_told_with_the_name_in_the_directory_above(tmp_path: Path) -> None:
    async def body(
        node: MetaNode, client: Shipping, other: LeaseClient, made: list[common_pb2.Attr]
    ) -> None:
        _, b, c = made
        node.lessor.returned(1, client, [c.ino])
        respoiled = node.committer.respoiled
        changed = await other.good(setattr={"inode": ref(c), "mask": int(Set.MODE), "mode": 0o700})
        assert changed.attr.mode & 0o777 == 0o700
        assert client.recalled() == {b.ino}
        assert node.committer.respoiled == respoiled + 1  # it was found half-way

    scene(tmp_path, body)


def test_a_session_that_is_none_waits_too(tmp_path: Path) -> None:
    async def body(
        node: MetaNode, client: Shipping, other: LeaseClient, made: list[common_pb2.Attr]
    ) -> None:
        stranger = TestClient(node, 0)
        found = await stranger.good(read_dir={"dir": ref(made[0])})
        assert found.listing.count == 2

    scene(tmp_path, body)


def test_many_in_one_batch_are_recalled_at_once(tmp_path: Path) -> None:
    async def body(
        node: MetaNode, client: Shipping, other: LeaseClient, made: list[common_pb2.Attr]
    ) -> None:
        ops = [other.op(getattr={"inode": ref(attr)}) for attr in made]
        sizes = [result.attr.size for result in (await other.ask(*ops)).results]
        assert sizes == [2, 2, 1]
        assert len(client.told) == 1

    scene(tmp_path, body)


def test_a_batch_of_reads_and_changes(tmp_path: Path) -> None:
    async def body(
        node: MetaNode, client: Shipping, other: LeaseClient, made: list[common_pb2.Attr]
    ) -> None:
        a, b, c = made
        await other.good(getattr={"inode": ref(c)})
        new = {"name": b"f", "mode": 0o100644, "exclusive": True}
        reply = await other.ask(
            other.op(create={"dir": ref(c), **new}),
            other.op(read_dir={"dir": ref(a), "plus": True}),
            other.op(lookup={"dir": ref(b), "name": b"new"}),
            other.op(get_many={"dir": ref(a), "names": b"\1\0b\3\0new"}),
            other.op(create={"dir": ref(b), **new}),
            other.op(getattr={"inode": ROOT}),
        )
        assert [r.code for r in reply.results] == [0] * 6
        assert reply.results[1].listing.count == 2
        assert reply.results[3].listing.count == 2
        assert not reply.results[3].listing.codes
        assert reply.results[4].attr.place == b.ino

    scene(tmp_path, body)


def test_a_check_sees_all(tmp_path: Path) -> None:
    async def body(
        node: MetaNode, client: Shipping, other: LeaseClient, made: list[common_pb2.Attr]
    ) -> None:
        await node.recall_all()
        assert not client.unshipped
        assert not node.lessor.exclusives

    scene(tmp_path, body)


def test_what_is_removed_is_not_held_any_more(tmp_path: Path) -> None:
    async def body(
        node: MetaNode, client: Shipping, other: LeaseClient, made: list[common_pb2.Attr]
    ) -> None:
        _, b, c = made
        await client.good(rmdir={"dir": ref(b), "name": b"c"})
        assert c.ino not in node.lessor.exclusives.held
        assert b.ino in client.mine
        again = await client.directory(b"c", ref(b))
        assert again.ino == c.ino

    scene(tmp_path, body)


def test_what_is_held_exclusively_is_not_crowded_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases.Leases.__init__, "__defaults__", (5,))

    async def body(
        node: MetaNode, client: Shipping, other: LeaseClient, made: list[common_pb2.Attr]
    ) -> None:
        mine = client.mine
        for name in (b"x", b"y", b"z"):
            attr = (await other.good(mkdir={"dir": ref(made[2]), "name": name, "mode": 0o755})).attr
            await client.good(getattr={"inode": ref(attr)})
        assert client.mine == mine - client.recalled()
        assert client.mine <= client.held

    scene(tmp_path, body)


def test_the_end_of_a_truncation_is_told_and_ends_nothing(tmp_path: Path) -> None:
    datads = FakeDataDaemons()

    async def run() -> None:
        async with running(make(tmp_path), datads) as node:
            client = ExclusiveClient(node, 1)
            await client.hello()
            made = await client.directory(b"d")
            attr = client.on_daemons(made.ino, 100_000)
            assert not (await client.do(log=log(files(made.ino, [(b"f", attr, b"")])))).code
            datads.away = {11, 12}
            inode = {"ino": attr.ino, "generation": 1, "place": made.ino}
            cut = client.asking(setattr={"inode": inode, "mask": int(Set.SIZE), "size": 1})
            assert await is_waiting(cut)
            datads.away.clear()
            assert not (await cut).results[0].attr.flags
            await until(lambda: bool(client.told))
            assert client.heard() == {made.ino: {attr.ino}}
            assert made.ino in client.mine

    asyncio.run(run())


def test_what_finds_it_closed_too_often_is_told_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who gets it back each time before the one who waits has had his turn."""

    async def body(
        node: MetaNode, client: Shipping, other: LeaseClient, made: list[common_pb2.Attr]
    ) -> None:
        async def opened(closed: set[int], session: int) -> None:
            pass

        monkeypatch.setattr(node.lessor, "opened", opened)
        op = other.op(create={"dir": ref(made[0]), "name": b"f", "mode": 0o100644})
        refused = (await other.ask(op)).results[0]
        assert refused.code == Code.DELEGATED
        assert (await other.do(getattr={"inode": ref(made[0])})).code == Code.DELEGATED
        monkeypatch.undo()
        assert not (await other.ask(op)).results[0].code  # nothing of it was kept

    scene(tmp_path, body)


def test_nothing_of_the_daemon_itself_is_closed_to(tmp_path: Path) -> None:
    async def body(
        node: MetaNode, client: Shipping, other: LeaseClient, made: list[common_pb2.Attr]
    ) -> None:
        def look(txn: LmdbTxn) -> bool:
            return txn.get_directory(made[0].ino) is not None

        assert await node.committer.run(look)

    scene(tmp_path, body)
