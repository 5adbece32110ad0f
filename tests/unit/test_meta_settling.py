"""Batches of a stream that wait for a data daemon, with a stand-in for gRPC."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from superfs.core.attrs import Set
from superfs.meta import sessionstream
from superfs.meta.service import MetaService
from superfs.v1 import meta_pb2
from unit.meta_exclusive import ExclusiveClient, files, log
from unit.meta_node import ROOT, FakeDataDaemons, TestClient, make, ref, running
from unit.test_meta_node import big_file, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

    from superfs.meta.node import MetaNode


class StandIn:
    """For grpc's context."""

    def __init__(self, client: TestClient) -> None:
        self.grant = client.grant
        self.answered: dict[int, meta_pb2.BatchReply] = {}

    async def write(self, reply: meta_pb2.SessionReply) -> None:
        self.answered[reply.batch.batch] = reply.batch


def test_a_stream_goes_on_while_truncations_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessionstream, "BATCHES_AT_A_TIME", 2)
    datads = FakeDataDaemons()

    async def converse(node: MetaNode) -> None:
        client = TestClient(node)
        await client.hello()
        files = [await big_file(client, b"%d" % i, 9 << 20) for i in range(4)]
        datads.away = {11, 12}
        shrink = {"mask": int(Set.SIZE), "size": 5 << 20}
        ops = [client.op(setattr={"inode": ref(attr), **shrink}) for attr in files]
        ops.append(client.op(lookup={"dir": ROOT, "name": b"0"}))
        ends = asyncio.Event()
        context = StandIn(client)

        async def requests() -> AsyncIterator[meta_pb2.SessionRequest]:
            yield meta_pb2.SessionRequest(hello=meta_pb2.Hello(protocol=1))
            for number, op in enumerate(ops, 1):
                batch = meta_pb2.Batch(batch=number, ops=[op])
                yield meta_pb2.SessionRequest(batch=batch)
            await ends.wait()

        stream = MetaService(node, tmp_path).Session(requests(), context)
        talking = asyncio.ensure_future(stream)
        await until(lambda: 5 in context.answered)
        assert set(context.answered) == {0, 5}  # 0 is the welcome
        datads.away.clear()
        await until(lambda: len(context.answered) == 6)
        ends.set()
        await talking

    async def run() -> None:
        async with running(make(tmp_path), datads) as node:
            await converse(node)

    asyncio.run(run())


def test_a_log_comes_through_behind_what_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart everything else waits until it is shipped."""
    monkeypatch.setattr(sessionstream, "BATCHES_AT_A_TIME", 2)
    config = make(tmp_path)

    async def converse(node: MetaNode, client: ExclusiveClient, directory: int) -> None:
        context, shipped, ends = StandIn(client), asyncio.Event(), asyncio.Event()
        create = {"dir": ROOT, "mode": 0o100644, "exclusive": True}
        ops = [client.op(create={**create, "name": b"%d" % i}) for i in range(4)]
        ops.append(client.op(log=log(files(directory, [(b"f", client.file(directory), b"")]))))

        async def requests() -> AsyncIterator[meta_pb2.SessionRequest]:
            hello = meta_pb2.Hello(protocol=1, leases=True, exclusive=True)
            yield meta_pb2.SessionRequest(hello=hello)
            for number, op in enumerate(ops, 1):
                yield meta_pb2.SessionRequest(batch=meta_pb2.Batch(batch=number, ops=[op]))
            await shipped.wait()
            yield meta_pb2.SessionRequest(settled=meta_pb2.Settled())
            await ends.wait()

        talking = asyncio.ensure_future(MetaService(node, tmp_path).Session(requests(), context))
        await until(lambda: 5 in context.answered)
        assert set(context.answered) == {0, 5}
        shipped.set()
        await until(lambda: len(context.answered) == 6)
        assert not any(r.code for b in context.answered.values() for r in b.results)
        ends.set()
        await talking

    async def run() -> None:
        async with running(config) as node:
            client = ExclusiveClient(node, 1)
            await client.hello()
            made = await client.directory(b"d")
        async with running(config) as node:
            await converse(node, client, made.ino)

    asyncio.run(run())
