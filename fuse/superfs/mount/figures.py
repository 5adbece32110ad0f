"""What a mount counts, under which names; and all of it at once, for `superfs stats`.

Prometheus reads the same (meter.py). Counters only go up: a rate is a difference of two of them.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from superfs.client.config import ClientConfig
    from superfs.client.connection import Connection
    from superfs.mount.meter import Meter
    from superfs.mount.recalls import Recalls
    from superfs.mount.services import Services

VERSION = 1


def watch(meter: Meter, services: Services, recalls: Recalls, connection: Connection) -> None:
    mounted, memory, moved = services.mounted, services.memory, connection.data.bypass.moved
    meter.figures |= {
        "inodes": ("Inodes the kernel knows", lambda: len(mounted.nodes)),
        "names": ("Names remembered", lambda: mounted.cache.names),
        "leases": ("Leases held", lambda: len(mounted.leases.held())),
        "leases_returned": ("Leases given back", lambda: memory.returned),
        "recalls": ("Invalidations received", lambda: recalls.received),
        "opens": ("Inodes registered as open", lambda: mounted.opens.registered),
        "evicted": ("Inodes forgotten for want of memory", lambda: memory.evicted),
        "memory_bytes": ("Resident memory", lambda: memory.resident),
        "memory_max_bytes": ("What it stays under", lambda: memory.budget.max_bytes),
    }
    meter.figures |= {
        "read_bytes_descriptor": ("Read through descriptors", lambda: moved.read_descriptor),
        "read_bytes_grpc": ("Read through gRPC", lambda: moved.read_grpc),
        "written_bytes_descriptor": (
            "Written through descriptors",
            lambda: moved.written_descriptor,
        ),
        "written_bytes_memfd": ("Written by shared memory", lambda: moved.written_memfd),
        "written_bytes_grpc": ("Written through gRPC", lambda: moved.written_grpc),
    }
    meter.figures |= services.prefetch.figures
    meter.figures |= connection.meta.figures
    meter.durations["message"] = ("Questions to daemons, until answered", mounted.messages)
    meter.caches |= {
        "names": lambda: _rest(meter.served("lookup"), services.names.asked),
        "attributes": lambda: _rest(meter.served("getattr", "open"), mounted.fetched),
        "listings": services.listings.kept,
        "contents": services.files.cached_reads,
    }
    meter.traffic = connection.traffic


def _rest(served: int, asked: int) -> tuple[int, int]:
    return max(0, served - asked), asked


class Figures:
    def __init__(
        self,
        meter: Meter,
        mountpoint: str,
        config: ClientConfig,
        subdir: str = "/",
        device: str = "",
    ) -> None:
        """`device`: of the mount, as MAJOR:MINOR."""
        self._meter = meter
        self._device = device
        self._subdir = subdir
        self._mountpoint = mountpoint
        self._config = config
        self._began = time.monotonic()

    def now(self) -> dict[str, Any]:
        """Times in seconds; `buckets`: requests that took less than 1.024 us, twice that, and so
        on."""
        meter = self._meter
        return {
            "version": VERSION,
            "mountpoint": self._mountpoint,
            "device": self._device,
            "subdir": self._subdir,
            "cluster": list(self._config.cluster),
            "token_file": os.path.abspath(self._config.token_file),
            "drop_behind": self._config.drop_behind,
            "pid": os.getpid(),
            "at_s": time.monotonic(),
            "up_s": time.monotonic() - self._began,
            "operations": {
                name: {"buckets": list(gauge.buckets), "errors": gauge.errors, "ns": gauge.ns}
                for name, gauge in meter.gauges.items()
                if gauge.count or gauge.errors
            },
            "caches": {
                name: dict(zip(("hits", "misses"), read(), strict=True))
                for name, read in meter.caches.items()
            },
            "daemons": {
                name: {
                    "sent": traffic.sent,
                    "received": traffic.received,
                    "sent_bytes": traffic.sent_bytes,
                    "received_bytes": traffic.received_bytes,
                }
                for name, traffic in dict(meter.traffic).items()
            },
            "figures": {name: count() for name, (_, count) in meter.figures.items()},
        }
