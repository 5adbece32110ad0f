"""How often each operation was served, and how long it took: cheap enough for the hot path.

Durations are counted in powers of two of microseconds; Prometheus reads them when it asks.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client import Metric

    from superfs.client.traffic import Traffic

BUCKETS = 26  # up to half a minute


class Gauge:
    """Of one operation."""

    __slots__ = ("buckets", "errors", "ns")

    def __init__(self) -> None:
        self.buckets = [0] * BUCKETS
        self.errors = 0
        self.ns = 0

    @property
    def count(self) -> int:
        return sum(self.buckets)

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        started = time.perf_counter_ns()
        try:
            yield
        finally:
            self.note(time.perf_counter_ns() - started)

    def note(self, ns: int) -> None:
        self.buckets[min((ns >> 10).bit_length(), BUCKETS - 1)] += 1
        self.ns += ns


class Hits:
    """Of one cache: how often it had the answer, and how often somebody had to be asked."""

    __slots__ = ("hits", "misses")

    def __init__(self) -> None:
        self.hits = self.misses = 0

    def __call__(self) -> tuple[int, int]:
        return self.hits, self.misses


class Meter(Collector):
    def __init__(self) -> None:
        self.gauges: dict[str, Gauge] = {}
        self.figures: dict[str, tuple[str, Callable[[], float]]] = {}
        """Name -> (what it is, how many now)."""
        self.caches: dict[str, Callable[[], tuple[int, int]]] = {}
        """Name -> (hits, misses); a `Hits` is one."""
        self.traffic: Mapping[str, Traffic] = {}
        """By daemon."""
        self.durations: dict[str, tuple[str, Gauge]] = {}

    def of(self, operation: str) -> Gauge:
        return self.gauges.setdefault(operation, Gauge())

    def served(self, *operations: str) -> int:
        """How many requests of these kinds were answered."""
        return sum(self.of(operation).count for operation in operations)

    def collect(self) -> Iterable[Metric]:
        seconds = HistogramMetricFamily(
            "superfs_mount_seconds", "Duration of FUSE requests", labels=["operation"]
        )
        errors = CounterMetricFamily(
            "superfs_mount_errors", "FUSE requests answered with an errno", labels=["operation"]
        )
        for operation, gauge in list(self.gauges.items()):
            seconds.add_metric([operation], _cumulated(gauge.buckets), gauge.ns / 1e9)
            errors.add_metric([operation], gauge.errors)
        hits = CounterMetricFamily(
            "superfs_mount_cache_hits", "Answered from memory", labels=["cache"]
        )
        misses = CounterMetricFamily(
            "superfs_mount_cache_misses", "A daemon had to be asked", labels=["cache"]
        )
        for cache, read in self.caches.items():
            for metric, value in zip((hits, misses), read(), strict=True):
                metric.add_metric([cache], value)
        figures = [
            GaugeMetricFamily(f"superfs_mount_{name}", text, value=count())
            for name, (text, count) in self.figures.items()
        ]
        durations = [
            HistogramMetricFamily(
                f"superfs_mount_{name}_seconds",
                text,
                buckets=_cumulated(gauge.buckets),
                sum_value=gauge.ns / 1e9,
            )
            for name, (text, gauge) in self.durations.items()
        ]
        return [seconds, errors, hits, misses, *self._traffic(), *figures, *durations]

    def _traffic(self) -> list[Metric]:
        labels = ["daemon", "direction"]
        messages = CounterMetricFamily(
            "superfs_mount_messages", "Messages of streams", labels=labels
        )
        size = CounterMetricFamily("superfs_mount_message_bytes", "What was in them", labels=labels)
        for daemon, traffic in dict(self.traffic).items():
            messages.add_metric([daemon, "sent"], traffic.sent)
            messages.add_metric([daemon, "received"], traffic.received)
            size.add_metric([daemon, "sent"], traffic.sent_bytes)
            size.add_metric([daemon, "received"], traffic.received_bytes)
        return [messages, size]


def _cumulated(buckets: list[int]) -> list[tuple[str, float]]:
    total = 0
    result: list[tuple[str, float]] = []
    for index, number in enumerate(buckets):
        total += number
        bound = "+Inf" if index == BUCKETS - 1 else repr((1 << index) * 1024 / 1e9)
        result.append((bound, float(total)))
    return result
