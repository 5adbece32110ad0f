"""A data store, or a whole data daemon without its cluster, inside the test's process."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
from prometheus_client import CollectorRegistry

from superfs.core.limits import MIB
from superfs.core.tokens import Authority, Grant, Purpose
from superfs.daemon.failpoints import Failpoints
from superfs.daemon.world import World
from superfs.data import recovery
from superfs.data.check import Checker
from superfs.data.compaction import Compactor
from superfs.data.config import (
    CompactionConfig,
    DatadCommon,
    DatadConfig,
    LocalConfig,
    StoreConfig,
)
from superfs.data.daemon import DataDaemon
from superfs.data.keys import ChunkKey
from superfs.data.metrics import DataMetrics
from superfs.data.segments import Blob
from superfs.v1.data_pb2 import DataReply, DataRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from superfs.data.store import DataStore
    from superfs.v1.common_pb2 import Finding

KEY = bytes(range(32))
NODE = 2
CLUSTER = "c" * 32
SMALL = StoreConfig(
    segment_bytes=8 * MIB, index_bytes=2 * MIB, index_reserve_bytes=MIB, reserve_bytes=0
)


class Fatal(Exception):
    """What a process would have ended with."""


def _fatal(message: str, code: int = 75) -> Any:  # noqa: ANN401
    raise Fatal(message, code)


def new_world(failpoints: str = "") -> World:
    points = Failpoints()
    points.arm(failpoints)
    world = World(Authority(KEY), failpoints=points, metrics=CollectorRegistry(), fatal=_fatal)
    return world


def make(directory: Path, config: StoreConfig = SMALL) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    recovery.format_store(directory, CLUSTER, NODE, config, new_world())


def reopen(directory: Path, config: StoreConfig = SMALL, world: World | None = None) -> DataStore:
    return recovery.open_store(directory, NODE, config, world or new_world())


def opened(directory: Path, config: StoreConfig = SMALL, world: World | None = None) -> DataStore:
    make(directory, config)
    return reopen(directory, config, world)


def kill(store: DataStore) -> None:
    """What a kill leaves: nothing that was in memory alone goes anywhere."""
    store.close()


def write(store: DataStore, ino: int, place: int, data: bytes, generation: int = 1) -> None:
    """At a place of a file; within one chunk."""
    chunk, offset = divmod(place, 4 * MIB)
    store.write([Blob(ino, generation, chunk, offset, data)])


def read(store: DataStore, ino: int, place: int, length: int, generation: int = 1) -> bytes:
    """Through the page cache and around it: both must agree."""
    chunk, offset = divmod(place, 4 * MIB)
    plan = store.read(ChunkKey(ino, generation, chunk), offset, length)
    waited = plan.wait()
    cached = plan.cached(bytearray(2 * MIB))
    assert cached is None or cached == waited
    return waited


class _NowSyncer:
    """Durable before it is asked for."""

    def __init__(self, store: DataStore) -> None:
        self._store = store

    def ask(self) -> asyncio.Future[None]:
        self._store.sync()
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


class Tools:
    """Compaction and checks of a store that no daemon runs."""

    def __init__(self, store: DataStore, config: CompactionConfig | None = None) -> None:
        self.store = store
        syncer: Any = _NowSyncer(store)
        self._threads = ThreadPoolExecutor(1)
        metrics = DataMetrics(CollectorRegistry())
        config = config or CompactionConfig(quiet_s=0, bytes_per_s=1 << 40)
        self.compactor = Compactor(store, syncer, config, metrics, store.world, self._threads)
        self.checker = Checker(store, syncer, self._threads)

    def check(self, *, verify_data: bool = True) -> list[Finding]:
        async def run() -> list[Finding]:
            return [f async for f in self.checker.check(verify_data=verify_data)]

        return asyncio.run(run())

    def compact(self, key: ChunkKey) -> bool:
        return asyncio.run(self.compactor.compact_chunk(key))

    def empty(self, number: int) -> bool:
        return asyncio.run(self.compactor.empty_segment(self.store.segments.by_number[number]))

    def tick(self) -> None:
        asyncio.run(self.compactor.tick())

    def close(self) -> None:
        self._threads.shutdown()


class Stub:
    """Stands for grpc's context of a call."""

    def __init__(self, grant: Grant) -> None:
        self.grant = grant


DAEMON = Grant("daemon", "node 1")
HOST = Grant("host", "a mount", session_id=7, epoch=1)


def capability(grant: Grant) -> bytes:
    return Authority(KEY).issue(Purpose.CAPABILITY, grant)


class Served:
    """A running data daemon; requests go straight to its service."""

    def __init__(self, daemon: DataDaemon) -> None:
        self.daemon = daemon

    async def ask(self, grant: Grant = DAEMON, **body: Any) -> DataReply:  # noqa: ANN401
        return await self.daemon.service.Execute(DataRequest(tag=1, **body), Stub(grant))


class Stream:
    """Stands for grpc's context of a Session stream."""

    def __init__(self, grant: Grant, requests: list[DataRequest]) -> None:
        self.grant = grant
        self.requests = deque(requests)
        self.replies: list[DataReply] = []
        self.blocked: asyncio.Event | None = None
        self.answered = asyncio.Event()

    async def read(self) -> Any:  # noqa: ANN401
        await asyncio.sleep(0)
        return self.requests.popleft() if self.requests else grpc.aio.EOF

    async def write(self, reply: DataReply) -> None:
        if self.blocked is not None:
            await self.blocked.wait()
        self.replies.append(reply)
        self.answered.set()


async def session(served: Served, grant: Grant, requests: list[DataRequest]) -> list[DataReply]:
    for tag, request in enumerate(requests, 1):
        request.tag = tag
    stream = Stream(grant, requests)
    await served.daemon.service.Session(None, stream)
    assert [reply.tag for reply in stream.replies] == list(range(1, len(stream.replies) + 1))
    return stream.replies


@contextlib.asynccontextmanager
async def serving(
    directory: Path,
    config: StoreConfig = SMALL,
    world: World | None = None,
    local: LocalConfig | None = None,
) -> AsyncIterator[Served]:
    """Ends as SIGTERM would end it. `local`: with a local socket, in the directory."""
    common = DatadCommon(
        node_id=NODE, state_dir=directory, metrics="", listen=(f"unix:{directory}/datad.sock",)
    )
    local = local or LocalConfig(enabled=False)
    daemon = DataDaemon(DatadConfig(common, config, local=local), world or new_world())
    async with asyncio.TaskGroup() as group:
        tasks = _Tasks(group)
        await daemon.start(tasks)  # type: ignore[arg-type]
        yield Served(daemon)
        await daemon.stop()
        for task in tasks.started:
            task.cancel()


def run(tmp_path: Path, test: Callable[[Served], Awaitable[None]]) -> None:
    async def main() -> None:
        async with serving(tmp_path / "d") as served:
            await test(served)

    make(tmp_path / "d")
    asyncio.run(main())


class _Tasks:
    """A task group that knows what it started."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self.started: list[asyncio.Task[Any]] = []

    def create_task(self, work: Any, *, name: str = "") -> asyncio.Task[Any]:  # noqa: ANN401
        task = self._group.create_task(work, name=name)
        self.started.append(task)
        return task
