"""Configuration of a data daemon, each default beside what it is for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from superfs.core.config import ConfigError
from superfs.core.limits import (
    EXTENTS_PER_CHUNK_MAX,
    MESSAGE_BYTES_MAX,
    MESSAGE_DATA_BYTES_MAX,
    MIB,
    SEGMENT_BYTES,
)
from superfs.daemon.common import CommonConfig
from superfs.data.kvcache.config import KvCacheConfig

SEGMENT_BYTES_MAX = 1 << 31


@dataclass(frozen=True, slots=True)
class DatadCommon(CommonConfig):
    node_id: int = 2
    state_dir: Path = Path("/var/lib/superfs/datad-2")
    listen: tuple[str, ...] = ("unix:/run/superfs/datad-2.sock",)


@dataclass(frozen=True, slots=True)
class StoreConfig:
    segment_bytes: int = SEGMENT_BYTES
    reserve_bytes: int = 256 * MIB  # of the disk, not given to clients
    index_bytes: int = 32 * MIB  # allocated at first; grows as long as the disk has room
    index_reserve_bytes: int = 8 * MIB  # of the index, for reaping and compaction
    sync_interval_s: float = 1.0
    sync_changes_max: int = 4096  # changed chunks in memory that start a sync before its time
    cached_chunks_max: int = 16_384
    extents_max: int = EXTENTS_PER_CHUNK_MAX  # of one chunk, before it is rewritten
    tombstone_keep_s: float = 3600.0
    tombstones_max: int = 1_000_000

    def __post_init__(self) -> None:
        if not 2 * MESSAGE_BYTES_MAX <= self.segment_bytes <= SEGMENT_BYTES_MAX:
            raise ConfigError(
                f"segment_bytes must be from {2 * MESSAGE_BYTES_MAX} to {SEGMENT_BYTES_MAX}"
            )
        if self.reserve_bytes < 0:
            raise ConfigError("reserve_bytes must not be negative")
        if self.index_bytes < 2 * MIB or self.index_bytes % 4096:
            raise ConfigError("index_bytes must be at least 2 MiB, in pages of 4,096 bytes")
        if not self.index_reserve_bytes >= MIB:
            raise ConfigError("index_reserve_bytes must be at least 1 MiB")
        if not 0.01 <= self.sync_interval_s <= 60:
            raise ConfigError("sync_interval_s must be from 0.01 to 60")
        if self.tombstone_keep_s < 0:
            raise ConfigError("tombstone_keep_s must not be negative")
        for name in ("sync_changes_max", "cached_chunks_max", "extents_max", "tombstones_max"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1")


@dataclass(frozen=True, slots=True)
class CompactionConfig:
    quiet_s: float = 1.0  # since the last write, before a chunk is rewritten
    extents_hard_max: int = 1024  # rewritten even while it is being written
    live_percent_max: int = 50  # segments with less live data are evacuated
    live_percent_max_full: int = 98  # the same, while the disk is full
    bytes_per_s: int = 64 * MIB  # while the disk is not full

    def __post_init__(self) -> None:
        if not 0 <= self.live_percent_max <= self.live_percent_max_full < 100:
            raise ConfigError("live_percent_max and live_percent_max_full must be in order")
        if self.bytes_per_s < MESSAGE_DATA_BYTES_MAX:
            raise ConfigError(f"bytes_per_s must be at least {MESSAGE_DATA_BYTES_MAX}")
        if self.quiet_s < 0 or self.extents_hard_max < 1:
            raise ConfigError("quiet_s and extents_hard_max must be positive")


@dataclass(frozen=True, slots=True)
class ScrubConfig:
    enabled: bool = True
    bytes_per_s: int = 8 * MIB
    pause_s: float = 3600.0  # between two rounds over everything

    def __post_init__(self) -> None:
        if self.bytes_per_s < 1 or self.pause_s < 0:
            raise ConfigError("bytes_per_s and pause_s must be positive")


@dataclass(frozen=True, slots=True)
class StreamConfig:
    in_flight_bytes_max: int = 16 * MIB  # of one stream: read requests wait behind it
    in_flight_requests_max: int = 256

    def __post_init__(self) -> None:
        if self.in_flight_bytes_max < MESSAGE_BYTES_MAX or self.in_flight_requests_max < 1:
            raise ConfigError(f"in_flight_bytes_max must be at least {MESSAGE_BYTES_MAX}")


@dataclass(frozen=True, slots=True)
class LocalConfig:
    enabled: bool = True  # a Unix socket beside the first of `listen`, for clients on this host
    peers_max: int = 64
    descriptors_max: int = 256  # of segments, that one client may hold
    buffers_max: int = 16  # of memory, that one client may share for its writes
    lent_max: int = 8  # segments that one client may write to by itself; 0: none

    def __post_init__(self) -> None:
        if not 1 <= self.peers_max <= 1024 or not 1 <= self.descriptors_max <= 4096:
            raise ConfigError("peers_max must be from 1 to 1024, descriptors_max from 1 to 4096")
        if not 0 <= self.buffers_max <= 64:
            raise ConfigError("buffers_max must be from 0 to 64")
        if not 0 <= self.lent_max <= 64:
            raise ConfigError("lent_max must be from 0 to 64")


@dataclass(frozen=True, slots=True)
class DatadConfig:
    daemon: DatadCommon = field(default_factory=DatadCommon)
    store: StoreConfig = field(default_factory=StoreConfig)
    compaction: CompactionConfig = field(default_factory=CompactionConfig)
    scrub: ScrubConfig = field(default_factory=ScrubConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    local: LocalConfig = field(default_factory=LocalConfig)
    kvcache: KvCacheConfig = field(default_factory=KvCacheConfig)
