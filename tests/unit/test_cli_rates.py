"""Rates, latencies and hit rates from two looks at counters."""

from __future__ import annotations

import math

import pytest

from superfs.cli import daemonrates, rates
from superfs.cli.stats import describe_mount
from superfs.cli.statsview import duration, number, size, view


def operation(buckets: list[int], *, errors: int = 0, ns: int = 0) -> dict[str, object]:
    return {"buckets": buckets, "errors": errors, "ns": ns}


def test_rates_are_differences() -> None:
    before = {"read": operation([0, 10, 0], ns=5000), "gone": operation([1, 0, 0])}
    after = {
        "read": operation([0, 30, 0], ns=45_000),
        "gone": operation([1, 0, 0]),
        "new": operation([0, 0, 100], errors=4, ns=100_000),
    }
    new, read = rates.rates(before, after, 2.0)
    assert (new.name, new.per_s, new.errors_per_s, new.mean_us) == ("new", 50, 2, 1)
    assert (read.name, read.per_s, read.mean_us) == ("read", 10, 2)
    assert 1.024 < read.p50_us < read.p99_us <= 2.048
    assert 2.048 < new.p50_us < new.p99_us <= 4.096


@pytest.mark.parametrize(
    ("counts", "part", "expected"),
    [
        ([0, 0, 0], 0.5, 0.0),
        ([10, 0, 0], 0.5, 0.5),
        ([0, 10, 0], 0.5, 1.5),
        ([5, 5, 0], 0.5, 1.0),
        ([1, 0, 1], 1.0, 2.0),
    ],
)
def test_quantiles_lie_within_their_bucket(
    counts: list[float], part: float, expected: float
) -> None:
    assert rates.quantile(counts, [1.0, 2.0, math.inf], part) == expected


def test_what_was_not_asked_has_no_hit_rate() -> None:
    found = rates.hit_rates(
        {"names": {"hits": 10, "misses": 5}, "listings": {"hits": 3, "misses": 3}},
        {
            "names": {"hits": 40, "misses": 15},
            "listings": {"hits": 3, "misses": 3},
            "new": {"hits": 1, "misses": 0},
        },
    )
    assert found == {"names": (30, 10, 75.0), "listings": (0, 0, None), "new": (1, 0, 100.0)}


FIRST = """\
superfs_rpc_requests_total{method="Execute"} 10
superfs_rpc_requests_total{method="Session"} 90
process_cpu_seconds_total 1.0
process_resident_memory_bytes 5e7
superfs_meta_operations_total{code="OK",verb="create"} 5
superfs_meta_commit_seconds_bucket{le="0.001"} 1
superfs_meta_commit_seconds_bucket{le="0.002"} 1
superfs_meta_commit_seconds_bucket{le="+Inf"} 1
superfs_meta_commit_seconds_count 1
superfs_meta_commit_operations_sum 5
superfs_meta_leases 4
"""
SECOND = """\
superfs_rpc_requests_total{method="Execute"} 20
superfs_rpc_requests_total{method="Session"} 180
process_cpu_seconds_total 1.5
process_resident_memory_bytes 6e7
superfs_meta_operations_total{code="OK",verb="create"} 45
superfs_meta_operations_total{code="EXISTS",verb="create"} 5
superfs_meta_commit_seconds_bucket{le="0.001"} 1
superfs_meta_commit_seconds_bucket{le="0.002"} 5
superfs_meta_commit_seconds_bucket{le="+Inf"} 5
superfs_meta_commit_seconds_count 5
superfs_meta_commit_operations_sum 45
superfs_meta_leases 7
"""


def test_what_a_daemon_did() -> None:
    found = daemonrates.describe(daemonrates.parse(FIRST, 10.0), daemonrates.parse(SECOND, 12.0))
    assert found["requests_per_s"] == 50
    assert found["cpu_percent"] == 25
    assert found["memory_bytes"] == 6e7
    assert found["operations_per_s"] == {"create": 22.5}
    assert (found["commits_per_s"], found["operations_per_commit"]) == (2, 10)
    assert found["commit_p50_ms"] == pytest.approx(1.5)
    assert found["leases"] == 7
    assert "syncs_per_s" not in found, "it is no data daemon"


def mount(at_s: float, reads: int) -> dict[str, object]:
    return {
        "mountpoint": "/mnt",
        "pid": 7,
        "at_s": at_s,
        "operations": {"read": operation([reads, 0], ns=reads * 500)},
        "caches": {"names": {"hits": reads, "misses": 0}, "listings": {"hits": 0, "misses": 0}},
        "daemons": {
            "metad-1": {"sent": reads, "received": 0, "sent_bytes": 10 * reads, "received_bytes": 0}
        },
        "figures": {
            "inodes": 3, "names": 2, "leases": 1, "leases_returned": reads, "recalls": 0,
            "local_changes": 0, "exclusive": 0, "log_entries": 0, "log_age_seconds": 0.0,
            "evicted": 0, "memory_bytes": 2**26, "memory_max_bytes": 2**29, "contents_bytes": 0,
        },
    }  # fmt: skip


def test_a_report_is_seen() -> None:
    described = describe_mount(mount(1.0, 10), mount(3.0, 50))
    assert described["leases_returned_per_s"] == 20
    assert described["daemons"]["metad-1"]["sent_bytes"] == 200
    report = {
        "mounts": [described],
        "daemons": {
            "metad-1": daemonrates.describe(
                daemonrates.parse(FIRST, 0.0), daemonrates.parse(SECOND, 1.0)
            ),
            "datad-2": {"error": "nobody answers"},
        },
        "daemons_unseen": "no cluster is named",
    }
    from io import StringIO

    from rich.console import Console

    screen = Console(file=StringIO(), width=200)
    screen.print(view(report))
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    for text in ("/mnt", "64.0 MiB of 512.0 MiB", "names 100.0%", "listings -", "nobody answers",
                 "4.0 commits/s of 10.0", "no cluster is named"):  # fmt: skip
        assert text in shown, text


def test_figures_for_people() -> None:
    assert [number(0.04), number(9.96), number(12_345.6)] == ["0.0", "10.0", "12,346"]
    assert [duration(12.3), duration(12_345), duration(2.5e6)] == ["12 us", "12.3 ms", "2.50 s"]
    assert [size(12), size(2048), size(3 * 2**30)] == ["12 B", "2.0 KiB", "3.0 GiB"]
