"""One prompt's chunks on their way through a model while what is before them is still being loaded.

The model asks the cache of a chunk to take in the chunk's keys and values, layer by layer. There it
waits until the prefix of that layer has come, and the chunk before has passed. While one waits, the
next chunk goes as far as it can, in a thread of its own: so a layer that has come is used by all
of them, and computing goes on while the next layer loads. One at a time computes, and each does
exactly what it would do alone, with as many processors: torch rounds differently with others, and
gives a new thread what was asked for last, in whatever thread.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import DynamicCache

CHUNKS_MAX = 8
"""On their way at a time."""


class LostError(Exception):
    """What was loaded cannot be gone on with."""


class Turns:
    """`prefix(layer)`: keys and values of what is before the first chunk, or None; `seen(chunk,
    layer, keys, values)`: what a chunk has added."""

    def __init__(
        self,
        cache: DynamicCache,
        starts: list[int],
        tokens: int,
        forward: Callable[[int, Cache], torch.Tensor],
        prefix: Callable[[int], torch.Tensor | None],
        seen: Callable[[int, int, torch.Tensor, torch.Tensor], None],
    ) -> None:
        self.cache = cache
        self._starts = starts
        self._tokens = tokens
        self._first = 0
        self._room: dict[int, torch.Tensor] = {}  # layer: [2, 1, heads, tokens, dim]
        self._forward = forward
        self._prefix = prefix
        self._seen = seen
        self._changed = threading.Condition()
        self._arrived = 0  # layers
        self._passed = [0] * len(starts)  # layers, by chunk
        self._busy = False
        self._lost = False
        self._threads: dict[int, threading.Thread] = {}
        self._done: dict[int, torch.Tensor] = {}
        self._error: BaseException | None = None
        self._processors = torch.get_num_threads()  # of this thread

    # ---- told from outside, in any thread

    def arrive(self, layers: int) -> None:
        """The prefix of so many layers is there."""
        with self._changed:
            self._arrived = max(self._arrived, layers)
            self._changed.notify_all()

    def pass_by(self, chunk: int) -> None:
        """It is in the cache already."""
        self._passed[chunk] = len(self.cache.layers)
        self._first = chunk + 1

    def lose(self) -> None:
        with self._changed:
            self._lost = True
            self._changed.notify_all()

    @property
    def is_all_there(self) -> bool:
        return self._arrived >= len(self.cache.layers)

    # ---- computing

    def run(self, chunk: int) -> torch.Tensor:
        """Its logits. Chunks in order. LostError: what was loaded is lost."""
        thread = self._threads.pop(chunk, None)
        try:
            if thread is None:
                self._take()
                try:
                    return self._compute(chunk)
                finally:
                    self._give()
            thread.join()
            if chunk not in self._done:
                raise LostError
            return self._done.pop(chunk)
        except LostError:
            if self._error is not None and not isinstance(self._error, LostError):
                raise self._error from None  # of a chunk behind this one
            raise

    def end(self) -> None:
        """Whatever happened: no thread is left."""
        if self._threads:
            self.lose()
        for thread in self._threads.values():
            thread.join()

    def _compute(self, chunk: int) -> torch.Tensor:
        layers = [_Layer(self, chunk, n, one) for n, one in enumerate(self.cache.layers)]
        return self._forward(chunk, Cache(layers=layers))

    def _start_next(self, after: int) -> None:
        """Under the condition: somebody waits, and this one is the last that was started."""
        chunk = after + 1
        if chunk >= len(self._starts) or len(self._threads) + 1 >= CHUNKS_MAX:
            return
        if chunk in self._threads or self._lost or chunk in self._done:
            return
        thread = threading.Thread(target=self._alongside, args=(chunk,), name="kvcache-chunk")
        self._threads[chunk] = thread
        thread.start()

    def _alongside(self, chunk: int) -> None:
        self._take()
        try:
            if torch.get_num_threads() != self._processors:
                torch.set_num_threads(self._processors)
            with torch.no_grad():
                self._done[chunk] = self._compute(chunk)
        except BaseException as error:
            self._error = self._error or error
            self.lose()
        finally:
            self._give()

    def _take(self) -> None:
        with self._changed:
            while self._busy:
                self._changed.wait()
            self._busy = True

    def _give(self) -> None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()

    def _may(self, chunk: int, layer: int) -> bool:
        if self._arrived <= layer:
            return False
        return chunk == 0 or self._passed[chunk - 1] > layer

    def pass_layer(
        self, chunk: int, layer: int, real: DynamicLayer, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with self._changed:
            if not self._lost and not self._may(chunk, layer):
                self._busy = False
                self._start_next(chunk)
                self._changed.notify_all()
                while not self._lost and (self._busy or not self._may(chunk, layer)):
                    self._changed.wait()
                if not self._lost:
                    self._busy = True
            if self._lost:
                raise LostError
        whole = self._join(chunk, layer, real, keys, values)
        self._seen(chunk, layer, keys, values)
        with self._changed:
            self._passed[chunk] = layer + 1
            self._changed.notify_all()
        return whole

    def _join(
        self, chunk: int, layer: int, real: DynamicLayer, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What is before them and they. There is room for the whole prompt from the first one on:
        what has come is not copied again for each chunk."""
        if chunk == self._first:
            shape = (2, *keys.shape[:2], self._tokens, keys.shape[3])
            self._room[layer] = torch.empty(shape, dtype=keys.dtype, device=keys.device)
            self._begin(layer, real, self._room[layer])
        mine, start = self._room[layer], self._starts[chunk]
        if not real.is_initialized:
            real.lazy_initialization(keys, values)
        end = start + keys.shape[2]
        mine[0, :, :, start:end], mine[1, :, :, start:end] = keys, values
        real.keys, real.values = mine[0, :, :, :end], mine[1, :, :, :end]
        return real.keys, real.values

    def _begin(self, layer: int, real: DynamicLayer, mine: torch.Tensor) -> None:
        """What is before the first chunk that is computed."""
        before = self._prefix(layer)
        if before is not None:
            blocks, tokens = before.shape[0], before.shape[3]
            to = mine[:, 0, :, : blocks * tokens].unflatten(2, (blocks, tokens))
            to.copy_(before.permute(1, 2, 0, 3, 4))
        elif real.is_initialized:
            mine[0, :, :, : real.keys.shape[2]] = real.keys
            mine[1, :, :, : real.keys.shape[2]] = real.values

    def length(self, chunk: int) -> int:
        return self._starts[chunk]


class _Layer(DynamicLayer):  # type: ignore[misc]
    """A layer as one chunk sees it."""

    _layer_type = None  # not for configurations to choose

    def __init__(self, turns: Turns, chunk: int, number: int, real: Any) -> None:  # noqa: ANN401
        super().__init__()
        self._turns, self._chunk, self._number, self._real = turns, chunk, number, real

    def get_seq_length(self) -> int:
        return self._turns.length(self._chunk)

    def update(self, keys: Any, values: Any, *_: Any, **__: Any) -> Any:  # noqa: ANN401
        return self._turns.pass_layer(self._chunk, self._number, self._real, keys, values)
