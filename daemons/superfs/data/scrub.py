"""The scrubber: reads and verifies everything that is stored, slowly, over and over.

What it finds goes to the log, with inode, chunk, segment and offset, and to a metric. (With one
replica there is nothing to repair from.)
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superfs.daemon.world import World
    from superfs.data.check import Checker
    from superfs.data.config import ScrubConfig
    from superfs.data.metrics import DataMetrics
    from superfs.data.store import DataStore


class Scrubber:
    def __init__(
        self,
        store: DataStore,
        checker: Checker,
        config: ScrubConfig,
        metrics: DataMetrics,
        world: World,
    ) -> None:
        self._store = store
        self._checker = checker
        self._config = config
        self._metrics = metrics
        self._log = world.log

    async def run(self) -> None:
        """Until cancelled."""
        while self._config.enabled:
            await asyncio.sleep(self._config.pause_s)
            await self.round()

    async def round(self) -> int:
        """Everything once; how many damaged pieces there are."""
        damaged = 0
        self._metrics.scrub_damaged.set(0)
        async for key in self._checker.chunks():
            faults, size = await self._checker.verify(key)
            for fault in faults:
                damaged += 1
                self._log.error("damaged data found by the scrubber", where=fault)
                self._metrics.scrub_damaged.set(damaged)
            self._metrics.scrubbed_bytes.inc(size)
            await asyncio.sleep(size / self._config.bytes_per_s)
        return damaged
