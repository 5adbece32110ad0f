"""What one client asks for at once: no answer that does not fit, nobody else kept waiting."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from superfs.core.attrs import Attr, pack_attr
from superfs.core.errors import Code
from superfs.core.limits import MESSAGE_BYTES_MAX, REMOVE_TREE_ENTRIES_MAX
from superfs.meta import batch as batches
from superfs.meta import commit, opens
from superfs.meta.keys import Table
from superfs.v1 import meta_pb2
from unit.meta_node import ROOT, TestClient, make, ref, running
from unit.test_meta_node import count

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def many(directory: dict[str, int], names: list[bytes], contents: bytes) -> dict[str, Any]:
    """What create_many takes."""
    attr = pack_attr(Attr(0, 0, 0, 0o100644, 1, 0, 0, size=len(contents)))
    return {
        "dir": directory,
        "count": len(names),
        "names": b"".join(len(n).to_bytes(2, "little") + n for n in names),
        "attrs": attr * len(names),
        "inline": contents * len(names),
        "inline_lengths": len(contents).to_bytes(4, "little") * len(names),
    }


def test_reads_of_one_batch_fit_into_one_answer(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client = TestClient(node)
            await client.hello()
            names = [b"%04d" % i for i in range(4096)]
            for part in range(0, 4096, 1024):
                await client.good(create_many=many(ROOT, names[part : part + 1024], b"x" * 510))
            column = b"".join(len(n).to_bytes(2, "little") + n for n in names)
            ask = client.op(get_many={"dir": ROOT, "names": column, "inline_max": 4096})
            batch = meta_pb2.Batch(ops=[ask] * 3)
            reply = await node.execute(client.grant, batch)
            assert reply.ByteSize() <= MESSAGE_BYTES_MAX
            assert [r.code for r in reply.results] == [0, Code.BUSY, Code.BUSY]
            assert reply.results[0].listing.count == 4096
            batch.ops.append(client.op(mkdir={"dir": ROOT, "name": b"d", "mode": 0o755}))
            reply = await node.execute(client.grant, batch)
            assert [r.code for r in reply.results] == [0, Code.BUSY, Code.BUSY, 0]

    asyncio.run(run())


def test_requests_that_wait_for_the_writer_have_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "QUEUE_BYTES_MAX", 10_000)

    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client = TestClient(node)
            await client.hello()
            gate = threading.Event()
            blocking = asyncio.ensure_future(node.committer.run(lambda txn: gate.wait(20)))
            while not node.committer.busy:  # noqa: ASYNC110 - the writer thread makes it true
                await asyncio.sleep(0.001)
            makes = [client.op(create_many=many(ROOT, [b"%d" % i], b"x" * 3800)) for i in range(4)]
            asked = [asyncio.ensure_future(client.send(op)) for op in makes]
            codes = [(await answer)[0].code for answer in asked[2:]]
            assert codes == [Code.BUSY, Code.BUSY]
            gate.set()
            assert [(await answer)[0].code for answer in asked[:2]] == [0, 0]
            await blocking
            assert not (await client.send(makes[2]))[0].code
            assert count(node, Table.INODE) == 3

    asyncio.run(run())


def test_long_replies_are_not_kept_by_the_hundred(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client = TestClient(node)
            await client.hello()
            for part in range(12):
                names = [b"%d-%d" % (part, i) for i in range(2000)]
                await client.good(create_many=many(ROOT, names, b""))
                assert count(node, Table.REPLY) <= 4
                client.acked_below = client.seq + 1

    asyncio.run(run())


def test_one_batch_removes_only_so_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "REMOVALS_MAX", 12)

    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client = TestClient(node)
            await client.hello()
            for name in (b"a", b"b", b"c", b"d"):
                made = await client.good(mkdir={"dir": ROOT, "name": name, "mode": 0o755})
                await client.good(
                    create_many=many(ref(made.attr), [b"%d" % i for i in range(7)], b"")
                )
            trees = [{"dir": ROOT, "name": name, "limit": 9} for name in (b"a", b"b", b"c")]
            results = await client.send(*(client.op(remove_tree=tree) for tree in trees))
            assert [(r.code, r.number, r.more) for r in results] == [
                (0, 8, False),
                (0, 4, True),
                (Code.BUSY, 0, False),
            ]
            assert not (await client.good(remove_tree=trees[1])).more
            weight = batches.weight_of(client.op(remove_tree={"dir": ROOT, "name": b"d"}))
            assert weight == REMOVE_TREE_ENTRIES_MAX
            assert batches.weight_of(client.op(getattr={"inode": ROOT})) == 1

    asyncio.run(run())


def test_too_many_open_files_are_refused_before_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opens, "OPEN_PER_SESSION_MAX", 3)

    async def run() -> None:
        async with running(make(tmp_path)) as node:
            client = TestClient(node)
            await client.hello()
            makes = [{"dir": ROOT, "name": b"%d" % i, "mode": 0o100600, "open": True}
                     for i in range(5)]  # fmt: skip
            results = await client.send(*(client.op(create=entry) for entry in makes))
            assert [r.code for r in results] == [0, 0, 0, Code.TOO_LARGE, Code.TOO_LARGE]
            assert node.committer.respoiled == 0
            assert count(node, Table.INODE) == 3

    asyncio.run(run())
