"""The Data service: a Session stream and the single call Execute, over the same requests.

On a stream requests take effect in the order they come in, and answers go out in that order too.
What an answer waits for (a sync, a disk) does not stop the requests behind it from taking effect,
within a bound of bytes and requests; beyond it nothing more is read, which stops the sender.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import grpc

from superfs.core.errors import Code, FsError
from superfs.core.limits import REQUESTS_PER_MESSAGE_MAX
from superfs.data.access import Access, Capabilities
from superfs.data.promises import KEEP_S
from superfs.rpc.server import grant_of
from superfs.v1 import data_pb2, data_pb2_grpc
from superfs.v1.data_pb2 import DataReply, DataRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from superfs.core.tokens import Grant
    from superfs.daemon.world import World
    from superfs.data.check import Checker
    from superfs.data.config import StreamConfig
    from superfs.data.requests import Begun, Requests
    from superfs.data.store import DataStore


class DataService(data_pb2_grpc.DataServicer):
    def __init__(
        self,
        store: DataStore,
        requests: Requests,
        checker: Checker,
        config: StreamConfig,
        world: World,
    ) -> None:
        self._store = store
        self._requests = requests
        self._checker = checker
        self._config = config
        self._world = world
        self._capabilities = Capabilities(world.authority, world.clock.now_ns)
        self._newest: dict[int, _Answers] = {}  # by session; see Session

    def _access(self, grant: Grant) -> Access:
        return Access(grant, self._capabilities, self._store.fences, self._world.clock.now_ns)

    async def Execute(self, request: DataRequest, context: Any) -> DataReply:  # noqa: ANN401
        """An error is in the reply, and there alone, as on a stream."""
        if request.more:
            raise FsError(Code.BAD_REQUEST, "several requests in one message are for streams")
        begun = self._requests.begin(request, self._access(grant_of(context)))
        return begun if isinstance(begun, DataReply) else await begun

    async def Session(self, _requests: Any, context: Any) -> None:  # noqa: ANN401
        """One at a time for each session: a client that lost its connection sends again what was
        not answered, so what the lost stream may still deliver must not come behind that."""
        grant = grant_of(context)
        access = self._access(grant)
        answers = _Answers(context, self._config)
        self._newest[grant.session_id] = answers
        try:
            while (request := await context.read()) is not grpc.aio.EOF:
                parts = _parts(request)
                for part in parts:
                    if grant.session_id and self._newest.get(grant.session_id) is not answers:
                        raise FsError(Code.UNAVAILABLE, "a newer stream of this session is here")
                    begun = self._requests.begin(part, access)
                    await answers.put(begun, part, more=part is not parts[-1])
            await answers.drain()
        finally:
            answers.close()
            if self._newest.get(grant.session_id) is answers:
                del self._newest[grant.session_id]
                loop = asyncio.get_running_loop()
                loop.call_later(KEEP_S, self._look_if_back, grant.session_id)

    def _look_if_back(self, session: int) -> None:
        if session not in self._newest:
            self._store.promises.drop(session)

    async def Check(
        self,
        request: data_pb2.DataCheckRequest,
        context: Any,  # noqa: ANN401
    ) -> AsyncIterator[Any]:
        self._only_trusted(context)
        async for finding in self._checker.check(verify_data=request.verify_data):
            yield finding

    async def ListData(
        self,
        request: data_pb2.DataListRequest,
        context: Any,  # noqa: ANN401
    ) -> AsyncIterator[Any]:
        self._only_trusted(context)
        pages = self._checker.list_data()
        if request.number_range:
            pages = self._checker.list_range(request.number_range, request.used)
        async for page in pages:
            yield page

    def _only_trusted(self, context: Any) -> None:  # noqa: ANN401
        if grant_of(context).kind == "user":
            raise FsError(Code.FORBIDDEN, "not for user sessions")


def _parts(request: DataRequest) -> list[DataRequest]:
    parts = [request, *request.more]
    if len(parts) > REQUESTS_PER_MESSAGE_MAX or any(part.more for part in parts[1:]):
        raise FsError(
            Code.BAD_REQUEST, f"at most {REQUESTS_PER_MESSAGE_MAX} requests in one message"
        )
    return parts


class _Answers:
    """Answers of one stream, in order. Most are ready at once and go out at once, with those to
    the requests of the same message."""

    def __init__(self, context: Any, config: StreamConfig) -> None:  # noqa: ANN401
        self._context = context
        self._bytes_max = config.in_flight_bytes_max
        self._requests_max = config.in_flight_requests_max
        self._queue: deque[tuple[DataReply | asyncio.Task[DataReply], int]] = deque()
        self._bytes = 0
        self._sender: asyncio.Task[None] | None = None
        self._gathered: list[DataReply] = []  # of the present message
        self._sent = asyncio.Event()

    async def put(self, begun: Begun, request: DataRequest, *, more: bool = False) -> None:
        """`more`: of the same message."""
        self._check()
        if self._sender is None:
            if isinstance(begun, DataReply):
                self._gathered.append(begun)
                if more:
                    await asyncio.sleep(0)  # others may have their turn
                    return
            await self._send_gathered()
            if isinstance(begun, DataReply):
                return
        if isinstance(begun, DataReply):
            entry: DataReply | asyncio.Task[DataReply] = begun
            size = begun.ByteSize()
        else:
            entry = asyncio.ensure_future(begun)
            size = _answer_bytes(request)
        self._queue.append((entry, size))
        self._bytes += size
        if self._sender is None:
            self._sender = asyncio.create_task(self._send())
        while self._bytes > self._bytes_max or len(self._queue) > self._requests_max:
            await self._one_sent()

    async def _send_gathered(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered:
            gathered[0].more.extend(gathered[1:])
            await self._context.write(gathered[0])

    async def drain(self) -> None:
        while self._sender is not None:
            await self._one_sent()

    async def _one_sent(self) -> None:
        self._check()
        self._sent.clear()
        await self._sent.wait()
        self._check()

    def _check(self) -> None:
        if self._sender is not None and self._sender.done():
            self._sender.result()  # the stream is broken: so are we

    async def _send(self) -> None:
        try:
            while self._queue:
                entry, size = self._queue[0]
                reply = entry if isinstance(entry, DataReply) else await entry
                await self._context.write(reply)
                self._queue.popleft()
                self._bytes -= size
                self._sent.set()
            self._sender = None
        finally:
            self._sent.set()

    def close(self) -> None:
        if self._sender is not None:
            self._sender.cancel()
        for entry, _ in self._queue:
            if isinstance(entry, asyncio.Task):
                entry.cancel()


def _answer_bytes(request: DataRequest) -> int:
    """What an answer that is still to come will hold in memory."""
    if request.HasField("read"):
        return int(request.read.length)
    if request.HasField("read_many"):
        return sum(read.length for read in request.read_many.reads)
    return 0
