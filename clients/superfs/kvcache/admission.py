"""Whether a stored prefix is loaded or computed: whichever takes less time, as measured so far.

    admission = Admission()          # one for a model and a store, kept from prompt to prompt
    prefill_with_store(model, ids, store, admission=admission)

Both rates are moving averages of what happened. A prefix is loaded in steps; after each that
is asked again, so that a store that becomes slow costs one step. When nothing was loaded for
`probe_s` the rate is not known any more: one chunk is loaded to see. A probe costs little of a long
prompt, and nothing is known without it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from superfs.core.limits import MIB

if TYPE_CHECKING:
    from collections.abc import Callable

STEP_BYTES = 32 * MIB
NEWEST = 0.5  # what the newest measurement counts


@dataclass(slots=True)
class Admission:
    probe_s: float = 30.0
    clock: Callable[[], float] = time.perf_counter
    _load_s: float | None = field(default=None, init=False)  # for a byte
    _loaded_at: float = field(default=0.0, init=False)
    _compute_s: float | None = field(default=None, init=False)  # for a token

    def loaded(self, size: int, seconds: float) -> None:
        if size:
            self._load_s = _average(self._load_s, seconds / size)
            self._loaded_at = self.clock()

    def computed(self, tokens: int, seconds: float) -> None:
        self._compute_s = _average(self._compute_s, seconds / tokens)

    def step(self, tokens: int, chunk_tokens: int, token_bytes: int) -> int:
        """How many of so many tokens, which may be stored, to load now: whole chunks, or none."""
        if tokens < chunk_tokens:
            return 0
        load_s = self._load_s
        if load_s is None or self.clock() - self._loaded_at > self.probe_s:
            self._load_s = None
            return chunk_tokens
        if self._compute_s is not None and load_s * token_bytes >= self._compute_s:
            return 0
        most = min(tokens, max(chunk_tokens, STEP_BYTES // token_bytes))
        return most // chunk_tokens * chunk_tokens


def _average(before: float | None, now: float) -> float:
    return now if before is None else before + NEWEST * (now - before)
