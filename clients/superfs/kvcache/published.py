"""What the Mooncake papers say of their traces, to be set beside what is replayed here.

Table 1 of the report (arXiv 2407.00079): hit rates of one pool over a trace of an hour that is not
among those published later, so the shapes compare and the values do not. Figure 9 of the paper
(FAST 2025): which part of the highest possible hit rate a pool of three million tokens has, LRU.
"""

from __future__ import annotations

TABLE_1: dict[str, dict[int, float]] = {
    "lru": {100_000: 0.51, 50_000: 0.50, 30_000: 0.48, 10_000: 0.40, 1_000: 0.30},
    "lfu": {100_000: 0.51, 50_000: 0.49, 30_000: 0.43, 10_000: 0.35, 1_000: 0.30},
    "length-aware": {100_000: 0.50, 50_000: 0.48, 30_000: 0.42, 10_000: 0.35, 1_000: 0.30},
}
"""By policy and capacity in blocks of 512 tokens."""
FIGURE_9: dict[str, float] = {"conversation": 0.41, "synthetic": 0.46, "toolagent": 0.75}
"""By the name of the trace."""
FIGURE_9_BLOCKS = 5859
"""Three million tokens."""


def table_1(policy: str, capacity_blocks: int) -> float | None:
    """None: it says nothing of that."""
    return TABLE_1.get(policy, {}).get(capacity_blocks)
