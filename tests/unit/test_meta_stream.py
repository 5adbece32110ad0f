"""The Session stream of a metadata daemon, with a stand-in for gRPC."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from superfs.core.attrs import Set
from superfs.meta import service
from superfs.meta.service import MetaService
from superfs.v1 import meta_pb2
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
    monkeypatch.setattr(service, "BATCHES_AT_A_TIME", 2)
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
