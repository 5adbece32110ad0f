"""Which token comes next, of the logits of one sequence.

What is drawn depends on the request's seed and on how many tokens it has: not on who else is in the
batch, and not on whether the sequence was computed again after a fault.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from xxhash import xxh3_64_intdigest

from superfs.core.errors import Code, FsError

if TYPE_CHECKING:
    from collections.abc import Sequence

LOGPROBS_MAX = 20
STOPS_MAX = 16
STOP_CHARS_MAX = 256


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a request goes on. The defaults are greedy."""

    max_tokens: int = 16
    temperature: float = 0.0  # 0: always the best
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    min_p: float = 0.0  # of the best one's probability
    repetition_penalty: float = 1.0  # divides what occurred, prompt included, as in transformers
    presence_penalty: float = 0.0  # taken from what was generated
    frequency_penalty: float = 0.0  # and for each time
    seed: int = 0
    stop: tuple[str, ...] = ()  # the text ends before it
    stop_tokens: tuple[int, ...] = ()  # ends with it, besides the model's own
    ignore_eos: bool = False
    logprobs: int = -1  # of the chosen token, and of so many best ones; -1: none

    def __post_init__(self) -> None:
        ranges = (
            ("max_tokens", 1, 1 << 22),
            ("temperature", 0.0, 100.0),
            ("top_k", 0, 1 << 31),
            ("min_p", 0.0, 1.0),
            ("presence_penalty", -100.0, 100.0),
            ("frequency_penalty", -100.0, 100.0),
            ("logprobs", -1, LOGPROBS_MAX),
        )
        for name, least, most in ranges:
            if not least <= getattr(self, name) <= most:  # NaN too
                raise FsError(Code.INVALID, f"{name} must be from {least} to {most}")
        if not 0.0 < self.top_p <= 1.0:
            raise FsError(Code.INVALID, "top_p must be above 0 and at most 1")
        if not 0.01 <= self.repetition_penalty <= 100.0:
            raise FsError(Code.INVALID, "repetition_penalty must be from 0.01 to 100")
        if len(self.stop) > STOPS_MAX or any(not 0 < len(s) <= STOP_CHARS_MAX for s in self.stop):
            raise FsError(
                Code.INVALID, f"up to {STOPS_MAX} stop strings of 1 to {STOP_CHARS_MAX} characters"
            )

    @property
    def plain(self) -> bool:
        """The best logit is all that counts."""
        return not self.temperature and not self.penalised and self.logprobs < 0

    @property
    def penalised(self) -> bool:
        return (
            self.repetition_penalty != 1.0
            or self.presence_penalty != 0.0
            or self.frequency_penalty != 0.0
        )


@dataclass(frozen=True, slots=True)
class Choice:
    token: int
    logprob: float = math.nan  # after penalties, before temperature
    best: tuple[tuple[int, float], ...] = ()


def choose(
    logits: torch.Tensor, sampling: Sampling, tokens: Sequence[int], prompt_tokens: int
) -> Choice:
    """`logits`: [vocabulary], float32. `tokens`: all so far, the first ones the prompt."""
    if sampling.penalised:
        logits = _penalised(logits, sampling, tokens, prompt_tokens)
    if sampling.temperature:
        token = _drawn(logits, sampling, len(tokens) - prompt_tokens)
    else:
        token = int(logits.argmax())
    if sampling.logprobs < 0:
        return Choice(token)
    logprobs = torch.log_softmax(logits, dim=-1)
    values, ids = logprobs.topk(min(sampling.logprobs, len(logits)))
    best = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return Choice(token, float(logprobs[token]), best)


def _penalised(
    logits: torch.Tensor, sampling: Sampling, tokens: Sequence[int], prompt_tokens: int
) -> torch.Tensor:
    logits = logits.clone()
    if sampling.repetition_penalty != 1.0:
        seen = torch.tensor(sorted(set(tokens)))
        found = logits[seen]
        factor = sampling.repetition_penalty
        logits[seen] = torch.where(found > 0, found / factor, found * factor)
    generated = torch.tensor(tokens[prompt_tokens:], dtype=torch.long)
    if len(generated):
        ids, counts = generated.unique(return_counts=True)
        logits[ids] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    return logits


def _drawn(logits: torch.Tensor, sampling: Sampling, position: int) -> int:
    """From the best on, so that equal seeds mean equal tokens where the logits differ by rounding
    only."""
    kept = min(sampling.top_k or len(logits), len(logits))
    values, ids = (logits / sampling.temperature).topk(kept)
    weights = torch.softmax(values.double(), dim=-1)
    if sampling.top_p < 1.0:
        before = weights.cumsum(0) - weights
        weights = torch.where(before < sampling.top_p, weights, 0.0)
    if sampling.min_p > 0.0:
        weights = torch.where(weights >= sampling.min_p * weights[0], weights, 0.0)
    ahead = weights.cumsum(0)
    at = int(torch.searchsorted(ahead, _uniform(sampling.seed, position) * ahead[-1], right=True))
    return int(ids[min(at, int((weights > 0).sum()) - 1)])


def _uniform(seed: int, position: int) -> float:
    """From 0 to 1, exclusive."""
    raw = position.to_bytes(8, "little")
    return (xxh3_64_intdigest(raw, seed=seed & (1 << 64) - 1) >> 11) * 2.0**-53
