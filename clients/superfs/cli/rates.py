"""Rates and latencies from two looks at counters that only go up. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIRST_BUCKET_US = 1.024


@dataclass(frozen=True, slots=True)
class Rate:
    """Of one kind of request."""

    name: str
    per_s: float
    errors_per_s: float
    mean_us: float
    p50_us: float
    p99_us: float


def rates(before: Mapping[str, Any], after: Mapping[str, Any], seconds: float) -> list[Rate]:
    """Of the `operations` of a mount (superfs.mount.figures), the most frequent first."""
    found = []
    for name, now in after.items():
        then = before.get(name, {})
        counts = _less(now["buckets"], then.get("buckets", ()))
        total, errors = sum(counts), now["errors"] - then.get("errors", 0)
        if not total and not errors:
            continue
        mean = (now["ns"] - then.get("ns", 0)) / total / 1000 if total else 0.0
        bounds = [FIRST_BUCKET_US * 2**index for index in range(len(counts))]
        found.append(
            Rate(
                name, total / seconds, errors / seconds, mean,
                quantile(counts, bounds, 0.5), quantile(counts, bounds, 0.99),
            )
        )  # fmt: skip
    return sorted(found, key=lambda rate: -rate.per_s)


def _less(now: Sequence[int], then: Sequence[int]) -> list[int]:
    return [a - b for a, b in zip(now, [*then, *[0] * len(now)], strict=False)]


def quantile(counts: Sequence[float], bounds: Sequence[float], part: float) -> float:
    """`counts`: how many lay between the bound before and this one. Within a bucket they are taken
    to be spread evenly; 0 when there are none."""
    total = sum(counts)
    wanted, below = part * total, 0.0
    for index, (count, bound) in enumerate(zip(counts, bounds, strict=True)):
        if count and below + count >= wanted:
            low = bounds[index - 1] if index else 0.0
            if bound == float("inf"):
                return low
            return low + (bound - low) * (wanted - below) / count
        below += count
    return 0.0


def hit_rates(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, tuple[int, int, float | None]]:
    """By cache: hits, misses, and the part of hits in percent, None where nothing was asked."""
    found = {}
    for name, now in after.items():
        then = before.get(name, {"hits": 0, "misses": 0})
        hits = max(0, now["hits"] - then["hits"])
        misses = max(0, now["misses"] - then["misses"])
        asked = hits + misses
        found[name] = hits, misses, 100 * hits / asked if asked else None
    return found


def per_second(
    before: Mapping[str, float], after: Mapping[str, float], seconds: float
) -> dict[str, float]:
    return {name: (value - before.get(name, 0)) / seconds for name, value in after.items()}
