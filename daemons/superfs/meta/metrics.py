"""What a metadata daemon counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from superfs.core.errors import Code
from superfs.daemon.metrics import BUCKETS_S

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class MetaMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.operations = Counter(
            "superfs_meta_operations", "Operations", ("verb", "code"), registry=registry
        )
        self._counts: dict[tuple[str, int], Counter] = {}
        self.commit_operations = Histogram(
            "superfs_meta_commit_operations",
            "Operations of one commit; of a bulk operation each entry",
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self.commit_seconds = Histogram(
            "superfs_meta_commit_seconds",
            "From the begin of a write transaction until it is durable",
            buckets=BUCKETS_S,
            registry=registry,
        )
        self.spoiled = Counter(
            "superfs_meta_spoiled", "Transactions run again for one operation", registry=registry
        )
        self.invalidations = Counter(
            "superfs_meta_invalidations", "Messages to holders of leases", registry=registry
        )
        self.acknowledged_seconds = Histogram(
            "superfs_meta_acknowledged_seconds",
            "From an invalidation until its acknowledgement",
            buckets=BUCKETS_S,
            registry=registry,
        )
        self.lease_refusals = Counter(
            "superfs_meta_lease_refusals",
            "Leases recalled from everybody for too many invalidations",
            registry=registry,
        )
        self.exclusive_grants = Counter(
            "superfs_meta_exclusive_grants", "Exclusive leases granted", registry=registry
        )
        self.exclusive_recalls = Counter(
            "superfs_meta_exclusive_recalls",
            "Exclusive leases that somebody else wanted",
            registry=registry,
        )
        self.evicted_files = Counter(
            "superfs_meta_evicted_files", "Files that caches have evicted", registry=registry
        )
        self.evicted_bytes = Counter("superfs_meta_evicted_bytes", "Their sizes", registry=registry)
        self.replayed = Counter(
            "superfs_meta_replayed", "Mutations answered from their record", registry=registry
        )

    def count(self, verb: str, code: int) -> None:
        child = self._counts.get((verb, code))
        if child is None:
            child = self.operations.labels(verb or "none", Code(code).name)
            self._counts[verb, code] = child
        child.inc()

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that is read when somebody asks."""
        Gauge(f"superfs_meta_{name}", text, registry=self._registry).set_function(value)
