"""What a client must know to find its cluster and how patient it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ClientConfig:
    cluster: tuple[str, ...] = ("unix:/run/superfs/clusterd.sock",)
    token_file: Path = Path("/etc/superfs/token")
    retry_timeout_s: float = 30.0  # how long an outage is ridden out before callers see an error
    keep_alive_s: float = 5.0
    client_name: str = "superfs client"  # for people: shown in the daemons' logs
    data_in_flight_bytes: int = 16 * 1024 * 1024
    bypass: bool = True  # data of daemons on this host goes past gRPC
    drop_behind: bool = True  # large reads and writes of mounts leave nothing in other page caches
    data_uncommitted_bytes: int = 64 * 1024 * 1024  # kept to be sent again; then commits are asked

    def __post_init__(self) -> None:
        if not self.cluster:
            raise ValueError("cluster must name at least one address")
        if self.retry_timeout_s <= 0 or self.keep_alive_s <= 0:
            raise ValueError("retry_timeout_s and keep_alive_s must be positive")
        if self.data_in_flight_bytes <= 0:
            raise ValueError("data_in_flight_bytes must be positive")
        if self.data_uncommitted_bytes < self.data_in_flight_bytes:
            raise ValueError("data_uncommitted_bytes must be at least data_in_flight_bytes")
