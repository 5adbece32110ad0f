"""How many bytes each rank writes of what several hold. No IO, no torch.

Shards with the same holders form a group; a group's bytes can be dealt to its holders in any
proportion. `level` finds the proportions with the lowest highest load, by pouring one group after
the other onto the loads of all others until nothing moves: descent by blocks on the sum of squares,
whose minimum has the lowest maximum too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from superfs.checkpoint.limits import ALIGN_BYTES, PIECE_BYTES_MIN

if TYPE_CHECKING:
    from collections.abc import Sequence

PASSES_MAX = 200
TOLERANCE = 1e-3


def pour(total: float, levels: Sequence[float]) -> list[float]:
    """Water on uneven ground: how much comes to stand over each place."""
    order = sorted(levels)
    filled, level = 0.0, order[-1]
    for count, (here, above) in enumerate(zip(order, [*order[1:], float("inf")], strict=True), 1):
        room = (above - here) * count
        if filled + room >= total:
            level = here + (total - filled) / count
            break
        filled += room
    return [max(0.0, level - low) for low in levels]


def level(groups: Sequence[tuple[Sequence[int], int]], loads: Sequence[float]) -> list[list[float]]:
    """For each group (holders, bytes) the bytes of each holder, given what ranks write anyway."""
    now = list(loads)
    quotas: list[list[float]] = [[0.0] * len(holders) for holders, _ in groups]
    order = sorted(range(len(groups)), key=lambda g: len(groups[g][0]))
    total = sum(size for _, size in groups) + sum(loads)
    close = max(1.0, TOLERANCE * total / max(1, len(now)))
    for _ in range(PASSES_MAX):
        moved = 0.0
        for g in order:
            holders, size = groups[g]
            quota = quotas[g]
            for rank, amount in zip(holders, quota, strict=True):
                now[rank] -= amount
            poured = pour(size, [now[rank] for rank in holders])
            for i, (rank, amount) in enumerate(zip(holders, poured, strict=True)):
                now[rank] += amount
                moved = max(moved, abs(amount - quota[i]))
            quotas[g] = poured
        if moved <= close:
            break
    return quotas


def cut(sizes: Sequence[int], quotas: Sequence[float]) -> list[list[tuple[int, int, int]]]:
    """A group's shards, laid end to end, cut into one run for each quota: lists of (shard, start,
    stop). A cut is no nearer to an end of its shard, or to the next cut, than PIECE_BYTES_MIN."""
    scale = sum(sizes) / (sum(quotas) or 1.0)
    runs: list[list[tuple[int, int, int]]] = []
    shard, start, before = 0, 0, 0  # `before`: bytes of all shards in front of this one
    ideal = 0.0
    for number, quota in enumerate(quotas):
        ideal += quota * scale
        last = number == len(quotas) - 1
        run: list[tuple[int, int, int]] = []
        while shard < len(sizes):
            size = sizes[shard]
            stop = size if last else legal_cut(ideal - before, start, size)
            if stop > start:
                run.append((shard, start, stop))
            if stop < size:
                start = stop
                break
            shard, start, before = shard + 1, 0, before + size
        runs.append(run)
    return runs


def legal_cut(wanted: float, start: int, size: int) -> int:
    """Where a shard of `size` bytes may be cut, closest to `wanted` and not before `start`, which
    is the previous cut; `start` itself and `size` mean no cut here."""
    if wanted >= size:
        return size
    candidates = [start, size]
    low, high = start + PIECE_BYTES_MIN, size - PIECE_BYTES_MIN
    if low <= high:
        high -= high % ALIGN_BYTES
        near = round(wanted / ALIGN_BYTES) * ALIGN_BYTES
        if low <= high:
            candidates.append(min(max(near, low), high))
    return min(candidates, key=lambda at: abs(at - wanted))
