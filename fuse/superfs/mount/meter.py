"""How often each operation was served, and how long it took: cheap enough for the hot path.

Durations are counted in powers of two of microseconds; Prometheus reads them when it asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import Metric

BUCKETS = 26  # up to half a minute


class Gauge:
    """Of one operation."""

    __slots__ = ("buckets", "errors", "ns")

    def __init__(self) -> None:
        self.buckets = [0] * BUCKETS
        self.errors = 0
        self.ns = 0

    def note(self, ns: int) -> None:
        self.buckets[min((ns >> 10).bit_length(), BUCKETS - 1)] += 1
        self.ns += ns


class Meter(Collector):
    def __init__(self) -> None:
        self.gauges: dict[str, Gauge] = {}
        self.figures: dict[str, tuple[str, Callable[[], int]]] = {}
        """Name -> (what it is, how many now)."""

    def of(self, operation: str) -> Gauge:
        return self.gauges.setdefault(operation, Gauge())

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
        figures = [
            GaugeMetricFamily(f"superfs_mount_{name}", text, value=count())
            for name, (text, count) in self.figures.items()
        ]
        return [seconds, errors, *figures]


def _cumulated(buckets: list[int]) -> list[tuple[str, float]]:
    total = 0
    result: list[tuple[str, float]] = []
    for index, number in enumerate(buckets):
        total += number
        bound = "+Inf" if index == BUCKETS - 1 else repr((1 << index) * 1024 / 1e9)
        result.append((bound, float(total)))
    return result
