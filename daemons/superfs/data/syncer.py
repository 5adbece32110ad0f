"""Making things durable: one sync at a time, shared by everybody who waits for one.

Whoever asks is answered by the first sync that began after asking. Without anybody asking there
is one every `interval_s` while something has changed. The blocking part runs in a thread, and what
may take its time, segments that are unlinked, in another: no answer waits for that.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.daemon.exits import EXIT_CONFIG, EXIT_IO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.daemon.world import World
    from superfs.data.metrics import DataMetrics
    from superfs.data.store import DataStore, SyncJob


class Syncer:
    def __init__(self, store: DataStore, world: World, metrics: DataMetrics) -> None:
        self._store = store
        self._world = world
        self._metrics = metrics
        self._interval_s = store.config.sync_interval_s
        self._changes_max = store.config.sync_changes_max
        self._waiters: list[asyncio.Future[None]] = []
        self._asked = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "sync")
        self._unlinker = ThreadPoolExecutor(1, "unlink")
        self._unlinking: set[asyncio.Future[None]] = set()
        self.busy = False

    def ask(self) -> asyncio.Future[None]:
        """Done when everything up to now is durable."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._asked.set()
        return waiter

    def nudge(self) -> None:
        """After changes: starts a sync early when memory holds many of them."""
        if len(self._store.chunks) > self._changes_max:
            self._asked.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await self._asked.wait()
            if self._waiters or self._store.has_changes:
                await self._sync()

    async def finish(self) -> None:
        """The last sync, when `run` has ended or is idle and nothing changes any more."""
        await self.ask()
        await asyncio.gather(*self._unlinking)
        self._thread.shutdown()
        self._unlinker.shutdown()

    async def _sync(self) -> None:
        self._asked.clear()
        waiters, self._waiters = self._waiters, []
        started = self._world.clock.monotonic()
        self.busy = True
        job = self._store.begin_sync()
        with self._fatal():
            await asyncio.get_running_loop().run_in_executor(self._thread, job.run)
        self._store.end_sync()
        self.busy = False
        self._metrics.sync_seconds.observe(self._world.clock.monotonic() - started)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        if job.dead:
            self._unlink(job)

    def _unlink(self, job: SyncJob) -> None:
        unlinking = asyncio.get_running_loop().run_in_executor(self._unlinker, job.unlink)
        self._unlinking.add(unlinking)

        def done(_: object) -> None:
            self._unlinking.discard(unlinking)
            with self._fatal():
                unlinking.result()
            self._store.unlinked(job)

        unlinking.add_done_callback(done)

    @contextlib.contextmanager
    def _fatal(self) -> Iterator[None]:
        """Around what nothing can go on without."""
        try:
            yield
        except FsError as error:
            code = EXIT_CONFIG if error.code is Code.DAMAGED else EXIT_IO
            self._world.fatal(f"{error}; the next start verifies what is on disk", code)
        except Exception as error:
            self._world.log.exception("sync failed")
            self._world.fatal(f"sync failed: {FsError(Code.INTERNAL, type(error).__name__)}")
