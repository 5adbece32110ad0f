"""A data daemon's parts and their order of life; knows nothing of other daemons."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superfs.data import recovery
from superfs.data.check import Checker
from superfs.data.compaction import Compactor
from superfs.data.kvcache.disk import Disk, open_tier
from superfs.data.kvcache.gathering import gather
from superfs.data.kvcache.handlers import register
from superfs.data.kvcache.metrics import PoolMetrics
from superfs.data.kvcache.pool import Pool
from superfs.data.kvcache.service import KvCacheService
from superfs.data.kvcache.slab import Slab
from superfs.data.local import LocalSocket
from superfs.data.metrics import DataMetrics
from superfs.data.requests import READ_THREADS, Requests
from superfs.data.scrub import Scrubber
from superfs.data.service import DataService
from superfs.data.syncer import Syncer
from superfs.v1 import data_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from superfs.daemon.world import World
    from superfs.data.config import DatadConfig
    from superfs.data.store import DataStore
    from superfs.rpc.server import GrpcServer

PRUNE_INTERVAL_S = 60.0


class DataDaemon:
    def __init__(self, config: DatadConfig, world: World) -> None:
        self.config = config
        self.world = world
        self.store: DataStore
        self.service: DataService
        self.kvcache: KvCacheService
        self._pool: Pool | None = None
        self._disk: Disk | None = None
        self.syncer: Syncer
        self.compactor: Compactor
        self.requests: Requests
        self._threads = ThreadPoolExecutor(READ_THREADS, "read")
        self._background: list[asyncio.Task[None]] = []
        self._writing: asyncio.Task[None] | None = None
        self.local: LocalSocket | None = None

    async def start(self, group: asyncio.TaskGroup) -> None:
        config, world = self.config, self.world
        common = config.daemon
        self.store = await asyncio.to_thread(
            recovery.open_store, common.state_dir, common.node_id, config.store, world
        )
        metrics = DataMetrics(world.metrics)
        metrics.watch(self.store)
        self.syncer = Syncer(self.store, world, metrics)
        self.requests = Requests(self.store, self.syncer, metrics, world, self._threads)
        checker = Checker(self.store, self.syncer, self._threads)
        self._open_local_socket(metrics)
        self.service = DataService(self.store, self.requests, checker, config.stream, world)
        await self._open_pool()
        group.create_task(self.syncer.run(), name="sync")
        self._start(group, self.kvcache.expire(), "kvcache")
        if self._pool is not None:
            self._start(group, self._gather(self._pool), "kvcache-pages")
        if self._disk is not None:
            self._writing = group.create_task(self._disk.behind.run(), name="kvcache-disk")
        self._start(group, self._finish_cuts(), "cuts")
        self.compactor = Compactor(
            self.store, self.syncer, config.compaction, metrics, world, self._threads
        )
        self._start(group, self.compactor.run(), "compaction")
        scrubber = Scrubber(self.store, checker, config.scrub, metrics, world)
        self._start(group, scrubber.run(), "scrub")

    def _open_local_socket(self, metrics: DataMetrics) -> None:
        """Without it everything goes by gRPC."""
        paths = [a for a in self.config.daemon.listen if a.startswith("unix:")]
        if not self.config.local.enabled or not paths:
            return
        path = Path(paths[0].removeprefix("unix:")).with_suffix(".local")
        shared = self.requests.shared
        local = LocalSocket(path, self.store, shared, self.config.local, metrics, self.world)
        try:
            local.start()
        except OSError as error:
            self.world.log.warning("no local socket: all data goes by gRPC", error=str(error))
            return
        self.local = local
        self.requests.local_socket = str(path)

    async def _open_pool(self) -> None:
        """Without it there are no KVCaches, but files."""
        config, world = self.config.kvcache, self.world
        why = "this data daemon has no KVCache pool: kvcache.slab_bytes is 0"
        if config.slab_bytes:
            store = self.store.identity.store
            try:
                self._pool = await asyncio.to_thread(self._make_pool, store)
            except OSError as error:
                why = f"the slab of the KVCache pool cannot be had: {error.strerror}"
                world.log.warning("no KVCache pool", slab_dir=str(config.slab_dir), error=why)
        if self._pool is not None:
            if config.disk_bytes:
                await self._open_disk(self._pool, self.store.identity.store)
            world.metrics.register(PoolMetrics(self._pool))
        self.kvcache = KvCacheService(self._pool, why, self._threads, self._disk)

    def _make_pool(self, store: bytes) -> Pool:
        config, world = self.config.kvcache, self.world
        slab = Slab.open(config.slab_dir, store, config, world.rng)
        state = self.config.daemon.state_dir
        return Pool(slab, state, config, world.rng, world.clock.monotonic)

    async def _open_disk(self, pool: Pool, store: bytes) -> None:
        """Without it the pool is memory only."""
        state, world = self.config.daemon.state_dir, self.world
        try:
            tier = await asyncio.to_thread(open_tier, pool, state, store, world.rng)
        except OSError as error:
            world.log.warning("the KVCache pool has no disk", error=str(error))
            return
        self._disk = Disk(pool, tier, self._threads, world.log)

    def register(self, server: GrpcServer) -> None:
        data_pb2_grpc.add_DataServicer_to_server(self.service, server.grpc)
        register(self.kvcache, server.grpc)

    def _start(self, group: asyncio.TaskGroup, work: Coroutine[Any, Any, None], name: str) -> None:
        self._background.append(group.create_task(work, name=name))

    async def stop(self) -> None:
        """What changes the store by itself ends first, then comes the last sync."""
        if self.local is not None:
            self.local.close()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._writing is not None and self._disk is not None:
            self._disk.behind.finish()
            await self._writing
        await self.syncer.finish()
        self._threads.shutdown()
        if self._disk is not None:
            self._disk.tier.close()
        if self._pool is not None:
            self._pool.slab.close()
        self.store.close()

    async def _gather(self, pool: Pool) -> None:
        size = await gather(pool.slab, self._threads)
        self.world.log.info("large pages of the KVCache pool", bytes=size)

    async def _finish_cuts(self) -> None:
        """Goes on with cuts until nothing is left of them; forgets old tombstones."""
        more = self.store.cuts.more
        while True:
            more.clear()
            for cut in list(self.store.cuts.pending.values()):
                await self.store.cuts.finish(cut)
            self.store.prune()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PRUNE_INTERVAL_S):
                    await more.wait()
