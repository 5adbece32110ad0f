"""One Session stream: batches begin in the order they came, answers go out as they are ready.

What comes is read on even while 64 batches are under way: the acknowledgement that they wait for
may be the next message, of this client or of one that waits for this client's. A batch that is
durable and waits only for others makes room for the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.limits import MIB, REPLY_WINDOW_OPS
from superfs.v1 import meta_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from superfs.core.tokens import Grant
    from superfs.meta.node import MetaNode

BATCHES_AT_A_TIME = 64
"""The next ones wait,"""
WAITING_BATCHES_MAX = 1024
"""and so does, behind so many or"""
WAITING_BYTES_MAX = 32 * MIB
"""so much, whatever else the client sends."""
SETTLING_MAX = REPLY_WINDOW_OPS
"""Beside these: batches that are durable and wait for others: a data daemon may be away long."""


@dataclass(slots=True)
class _UnderWay:
    """A batch: whether it is one that settles, and so takes no room."""

    settling: bool = False


class SessionStream:
    """A `told.Listener`. Lives in `group`, which it ends with an FsError."""

    def __init__(
        self,
        node: MetaNode,
        grant: Grant,
        write: Callable[[meta_pb2.SessionReply], Awaitable[None]],
        group: asyncio.TaskGroup,
    ) -> None:
        self._node = node
        self._grant = grant
        self._send = write
        self._group = group
        self._writing = asyncio.Lock()
        self._running = 0
        self._settling = 0
        self._waiting: deque[tuple[meta_pb2.Batch, int]] = deque()
        self._waiting_bytes = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._pushed: deque[meta_pb2.Invalidate] = deque()
        self._over: FsError | None = None
        self._woken = asyncio.Event()

    async def serve(
        self, hello: meta_pb2.Hello, requests: AsyncIterator[meta_pb2.SessionRequest]
    ) -> None:
        welcome = await self._node.hello(self._grant, hello, self)
        await self._write(meta_pb2.SessionReply(welcome=welcome))
        pushing = self._group.create_task(self._push())
        try:
            await self._read(requests)
        finally:
            pushing.cancel()

    async def _read(self, requests: AsyncIterator[meta_pb2.SessionRequest]) -> None:
        async for request in requests:
            body = request.WhichOneof("body")
            if body == "batch":
                await self._has_room.wait()
                self._take(request.batch)
            elif body == "invalidated":
                number = request.invalidated.number
                self._node.lessor.acknowledged(self._grant.session_id, self, number)
            elif body == "keep_alive":
                self._node.keep_alive(self._grant, self)
                keep_alive = meta_pb2.KeepAlive(
                    number=request.keep_alive.number, now_ns=self._node.now_ns()
                )
                await self._write(meta_pb2.SessionReply(keep_alive=keep_alive))
            elif body == "return_leases":
                returned, session = request.return_leases, self._grant.session_id
                self._node.lessor.returned(session, self, returned.leases, returned.exclusive)
            elif body == "settled":
                self._node.settled(self._grant, self)
            elif body == "goodbye":
                await self._node.goodbye(self._grant)
                return
            else:
                raise FsError(Code.BAD_REQUEST, f"not expected on a session stream: {body}")

    # ---- what the lessor asks for

    def push(self, invalidate: meta_pb2.Invalidate) -> None:
        self._pushed.append(invalidate)
        self._woken.set()

    def close(self, reason: str) -> None:
        self._over = FsError(Code.UNAVAILABLE, reason)
        self._woken.set()

    async def _push(self) -> None:
        while self._over is None:
            await self._woken.wait()
            self._woken.clear()
            while self._pushed:
                await self._write(meta_pb2.SessionReply(invalidate=self._pushed.popleft()))
        raise self._over

    # ---- batches

    def _take(self, batch: meta_pb2.Batch) -> None:
        if self._running < BATCHES_AT_A_TIME:
            self._begin(batch)
            return
        size = batch.ByteSize()
        self._waiting.append((batch, size))
        self._waiting_bytes += size
        if len(self._waiting) >= WAITING_BATCHES_MAX or self._waiting_bytes >= WAITING_BYTES_MAX:
            self._has_room.clear()

    def _begin(self, batch: meta_pb2.Batch) -> None:
        if self._over is not None:
            raise self._over
        self._running += 1
        under_way = _UnderWay()
        answer = self._node.submit(self._grant, batch, self, partial(self._settles, under_way))
        self._group.create_task(self._answer(answer, under_way))

    def _settles(self, under_way: _UnderWay) -> None:
        if self._settling < SETTLING_MAX:
            under_way.settling = True
            self._settling += 1
            self._leave()

    async def _answer(
        self, answer: asyncio.Future[meta_pb2.BatchReply], under_way: _UnderWay
    ) -> None:
        reply = await answer
        async with self._writing:
            self._node.lessor.recheck(self._grant.session_id, reply)
            await self._send(meta_pb2.SessionReply(batch=reply))
        if under_way.settling:
            self._settling -= 1
        else:
            self._leave()

    def _leave(self) -> None:
        """One that is under way makes room."""
        self._running -= 1
        if self._waiting:
            batch, size = self._waiting.popleft()
            self._waiting_bytes -= size
            self._has_room.set()
            self._begin(batch)

    async def _write(self, reply: meta_pb2.SessionReply) -> None:
        async with self._writing:
            await self._send(reply)
