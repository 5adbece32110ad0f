"""Configuration of the KVCache pool of a data daemon."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from superfs.core.config import ConfigError
from superfs.core.limits import KIB, MIB

RECORDS_MAX = 1 << 24


@dataclass(frozen=True, slots=True)
class KvCacheConfig:
    slab_bytes: int = 0  # of memory, taken at the start; 0: this daemon has no pool
    slab_dir: Path = Path("/dev/shm")  # on a tmpfs: what is there outlives the daemon
    granule_bytes: int = 64 * KIB  # blocks take a multiple of it
    block_bytes_max: int = 16 * MIB
    namespaces_max: int = 64
    put_s: float = 30.0  # that a started put has until it is given up
    lease_s: float = 30.0  # that a get in progress is not evicted
    pin_s_max: float = 3600.0
    pinned_percent_max: int = 50  # of a namespace's quota

    def __post_init__(self) -> None:
        if self.granule_bytes < 4 * KIB or self.granule_bytes & (self.granule_bytes - 1):
            raise ConfigError("granule_bytes must be a power of two, at least 4 KiB")
        if self.slab_bytes % self.granule_bytes or self.slab_bytes < 0:
            raise ConfigError("slab_bytes must be a multiple of granule_bytes")
        if self.slab_bytes // self.granule_bytes > RECORDS_MAX:
            raise ConfigError(f"slab_bytes must be at most {RECORDS_MAX} granules")
        if not self.granule_bytes <= self.block_bytes_max <= 64 * MIB:
            raise ConfigError("block_bytes_max must be from granule_bytes to 64 MiB")
        if not 1 <= self.namespaces_max <= 1024:
            raise ConfigError("namespaces_max must be from 1 to 1024")
        if min(self.put_s, self.lease_s, self.pin_s_max) <= 0:
            raise ConfigError("put_s, lease_s and pin_s_max must be positive")
        if not 0 <= self.pinned_percent_max <= 100:
            raise ConfigError("pinned_percent_max must be from 0 to 100")
