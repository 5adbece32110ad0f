"""What daemons did between two looks at their metrics. Pure but for `look`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from superfs.cli.rates import quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.cli.admin import Admin
    from superfs.cli.options import Target

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Metrics:
    """One look at one daemon."""

    at_s: float
    samples: dict[str, list[tuple[Labels, float]]]

    def total(self, name: str, **labels: str) -> float:
        """Over all that have these labels; 0 where there are none."""
        wanted = frozenset(labels.items())
        return sum(value for have, value in self.samples.get(name, ()) if wanted <= have)

    def by(self, name: str, label: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for labels, value in self.samples.get(name, ()):
            key = dict(labels).get(label, "")
            found[key] = found.get(key, 0.0) + value
        return found

    def buckets(self, name: str) -> dict[float, float]:
        """Of a histogram: bound -> how many were not above it."""
        return {float(k): v for k, v in self.by(f"{name}_bucket", "le").items() if k}


def parse(text: str, at_s: float) -> Metrics:
    from prometheus_client.parser import text_string_to_metric_families

    samples: dict[str, list[tuple[Labels, float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            pair = frozenset(sample.labels.items()), sample.value
            samples.setdefault(sample.name, []).append(pair)
    return Metrics(at_s, samples)


def look(target: Target, admin: Admin) -> dict[str, Metrics | str]:
    """By daemon; text: why it could not be asked."""
    from superfs.core.errors import FsError

    places: dict[str, Sequence[str]] = {"clusterd": target.cluster}
    places |= {daemon.name: daemon.node.addresses for daemon in admin.daemons}
    found: dict[str, Metrics | str] = {}
    for name, addresses in places.items():
        try:
            found[name] = parse(admin.metrics(addresses), time.monotonic())
        except FsError as error:
            found[name] = error.detail or error.code.name
    return found


def describe(before: Metrics, after: Metrics) -> dict[str, Any]:
    """Rates are per second, of the time in between; what a daemon does not have is left out."""
    seconds = max(after.at_s - before.at_s, 1e-9)

    def rate(name: str, **labels: str) -> float:
        return (after.total(name, **labels) - before.total(name, **labels)) / seconds

    found: dict[str, Any] = {
        "requests_per_s": rate("superfs_rpc_requests_total"),
        "cpu_percent": 100 * rate("process_cpu_seconds_total"),
        "memory_bytes": after.total("process_resident_memory_bytes"),
    }
    if "superfs_meta_commit_seconds_count" in after.samples:
        commits = rate("superfs_meta_commit_seconds_count")
        grouped = rate("superfs_meta_commit_operations_sum")
        verbs = after.by("superfs_meta_operations_total", "verb")
        then = before.by("superfs_meta_operations_total", "verb")
        operations = {verb: (n - then.get(verb, 0)) / seconds for verb, n in verbs.items()}
        found |= {
            "operations_per_s": {verb: n for verb, n in operations.items() if n},
            "commits_per_s": commits,
            "operations_per_commit": grouped / commits if commits else 0.0,
            **_times("commit", "superfs_meta_commit_seconds", before, after),
            "invalidations_per_s": rate("superfs_meta_invalidations_total"),
            "leases": after.total("superfs_meta_leases"),
        }
    if "superfs_data_sync_seconds_count" in after.samples:
        found |= {
            "read_bytes_per_s": rate("superfs_data_read_bytes_total"),
            "written_bytes_per_s": rate("superfs_data_written_bytes_total"),
            "syncs_per_s": rate("superfs_data_sync_seconds_count"),
            **_times("sync", "superfs_data_sync_seconds", before, after),
        }
    return found


def _times(what: str, name: str, before: Metrics, after: Metrics) -> dict[str, float]:
    then, now = before.buckets(name), after.buckets(name)
    bounds = sorted(now)
    upto = [now[bound] - then.get(bound, 0.0) for bound in bounds]
    counts = [a - b for a, b in zip(upto, [0.0, *upto], strict=False)]
    return {
        f"{what}_p50_ms": 1000 * quantile(counts, bounds, 0.5),
        f"{what}_p99_ms": 1000 * quantile(counts, bounds, 0.99),
    }
