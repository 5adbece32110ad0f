"""Configuration of a metadata daemon: the tables [daemon] and [meta]."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from superfs.core.limits import CHAINS_PER_FILE_MAX, MIB
from superfs.daemon.common import CommonConfig

PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class MetadCommon(CommonConfig):
    state_dir: Path = Path("/var/lib/superfs/metad-1")
    listen: tuple[str, ...] = ("unix:/run/superfs/metad-1.sock",)


@dataclass(frozen=True, slots=True)
class MetaConfig:
    map_initial_bytes: int = 64 * MIB  # allocated by --format
    map_step_bytes: int = 64 * MIB  # allocated at a time when the store grows
    map_max_bytes: int = 1 << 44
    grow_below_bytes: int = 24 * MIB  # grow when less than this is free
    reserve_bytes: int = 8 * MIB  # for removals and truncations only
    session_timeout_s: float = 60.0  # silence that ends a session
    lease_s: float = 20.0  # how long clients trust what they hold without a keep-alive
    lease_timeout_s: float = 30.0  # silence after which nobody waits for a client's leases
    chains_per_file: int = 4  # how many chains a big file is dealt over
    usage_refresh_s: float = 5.0  # age of what statfs says about the data daemons
    data_deadline_s: float = 10.0  # of one call to a data daemon

    def __post_init__(self) -> None:
        for name in ("map_initial_bytes", "map_step_bytes", "map_max_bytes"):
            if getattr(self, name) < MIB or getattr(self, name) % PAGE_BYTES:
                raise ValueError(f"{name} must be at least 1 MiB and whole pages of {PAGE_BYTES}")
        if self.map_initial_bytes > self.map_max_bytes:
            raise ValueError("map_initial_bytes must not exceed map_max_bytes")
        if not 64 * 1024 <= self.reserve_bytes <= self.map_initial_bytes // 2:
            raise ValueError("reserve_bytes must be from 64 KiB to half of map_initial_bytes")
        if not self.reserve_bytes < self.grow_below_bytes:
            raise ValueError("grow_below_bytes must exceed reserve_bytes")
        if not 1 <= self.chains_per_file <= CHAINS_PER_FILE_MAX:
            raise ValueError(f"chains_per_file must be from 1 to {CHAINS_PER_FILE_MAX}")
        if not 0.05 <= self.lease_s < self.lease_timeout_s <= self.session_timeout_s:
            raise ValueError(
                "lease_s must be at least 0.05 and less than lease_timeout_s, "
                "and that at most session_timeout_s"
            )
        for name in ("session_timeout_s", "usage_refresh_s", "data_deadline_s"):
            if not 0.1 <= getattr(self, name) <= 3600:
                raise ValueError(f"{name} must be from 0.1 to 3600")


@dataclass(frozen=True, slots=True)
class MetadConfig:
    daemon: MetadCommon = field(default_factory=MetadCommon)
    meta: MetaConfig = field(default_factory=MetaConfig)
