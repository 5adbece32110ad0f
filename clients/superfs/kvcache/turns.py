"""One prompt's chunks on their way through a model while what is before them is still being loaded.

The model asks the cache of a chunk to take in the chunk's keys and values, layer by layer. There it
waits until the prefix of that layer has come, and the chunk before has passed. While one waits, the
next chunk goes as far as it can, in a thread of its own: so a layer that has come is used by all
of them, and computing goes on while the next layer loads. One at a time computes, and each does
exactly what it would do alone.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import DynamicCache

CHUNKS_MAX = 8
"""On their way at a time."""


Sides = tuple["Sequence[torch.Tensor]", "Sequence[torch.Tensor]"]
"""Keys and values of a prefix, in parts of [heads, tokens, dim]."""


class LostError(Exception):
    """What was loaded cannot be gone on with."""


class Turns:
    """`prefix(layer)`: keys and values of what is before the first chunk, or None; `seen(chunk,
    layer, keys, values)`: what a chunk has added."""

    def __init__(
        self,
        cache: DynamicCache,
        starts: list[int],
        forward: Callable[[int, Cache], torch.Tensor],
        prefix: Callable[[int], Sides | None],
        seen: Callable[[int, int, torch.Tensor, torch.Tensor], None],
    ) -> None:
        self.cache = cache
        self._starts = starts
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

    # ---- told from outside, in any thread

    def arrive(self, layers: int) -> None:
        """The prefix of so many layers is there."""
        with self._changed:
            self._arrived = max(self._arrived, layers)
            self._changed.notify_all()

    def pass_by(self, chunk: int) -> None:
        """It is in the cache already."""
        self._passed[chunk] = len(self.cache.layers)

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
        whole: tuple[torch.Tensor, torch.Tensor]
        before = self._prefix(layer) if chunk == 0 else None
        if before is None:
            whole = real.update(keys, values)
        else:  # in one go: to put together first what comes before would be a copy more
            whole = _joined(before[0], keys), _joined(before[1], values)
            real.lazy_initialization(keys, values)
            real.keys, real.values = whole
        self._seen(chunk, layer, keys, values)
        with self._changed:
            self._passed[chunk] = layer + 1
            self._changed.notify_all()
        return whole

    def length(self, chunk: int) -> int:
        return self._starts[chunk]


def _joined(before: Sequence[torch.Tensor], new: torch.Tensor) -> torch.Tensor:
    """[heads, tokens, dim] and [1, heads, tokens, dim] -> [1, heads, all tokens, dim]"""
    return torch.cat([*before, new[0]], dim=1).unsqueeze(0)


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
