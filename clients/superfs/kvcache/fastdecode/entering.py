"""Requests from when they are asked to their first token: they wait until there is room for them,
what the KVCache pool has of a prompt is restored, and the rest goes through the weights."""

from __future__ import annotations

from collections import deque
from concurrent.futures import wait
from typing import TYPE_CHECKING

from superfs.kvcache.fastdecode.pool import Chunks
from superfs.kvcache.fastdecode.prefill import Prefill
from superfs.kvcache.fastdecode.returning import Watched

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    import torch

    from superfs.kvcache.fastdecode.placing import Mini, Placing
    from superfs.kvcache.fastdecode.pool import Pool, Prefix
    from superfs.kvcache.fastdecode.requests import Request
    from superfs.kvcache.fastdecode.smodel import SModel

IDLE_S = 0.05
"""That nobody waits longer for the pool without looking at everything else."""


class Entering:
    """Prompts that have their places: several short ones, or one."""

    def __init__(
        self, part: SModel, requests: list[Request], chunk_tokens: int,
        prefix: Prefix | None, chunks: Chunks | None,
    ) -> None:  # fmt: skip
        self.requests = requests
        self.refused: set[int] = set()  # numbers of those whose R-worker has no room
        self.restored_tokens = prefix.tokens if prefix is not None else 0
        self._chunks = chunks
        if prefix is not None:
            self._restore(prefix)
        prompts = [request.tokens for request in requests]
        self._prefill = Prefill(part, prompts, chunk_tokens, prefix)

    def _restore(self, prefix: Prefix) -> None:
        request = self.requests[0]
        place = request.place
        assert place is not None
        if not place.lost:
            with Watched(place, refused=lambda: self.refused.add(0)):
                prefix.restore(place.link, request.slot)
        prefix.release()

    def advance(self) -> torch.Tensor | None:
        """A chunk. The logits of the prompts' last tokens, when all is done."""
        return self._prefill.advance(self._ship)

    def _ship(self, number: int, layer: int, first: int, k: torch.Tensor, v: torch.Tensor) -> None:
        request = self.requests[number]
        place = request.place
        if place is not None and not place.lost and number not in self.refused:
            with Watched(place, refused=lambda: self.refused.add(number)):
                place.link.fill(request.slot, layer, first, k, v)
        if self._chunks is not None:
            self._chunks.add(layer, first, k, v)


class Waiting:
    """In the order in which they are to start. One at a time is looked for in the pool, while
    others are computed."""

    def __init__(
        self, part: SModel, placing: Placing, pool: Pool | None,
        forget: Callable[[Request], None],
    ) -> None:  # fmt: skip
        """`forget`: of those that were cancelled before they started."""
        self._part = part
        self._placing = placing
        self._pool = pool
        self._forget = forget
        self._requests: deque[Request] = deque()
        self._asked: tuple[Request, Future[Prefix]] | None = None

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: Request, *, first: bool = False) -> None:
        if first:
            self._requests.appendleft(request)
        else:
            self._requests.append(request)

    def clear(self) -> None:
        self._requests.clear()
        self._give_up()

    def idle(self) -> None:
        """Nothing is to be done until the pool has answered."""
        if self._asked is not None:
            wait([self._asked[1]], IDLE_S)

    def start(self, mini: Mini) -> Entering | None:
        """What has come, as much as fits in a chunk together; or one that does not, or may be in
        the pool."""
        found: list[Request] = []
        prefix: Prefix | None = None
        chunks: Chunks | None = None
        chunk_tokens = self._placing.config.chunk_tokens
        total = 0
        while self._requests:
            request = self._requests[0]
            if request.cancelled:
                self._requests.popleft()
                request.finish = "cancelled"
                self._forget(request)
                continue
            if self._emptier(mini):
                break
            total += len(request.tokens)
            pooled = self._pool is not None and self._pool.has_keys(request.tokens)
            if found and (pooled or total > chunk_tokens):
                break
            if pooled and not self._has_answered(request):
                break
            if not self._placing.place(request, mini):
                break
            self._requests.popleft()
            found.append(request)
            if pooled:
                prefix, chunks = self._taken(request)
                break
        if not found:
            return None
        return Entering(self._part, found, chunk_tokens, prefix, chunks)

    def _emptier(self, mini: Mini) -> bool:
        """Another mini-batch has fewer: it is that one's turn."""
        return any(other.size < mini.size for other in self._placing.minis)

    # ---- the pool

    def _has_answered(self, request: Request) -> bool:
        assert self._pool is not None
        if self._asked is None or self._asked[0] is not request:
            self._give_up()
            self._asked = request, self._pool.ask(request.tokens)
        return self._asked[1].done()

    def _taken(self, request: Request) -> tuple[Prefix, Chunks]:
        assert self._pool is not None
        assert self._asked is not None
        prefix = self._asked[1].result()
        self._asked = None
        return prefix, Chunks(self._pool, request.tokens)

    def _give_up(self) -> None:
        """Whoever was asked about starts later, or never."""
        if self._asked is not None:
            asked, self._asked = self._asked[1], None
            asked.add_done_callback(_release)


def _release(asked: Future[Prefix]) -> None:
    if not asked.cancelled() and asked.exception() is None:
        asked.result().release()
