"""The performance model of FastDecode: how many sequences, and how many R-workers.

N layers; T(B) seconds of the S-part of one layer for a mini-batch of B rows; R seconds of one
R-worker for a cached token in one layer; C tokens that one R-worker holds; S tokens of a sequence.
Two mini-batches take turns, so 2B sequences are in progress, with S/2 tokens each on average:

    latency     of a token 2*N*T(B), of a sequence S times that: at most L
    efficiency  E(B) = B / T(B); beyond its knee a larger batch gains nothing
    balance     a mini-batch takes the R-workers B*S/2 * R/P: T(B) when P = B*S*R / (2*T(B))
    memory      2*B*S/2 <= C*P
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Mapping

KNEE = 0.9
"""Of the best efficiency."""


@dataclass(frozen=True, slots=True)
class Costs:
    layers: int
    s_part_s: Mapping[int, float]  # T(B), for the batches that were measured
    r_part_s: float  # R
    capacity_tokens: int  # C


@dataclass(frozen=True, slots=True)
class Plan:
    mini_batch: int  # B
    workers: int  # P
    tokens_per_s: float
    token_latency_s: float
    sequence_latency_s: float
    binds: str  # latency, efficiency, memory or balance

    @property
    def sequences(self) -> int:
        return 2 * self.mini_batch


def step_s(costs: Costs, mini_batch: int, length: int, workers: int) -> float:
    """Of one layer of one mini-batch, when the stages overlap."""
    attention = mini_batch * length / 2 * costs.r_part_s / workers
    return max(costs.s_part_s[mini_batch], attention)


def tokens_per_s(costs: Costs, mini_batch: int, length: int, workers: int) -> float:
    return mini_batch / (costs.layers * step_s(costs, mini_batch, length, workers))


def plan(
    costs: Costs, length: int, *, latency_s: float = math.inf, workers_max: int = 1 << 16
) -> Plan:
    """`latency_s`: of a whole sequence. NO_SPACE: no measured batch is as quick."""
    if length < 1 or not latency_s > 0 or workers_max < 1:
        raise FsError(Code.INVALID, "a length, a latency and workers of at least 1")
    batches = sorted(costs.s_part_s)
    best = max(batch / costs.s_part_s[batch] for batch in batches)
    knee = next(b for b in batches if b / costs.s_part_s[b] >= KNEE * best)
    quick = [b for b in batches if 2 * costs.layers * length * costs.s_part_s[b] <= latency_s]
    if not quick:
        least = 2 * costs.layers * length * costs.s_part_s[batches[0]]
        raise FsError(
            Code.NO_SPACE,
            f"{latency_s:.3g} s for {length} tokens cannot be kept: the weights alone take "
            f"{least:.3g} s for a mini-batch of {batches[0]}",
        )
    wanted = min(knee, quick[-1])
    for batch in reversed([b for b in batches if b <= wanted]):
        balance = math.ceil(batch * length * costs.r_part_s / (2 * costs.s_part_s[batch]))
        memory = math.ceil(batch * length / costs.capacity_tokens)
        workers = max(1, balance, memory)
        if workers <= workers_max:
            break
    else:
        workers = workers_max
        balance = memory = workers
    if batch < wanted or workers == workers_max < max(balance, memory):
        binds = "balance" if balance >= memory else "memory"
    elif wanted < knee:
        binds = "latency"
    else:
        binds = "memory" if memory > balance else "efficiency"
    each = step_s(costs, batch, length, workers)
    return Plan(
        batch, workers, batch / (costs.layers * each), 2 * costs.layers * each,
        2 * costs.layers * each * length, binds,
    )  # fmt: skip
