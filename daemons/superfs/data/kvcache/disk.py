"""The disk of a pool, put together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from superfs.data.kvcache.behind import Behind
from superfs.data.kvcache.promote import Promoter
from superfs.data.kvcache.tier import DiskTier
from superfs.data.segments import free_bytes

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from random import Random

    from superfs.data.kvcache.pool import Pool

DIRECTORY = "kvcache"


class Disk:
    def __init__(
        self,
        pool: Pool,
        tier: DiskTier,
        threads: Executor,
        log: Any,  # noqa: ANN401
    ) -> None:
        self.tier = tier
        self.behind = Behind(pool, tier, threads, log)
        self.promoter = Promoter(pool, tier, threads)


def open_tier(pool: Pool, state: Path, store: bytes, rng: Random) -> DiskTier:
    """With what it has kept. OSError when its directory cannot be had."""
    directory = Path(pool.config.disk_dir or state / DIRECTORY)
    tier = DiskTier(directory, store, pool.config, rng, free_bytes)
    pool.use(tier)
    return tier
