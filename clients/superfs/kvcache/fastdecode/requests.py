"""A request, from when it is asked to its last token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from superfs.core.errors import FsError
    from superfs.kvcache.fastdecode.placing import Place
    from superfs.kvcache.fastdecode.sampling import Choice, Sampling

    Decode = Callable[[Sequence[int]], str]

TAIL_TOKENS = 16
"""That are looked at for a stop string, besides one for each of its characters."""


@dataclass(slots=True, eq=False)
class Request:
    """`finish` says why it has ended: length (of max_tokens), stop, cancelled or failed; "" while
    it goes on."""

    number: int
    prompt_tokens: int
    sampling: Sampling
    tokens: list[int]  # the prompt's, and what came since
    chosen: list[Choice] = field(default_factory=list)  # where logprobs were asked for
    finish: str = ""
    error: FsError | None = None
    computed_again: int = 0  # times that its cache was lost
    cancelled: bool = False
    place: Place | None = None  # where its keys and values are
    slot: int = -1

    @property
    def generated(self) -> list[int]:
        return self.tokens[self.prompt_tokens :]

    @property
    def steps_left(self) -> int:
        """Decoding steps at most, after its tokens so far are in the cache and one has come of
        that."""
        return max(self.sampling.max_tokens - (len(self.tokens) - self.prompt_tokens) - 1, 0)

    def cancel(self) -> None:
        """Its memory is free when the step in progress is over."""
        self.cancelled = True

    def accept(self, choice: Choice, ends: frozenset[int], decode: Decode | None) -> None:
        """One more token, which may be the last."""
        self.tokens.append(choice.token)
        if self.sampling.logprobs >= 0:
            self.chosen.append(choice)
        ended = choice.token in ends and not self.sampling.ignore_eos
        if ended or choice.token in self.sampling.stop_tokens or self._stopped(decode):
            self.finish = "stop"
        elif len(self.tokens) - self.prompt_tokens >= self.sampling.max_tokens:
            self.finish = "length"

    def _stopped(self, decode: Decode | None) -> bool:
        if not self.sampling.stop or decode is None:
            return False
        longest = max(map(len, self.sampling.stop))
        tail = decode(self.generated[-(longest + TAIL_TOKENS) :])
        return any(stop in tail for stop in self.sampling.stop)

    def text(self, decode: Decode) -> str:
        """What was generated, up to the first stop string."""
        whole = decode(self.generated)
        found = [at for stop in self.sampling.stop if (at := whole.find(stop)) >= 0]
        return whole[: min(found, default=len(whole))]
