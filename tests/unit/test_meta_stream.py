"""One Session stream of a metadata daemon, on plain functions instead of gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from superfs.core.errors import FsError
from superfs.core.tokens import Grant
from superfs.meta import sessionstream
from superfs.meta.sessionstream import BATCHES_AT_A_TIME, SessionStream
from superfs.v1 import meta_pb2
from unit.meta_node import ROOT, make, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from superfs.meta.node import MetaNode


class Wire:
    """A client on one stream: `say` is read when its turn comes, answers are in `got`."""

    def __init__(self, node: MetaNode, session: int) -> None:
        self.grant = Grant("host", "test", session_id=session)
        self.got: list[meta_pb2.SessionReply] = []
        self._node = node
        self._said: asyncio.Queue[meta_pb2.SessionRequest | None] = asyncio.Queue()
        self._seq = 0
        self._news = asyncio.Event()
        self.task = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        async def write(reply: meta_pb2.SessionReply) -> None:
            await asyncio.sleep(0)
            self.got.append(reply)
            self._news.set()

        try:
            async with asyncio.TaskGroup() as group:
                stream = SessionStream(self._node, self.grant, write, group)
                hello = meta_pb2.Hello(protocol=1, leases=True)
                try:
                    await stream.serve(hello, self._requests())
                finally:
                    self._node.lessor.hung_up(self.grant.session_id, stream)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _requests(self) -> AsyncIterator[meta_pb2.SessionRequest]:
        while (request := await self._said.get()) is not None:
            yield request

    def say(self, **body: Any) -> None:  # noqa: ANN401
        self._said.put_nowait(meta_pb2.SessionRequest(**body))

    def create(self, name: bytes) -> None:
        self._seq += 1
        op = {"seq": self._seq, "create": {"dir": ROOT, "name": name, "mode": 0o100644}}
        self.say(batch={"batch": self._seq, "ops": [op]})

    def look(self) -> None:
        self.say(batch={"ops": [{"lookup": {"dir": ROOT, "name": b"none"}}]})

    def hang_up(self) -> None:
        self._said.put_nowait(None)

    def replies(self, kind: str) -> list[Any]:
        return [getattr(r, kind) for r in self.got if r.WhichOneof("body") == kind]

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self._news.clear()
                await self._news.wait()


@contextlib.asynccontextmanager
async def two_wires(tmp_path: Path) -> AsyncIterator[tuple[MetaNode, Wire, Wire]]:
    async with running(make(tmp_path)) as node:
        one, two = Wire(node, 1), Wire(node, 2)
        for wire in (one, two):
            wire.look()
            await wire.until(partial(wire.replies, "batch"))
            wire.got.clear()
        yield node, one, two
        for wire in (one, two):
            wire.hang_up()
        await asyncio.wait([one.task, two.task])


def test_acknowledgements_are_read_behind_batches_that_wait_for_them(tmp_path: Path) -> None:
    """Both have more batches under way than run at a time, and every one waits for the other."""

    async def run() -> None:
        async with two_wires(tmp_path) as (_, one, two):
            many = 3 * BATCHES_AT_A_TIME
            for i in range(many):
                one.create(b"one-%d" % i)
                two.create(b"two-%d" % i)
            acknowledged = {one: 0, two: 0}
            async with asyncio.timeout(20):
                while len(one.replies("batch")) < many or len(two.replies("batch")) < many:
                    await asyncio.sleep(0.005)
                    for wire in (one, two):
                        told = wire.replies("invalidate")
                        for invalidate in told[acknowledged[wire] :]:
                            wire.say(invalidated={"number": invalidate.number})
                        acknowledged[wire] = len(told)
            for wire in (one, two):
                answered = sorted(r.batch for r in wire.replies("batch"))  # as each was ready
                assert answered == list(range(1, many + 1))
            assert acknowledged[one]
            assert acknowledged[two]

    asyncio.run(run())


def test_reading_stops_where_too_much_waits_and_goes_on_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessionstream, "WAITING_BATCHES_MAX", 4)

    async def run() -> None:
        async with two_wires(tmp_path) as (_, one, two):
            for i in range(BATCHES_AT_A_TIME + 20):
                one.create(b"%d" % i)
            one.say(keep_alive={"number": 1})
            await two.until(lambda: two.replies("invalidate"))
            assert not one.replies("batch")
            assert not one.replies("keep_alive")
            while len(one.replies("batch")) < BATCHES_AT_A_TIME + 20:
                for invalidate in two.replies("invalidate"):
                    two.say(invalidated={"number": invalidate.number})
                await asyncio.sleep(0.005)
            await one.until(lambda: one.replies("keep_alive"))

    asyncio.run(run())


def test_a_stream_that_counts_no_more_ends_with_an_error(tmp_path: Path) -> None:
    async def run() -> None:
        async with two_wires(tmp_path) as (node, one, two):
            again = Wire(node, 1)
            with pytest.raises(FsError, match="another stream"):
                await one.task
            again.say(keep_alive={"number": 1})
            await again.until(lambda: again.replies("keep_alive"))
            node.lessor.end(2)
            two.say(keep_alive={"number": 1})
            with pytest.raises(FsError, match="say hello"):
                await two.task
            again.look()
            await again.until(lambda: again.replies("batch"))
            (lease,) = again.replies("batch")[0].leases
            assert list(node.lessor.leases.held(1)) == [lease]
            again.say(return_leases={"leases": [lease]})
            again.say(goodbye={})
            await again.task
            assert not len(node.lessor.leases)

    asyncio.run(run())
