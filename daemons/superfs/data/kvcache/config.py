"""Configuration of the KVCache pool of a data daemon."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from superfs.core.config import ConfigError
from superfs.core.limits import KIB, MIB

RECORDS_MAX = 1 << 24
SEGMENTS_MAX = 256  # each has two descriptors


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
    disk_bytes: int = 0  # on disk, at most; 0: memory only
    disk_dir: str = ""  # "": kvcache in the state directory
    disk_segment_bytes: int = 512 * MIB  # of disk that is taken or given back at a time
    disk_free_bytes_min: int = 4096 * MIB  # of its file system, that are left to others
    disk_high_percent: int = 95  # of disk_bytes: from here on blocks are evicted,
    disk_low_percent: int = 90  # down to here
    write_behind_s: float = 0.5  # that a committed block may wait for the disk

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
        self._check_disk()

    def _check_disk(self) -> None:
        segment = self.disk_segment_bytes
        if segment % self.granule_bytes or segment < self.block_bytes_max:
            raise ConfigError("disk_segment_bytes must be granules, at least block_bytes_max")
        if self.disk_bytes % segment or not 0 <= self.disk_bytes <= SEGMENTS_MAX * segment:
            raise ConfigError(
                f"disk_bytes must be from 0 to {SEGMENTS_MAX} times disk_segment_bytes, in full"
            )
        if self.disk_free_bytes_min < 0 or not 0 <= self.write_behind_s <= 1:
            raise ConfigError("disk_free_bytes_min must not be negative, write_behind_s 0 to 1")
        if not 0 < self.disk_low_percent <= self.disk_high_percent <= 100:
            raise ConfigError("disk_low_percent must be at most disk_high_percent, both 1 to 100")
