"""What a data daemon counts, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

from superfs.daemon.metrics import BUCKETS_S

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from superfs.data.passed import Passed
    from superfs.data.shared import SharedBuffers
    from superfs.data.store import DataStore


class DataMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        written = Counter(
            "superfs_data_written_bytes",
            "Bytes that clients wrote, by the way they came",
            ("path",),
            registry=registry,
        )
        self.written_bytes = written.labels("grpc")
        self.written_by_memfd = written.labels("memfd")
        self.written_by_descriptor = written.labels("descriptor")
        read = Counter(
            "superfs_data_read_bytes",
            "Bytes that clients read, by the way they went; through descriptors: as clients say",
            ("path",),
            registry=registry,
        )
        self.read_bytes = read.labels("grpc")
        self.read_by_descriptor = read.labels("descriptor")
        self.disk_reads = Counter(
            "superfs_data_disk_reads", "Reads that were not in the page cache", registry=registry
        )
        self.damaged = Counter(
            "superfs_data_damaged_reads", "Reads that met damaged blocks", registry=registry
        )
        self.refused = Counter(
            "superfs_data_refused", "Requests not done, by code", ("code",), registry=registry
        )
        self.sync_seconds = Histogram(
            "superfs_data_sync_seconds", "Duration of syncs", buckets=BUCKETS_S, registry=registry
        )
        self.compacted_bytes = Counter(
            "superfs_data_compacted_bytes", "Bytes moved by compaction", registry=registry
        )
        self.scrubbed_bytes = Counter(
            "superfs_data_scrubbed_bytes", "Bytes verified by the scrubber", registry=registry
        )
        self.scrub_damaged = Gauge(
            "superfs_data_scrub_damaged",
            "Damaged pieces that the present or last round of the scrubber found",
            registry=registry,
        )

    def watch_passed(self, passed: Passed, shared: SharedBuffers) -> None:
        buffers = Gauge(
            "superfs_data_shared_buffers",
            "Pieces of memory that clients on this host share for their writes",
            registry=self._registry,
        )
        buffers.set_function(lambda: len(shared))
        held = Gauge(
            "superfs_data_passed_descriptors",
            "Descriptors of segments that clients on this host hold",
            registry=self._registry,
        )
        held.set_function(lambda: passed.descriptors)
        pinned = Gauge(
            "superfs_data_pinned_bytes",
            "Space of removed segments that descriptors of clients keep",
            registry=self._registry,
        )
        pinned.set_function(lambda: passed.pinned_bytes)

    def watch(self, store: DataStore) -> None:
        """Gauges that ask the store when they are read."""

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"superfs_data_{name}", text, registry=self._registry)

        gauge("lent_segments", "Segments that clients on this host write to").set_function(
            lambda: len(store.lending)
        )
        gauge("segments", "Segment files").set_function(lambda: len(store.segments.by_number))
        gauge("live_bytes", "Visible bytes").set_function(
            lambda: sum(s.live for s in list(store.segments.by_number.values()))
        )
        gauge("extents", "Pieces in the index").set_function(lambda: store.index.count("extent"))
        gauge("changed_chunks", "Chunks that the index does not have yet").set_function(
            lambda: len(store.chunks)
        )
        gauge("index_free_bytes", "Room left in the index").set_function(
            lambda: store.index.free_bytes
        )
