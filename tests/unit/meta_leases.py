"""A client with leases for tests of the metadata daemon without network."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from superfs.meta.columns import decode_names
from superfs.v1 import meta_pb2
from unit.meta_node import TestClient, everybody_had_a_turn

if TYPE_CHECKING:
    from superfs.meta.node import MetaNode


class LeaseClient(TestClient):
    """Also the stream that it is told on. `acks`: whether it acknowledges at once."""

    __test__ = False
    exclusive = False

    def __init__(self, node: MetaNode, session: int, *, acks: bool = False) -> None:
        super().__init__(node, session)
        self.acks = acks
        self.told: list[meta_pb2.Invalidate] = []
        self.closed = ""
        self._heard = asyncio.Event()

    dead: tuple[int, ...] | list[int] = ()

    async def hello(self, *inos: int) -> meta_pb2.Welcome:
        hello = meta_pb2.Hello(
            protocol=1, client="test", leases=True, exclusive=self.exclusive, dead=self.dead
        )
        for ino in inos:
            hello.open.add(ino=ino)
        self.closed = ""
        return await self.node.hello(self.grant, hello, self)

    async def ask(self, *ops: meta_pb2.Op) -> meta_pb2.BatchReply:
        batch = meta_pb2.Batch(batch=7, acked_below=self.acked_below, ops=ops)
        return await asyncio.wait_for(self.node.submit(self.grant, batch, self), 20)

    def asking(self, **verb: Any) -> asyncio.Task[meta_pb2.BatchReply]:  # noqa: ANN401
        return asyncio.ensure_future(self.ask(self.op(**verb)))

    async def granted(self, **verb: Any) -> set[int]:  # noqa: ANN401
        return set((await self.ask(self.op(**verb))).leases)

    def acknowledge(self) -> None:
        """Everything so far."""
        for invalidate in self.told:
            self.node.lessor.acknowledged(self.grant.session_id, self, invalidate.number)

    async def hears(self) -> None:
        """Something, sooner or later."""
        await asyncio.wait_for(self._heard.wait(), 20)

    def keep_alive(self) -> None:
        self.node.keep_alive(self.grant, self)

    @property
    def held(self) -> set[int]:
        return set(self.node.lessor.leases.held(self.grant.session_id))

    def heard(self) -> dict[int, set[int | bytes] | None]:
        """All that it was told, by lease; None: the whole of it."""
        found: dict[int, set[int | bytes] | None] = {}
        for invalidate in self.told:
            for recall in invalidate.recalls:
                things = found.setdefault(recall.lease, set())
                if recall.whole or things is None:
                    found[recall.lease] = None
                else:
                    things |= {*recall.inos, *decode_names(recall.names)}
        return found

    # ---- the stream

    def push(self, invalidate: meta_pb2.Invalidate) -> None:
        self.told.append(invalidate)
        self._heard.set()
        if self.acks:
            self.node.lessor.acknowledged(self.grant.session_id, self, invalidate.number)

    def close(self, reason: str) -> None:
        self.closed = reason


async def is_waiting(task: asyncio.Future[Any]) -> bool:
    """Not done, although everything had its turn."""
    await everybody_had_a_turn()
    return not task.done()


class Late:
    """Holds commits back from now on, durable but told to nobody, until `release`."""

    def __init__(self, node: MetaNode) -> None:
        committer: Any = node.committer
        self._committer, self._call = committer, committer._call
        self._held: list[tuple[Any, ...]] = []
        self._over = False
        self.first = asyncio.Event()
        loop = asyncio.get_running_loop()
        committer._call = lambda *what: loop.call_soon_threadsafe(self._note, what)

    def _note(self, what: tuple[Any, ...]) -> None:
        if self._over:
            what[0](*what[1:])
        self._held.append(what)
        self.first.set()

    def release(self) -> None:
        self._over = True
        self._committer._call = self._call
        for function, *arguments in self._held:
            function(*arguments)
