"""What the S-worker computes of a step, piece by piece, each from one attention to the next.

With threads of their own, mini-batches are at the weights beside each other, each with one
processor. That wastes less than sharing each operation among processors: nobody waits for the
slowest of them several times in every layer, and R-workers on the same machine get what is idle.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from superfs.kvcache.fastdecode.smodel import Rows, SModel


@dataclass(frozen=True, slots=True)
class Ready:
    """Of a mini-batch, when attention is next: q, k, v. At the end of a step `sent` is None, and
    there are logits."""

    rows: Rows
    sent: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None
    logits: torch.Tensor | None = None


class Weights:
    def __init__(self, part: SModel, threads: int) -> None:
        """`threads` 1: everything at once, in the caller's, with as many as torch has."""
        self._part = part
        self._pool = None
        if threads > 1:
            self._pool = _each_with_one_processor(threads)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def first(self, tokens: Sequence[int], positions: Sequence[int]) -> Future[Ready]:
        def work() -> Ready:
            rows = self._part.embed(tokens, positions)
            return Ready(rows, self._part.before(0, rows))

        return self._begin(work)

    def next(self, layer: int, rows: Rows, o: torch.Tensor) -> Future[Ready]:
        """What follows the attention of this layer."""

        def work() -> Ready:
            self._part.after(layer, rows, o)
            if layer + 1 < self._part.layers:
                return Ready(rows, self._part.before(layer + 1, rows))
            return Ready(rows, None, self._part.logits(rows.hidden))

        return self._begin(work)

    def _begin(self, work: Callable[[], Ready]) -> Future[Ready]:
        def alone() -> Ready:
            with torch.inference_mode():  # it is of a thread
                return work()

        if self._pool is not None:
            return self._pool.submit(alone)
        done: Future[Ready] = Future()
        done.set_result(alone())
        return done


def _each_with_one_processor(threads: int) -> ThreadPoolExecutor:
    """What a thread asks torch for holds for all that are new after it: so all of these begin now,
    and then those of others get again what the caller has."""
    processors = torch.get_num_threads()
    begun = threading.Barrier(threads + 1)

    def begin() -> None:
        torch.get_num_threads()  # who has not asked is given the others' number later
        torch.set_num_threads(1)
        begun.wait()

    pool = ThreadPoolExecutor(threads, "weights", begin)
    try:
        for _ in range(threads):
            pool.submit(int)
        begun.wait()
    except BaseException:
        begun.abort()  # those that have begun wait for no other
        pool.shutdown(wait=False)
        raise
    finally:
        torch.set_num_threads(processors)
    return pool
