"""The pool for Prometheus: asked when it is read, in the thread that serves the metrics. So it only
looks, and at copies of what the pool's thread may change meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client import Metric

    from superfs.data.kvcache.namespaces import Namespace
    from superfs.data.kvcache.pool import Pool

BOTH = ("memory", "disk")
Row = tuple[tuple[str, ...], float]


def _family(
    kind: str, name: str, text: str, labels: tuple[str, ...], rows: Iterable[Row]
) -> Metric:
    made = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
    family = made(f"superfs_kvcache_{name}", text, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


class PoolMetrics(Collector):
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def describe(self) -> list[Metric]:
        """Nothing: namespaces come and go."""
        return []

    def collect(self) -> Iterator[Metric]:
        spaces = list(self._pool.spaces.values())
        yield from self._of_the_pool()
        yield from _by_tier(spaces)
        for name, text, attribute in (
            ("asked_blocks", "Blocks that were asked for", "asked"),
            ("found_blocks", "Blocks of these that were found", "found"),
            ("promoted_blocks", "Blocks that came back from disk", "promoted"),
            ("dropped_blocks", "Blocks not stored for want of room", "dropped"),
        ):
            rows = [((s.made.name,), getattr(s, attribute)) for s in spaces]
            yield _family("counter", name, text, ("namespace",), rows)
        pinned = [((s.made.name,), s.pinned_bytes) for s in spaces]
        yield _family("gauge", "pinned_bytes", "Pinned bytes", ("namespace",), pinned)

    def _of_the_pool(self) -> Iterator[Metric]:
        pool, tier = self._pool, self._pool.tier
        capacity: list[Row] = [(("memory",), pool.capacity_bytes)]
        damaged: list[Row] = [(("memory",), pool.damaged)]
        if tier is not None:
            capacity.append((("disk",), tier.config.disk_bytes))
            damaged.append((("disk",), tier.damaged))
        yield _family("gauge", "capacity_bytes", "Size of the pool", ("tier",), capacity)
        text = "Blocks whose bytes did not match"
        yield _family("counter", "damaged_blocks", text, ("tier",), damaged)
        yield _family("gauge", "leases", "Gets in progress", (), [((), len(pool.leases))])
        yield _family("gauge", "puts", "Puts in progress", (), [((), len(pool.puts))])
        if tier is None:
            return
        written, unwritten = [((), tier.written)], [((), tier.unwritten)]
        yield _family("counter", "written_blocks", "Blocks written to disk", (), written)
        text = "Blocks that left memory before their turn, or found no room on disk"
        yield _family("counter", "unwritten_blocks", text, (), unwritten)
        text = "Blocks that wait for the disk"
        yield _family("gauge", "waiting_blocks", text, (), [((), len(tier.dirty))])
        segments = [((), tier.capacity_bytes)]
        yield _family("gauge", "segment_bytes", "Disk that the pool has taken", (), segments)


def _by_tier(spaces: list[Namespace]) -> Iterator[Metric]:
    tables = [(s.made.name, tier, s if tier == "memory" else s.shelf)
              for s in spaces for tier in BOTH]  # fmt: skip
    there = [((name, tier), one) for name, tier, one in tables if one is not None]
    labels = ("namespace", "tier")
    for kind, name, text, rows in (
        ("gauge", "blocks", "Stored blocks", [(k, len(o.table)) for k, o in there]),
        ("gauge", "used_bytes", "Bytes in use", [(k, o.table.used) for k, o in there]),
        ("gauge", "quota_bytes", "Quotas", [(k, o.table.capacity) for k, o in there]),
        ("counter", "evicted_blocks", "Evicted blocks", [(k, o.evicted) for k, o in there]),
    ):
        yield _family(kind, name, text, labels, rows)
