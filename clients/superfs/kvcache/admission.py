"""Whether a stored prefix is loaded or computed: whichever takes less time, as measured so far.

    admission = Admission()          # one for a model and a store, kept from prompt to prompt
    prefill_with_store(model, ids, store, admission=admission)

Both rates are moving averages of what happened. While a prefix is loaded its own rate is watched:
as soon as the rest of it would be computed sooner, it is. When nothing was loaded for `probe_s` the
rate is not known any more, and the next load is begun to see. Storing is judged in the same way:
what takes longer to store than to compute would take as long to load, and is worth neither.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from superfs.core.limits import MIB

if TYPE_CHECKING:
    from collections.abc import Callable

STEP_BYTES = 32 * MIB
JUDGED_AT = 0.03
"""A load is judged when it has taken so much of the time that computing takes: that is all it can
cost, and sooner it is luck."""
NEWEST = 0.5  # what the newest measurement counts


@dataclass(slots=True)
class Admission:
    probe_s: float = 30.0
    clock: Callable[[], float] = time.perf_counter
    _load_s: float | None = field(default=None, init=False)  # for a byte
    _loaded_at: float = field(default=0.0, init=False)
    _compute_s: float | None = field(default=None, init=False)  # for a token
    _slow_at: float | None = field(default=None, init=False)  # when it was found too slow

    def loaded(self, size: int, seconds: float) -> None:
        if size:
            self._load_s = _average(self._load_s, seconds / size)
            self._loaded_at = self.clock()

    def computed(self, tokens: int, seconds: float) -> None:
        self._compute_s = _average(self._compute_s, seconds / tokens)

    @property
    def knows_computing(self) -> bool:
        return self._compute_s is not None

    def patience_s(self, tokens: int) -> float | None:
        """After how long a load is judged, whatever has come of it; None: nobody knows."""
        return None if self._compute_s is None else JUDGED_AT * self._compute_s * tokens

    @property
    def stores(self) -> bool:
        """Whether to store what is computed: not where the store was too slow a while ago."""
        return self._slow_at is None or self.clock() - self._slow_at > self.probe_s

    def goes_on(self, done: int, total: int, seconds: float, tokens: int) -> bool:
        """Whether to go on with a load of `total` bytes, which `tokens` stand for, when `done` of
        them have taken so long: not where the rest comes later than it is computed."""
        if not self._is_slow(done, total, seconds, tokens):
            return True
        if done:
            self.loaded(done, seconds)
        else:
            self._load_s, self._loaded_at = math.inf, self.clock()
        self._slow_at = self.clock()
        return False

    def stores_on(self, done: int, total: int, seconds: float, tokens: int) -> bool:
        """The same of storing."""
        if not self._is_slow(done, total, seconds, tokens):
            return True
        self._slow_at = self.clock()
        return False

    def _is_slow(self, done: int, total: int, seconds: float, tokens: int) -> bool:
        if self._compute_s is None or done >= total:
            return False
        compute_s = self._compute_s * tokens
        return seconds >= JUDGED_AT * compute_s and (total - done) * seconds > compute_s * done

    def step(self, tokens: int, chunk_tokens: int, token_bytes: int) -> int:
        """How many of so many tokens, which may be stored, to load now: whole chunks, or none."""
        if tokens < chunk_tokens:
            return 0
        load_s = self._load_s
        if load_s is None or self.clock() - self._loaded_at > self.probe_s:
            self._load_s = None
            return chunk_tokens
        if self._compute_s is not None and load_s * token_bytes >= self._compute_s:
            self._slow_at = self._loaded_at
            return 0
        most = min(tokens, max(chunk_tokens, STEP_BYTES // token_bytes))
        return most // chunk_tokens * chunk_tokens


def _average(before: float | None, now: float) -> float:
    return now if before is None else before + NEWEST * (now - before)
