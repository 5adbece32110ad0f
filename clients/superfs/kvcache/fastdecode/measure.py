"""T(B), R and C of the performance model (`core/fastdecode/model.py`), measured on this machine."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from superfs.core.fastdecode.model import Costs
from superfs.kvcache.fastdecode.cache import Cache
from superfs.kvcache.fastdecode.form import PAGE_TOKENS, Memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from superfs.kvcache.fastdecode.smodel import SModel

ROUNDS = 5
CACHED_BYTES_MAX = 1 << 28
"""Of one layer, that R is measured with: more than processors cache."""
LAYERS_MEASURED = 4


def measure(
    part: SModel, *, batches: Sequence[int], length: int, memory_bytes: int, threads: int
) -> Costs:
    """`memory_bytes`, `threads`: of one R-worker, which is taken to be on a machine like this. The
    S-part is measured with torch's threads."""
    return Costs(
        part.layers,
        {batch: _s_part_s(part, batch) for batch in batches},
        _r_part_s(part, length, threads),
        memory_bytes // part.form.page_bytes_total * PAGE_TOKENS,
    )


def _median_s(work: Callable[[], Any]) -> float:
    work()
    took = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        took.append(time.perf_counter() - started)
    return statistics.median(took)


def _s_part_s(part: SModel, batch: int) -> float:
    """Of one layer: what is between two attentions, in several layers so that weights come from
    memory. What is outside of the layers counts, evenly."""
    layers = min(part.layers, LAYERS_MEASURED)

    def layers_only() -> None:
        rows = part.embed([0] * batch, [0] * batch)
        for layer in range(layers):
            q, _, _ = part.before(layer, rows)
            part.after(layer, rows, q)
        _wait(part)

    def ends_only() -> None:
        part.logits(part.embed([0] * batch, [0] * batch).hidden)
        _wait(part)

    with torch.inference_mode():
        return _median_s(layers_only) / layers + _median_s(ends_only) / part.layers


def _wait(part: SModel) -> None:
    if part.device.type != "cpu":
        torch.accelerator.synchronize(part.device)


def _r_part_s(part: SModel, length: int, threads: int) -> float:
    """Of one cached token in one layer."""
    whole = part.form
    form = type(whole)(
        1, whole.heads, whole.kv_heads, whole.head_dim, whole.scale, whole.wire, whole.storage
    )
    pages = -(-length // PAGE_TOKENS) + 1
    sequences = max(1, min(256, CACHED_BYTES_MAX // (pages * form.page_bytes_total)))
    cache = Cache(
        form, sequences * pages * form.page_bytes_total, sequences, pages * PAGE_TOKENS,
        threads=threads,
    )  # fmt: skip
    keys: Memory = np.zeros((length, form.key_bytes), np.uint8)
    for slot in range(sequences):
        cache.fill(slot, 0, 0, length, keys, keys)
    rows, _ = cache.step(np.arange(sequences, dtype=np.int32))
    q: Memory = np.zeros((sequences, form.query_bytes), np.uint8)
    k: Memory = np.zeros((sequences, form.key_bytes), np.uint8)
    took = _median_s(lambda: cache.attend(rows, 0, q, k, k, q.copy()))
    cache.close()
    return took / (sequences * length)
