"""When sequences start, so that the load of the R-workers stays level (FastDecode).

The time of an R-worker grows with the tokens that it holds. Sequences that start together grow
together: the load goes from B to B*S and falls to nothing. Started in micro-batches of B*F/S
every F steps, it stays near B*(S+F)/2.

Two rules, both pure: `LoadControl` keeps the predicted load below a limit at every future moment,
whatever the sequences' prompts and lengths are; `Ramp` spreads what it would admit at once at a
cold start. Time is counted in steps. A length that is not known is its maximum; an end that comes
early gives its room back in both.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

from superfs.core.errors import Code, FsError


@dataclass(frozen=True, slots=True)
class Span:
    """One sequence in the cache: from step `start` to step `end`, both included. At step t it has
    `tokens` + t - start of them."""

    start: int
    end: int
    tokens: int

    def load(self, step: int) -> int:
        return self.tokens + step - self.start if self.start <= step <= self.end else 0


class LoadControl:
    """Of one set of sequences whose load is limited. The load grows by one for each sequence and
    step, and falls only when one has ended: so it is highest at ends, and only these are looked
    at."""

    def __init__(self, limit_tokens: int) -> None:
        if limit_tokens < 1:
            raise FsError(Code.INVALID, f"a limit of {limit_tokens} tokens admits nothing")
        self.limit_tokens = limit_tokens
        self._spans: dict[int, Span] = {}
        self._ends: list[int] = []  # steps at which somebody ends, in order
        self._loads: dict[int, int] = {}  # and the whole load then
        self._ending: dict[int, int] = {}  # how many do

    def __len__(self) -> int:
        return len(self._spans)

    def peak_with(self, span: Span) -> int:
        """The highest load from `span.start` to `span.end`, with it."""
        peak = self._at(span.end) + span.load(span.end)
        for end in self._ends[bisect_left(self._ends, span.start) :]:
            if end > span.end:
                break
            peak = max(peak, self._loads[end] + span.load(end))
        return peak

    def fits(self, span: Span) -> bool:
        return self.peak_with(span) <= self.limit_tokens

    def add(self, number: int, span: Span) -> None:
        """It has started. Who has asked `fits` keeps the limit."""
        assert number not in self._spans, number
        assert span.start <= span.end, span
        if span.end not in self._loads:
            insort(self._ends, span.end)
            self._loads[span.end] = self._at(span.end)
            self._ending[span.end] = 0
        self._ending[span.end] += 1
        self._spans[number] = span
        self._shift(span, span.start, 1)

    def remove(self, number: int) -> None:
        """It has ended, perhaps before it was to."""
        span = self._spans.pop(number)
        self._shift(span, span.start, -1)
        self._ending[span.end] -= 1
        if not self._ending[span.end]:
            del self._ending[span.end], self._loads[span.end]
            del self._ends[bisect_left(self._ends, span.end)]

    def _shift(self, span: Span, first: int, sign: int) -> None:
        for end in self._ends[bisect_left(self._ends, first) :]:
            if end > span.end:
                break
            self._loads[end] += sign * span.load(end)

    def _at(self, step: int) -> int:
        found = self._loads.get(step)
        return sum(s.load(step) for s in self._spans.values()) if found is None else found


class Ramp:
    """`batch * interval / length` may start together every `interval` steps: what keeps `batch`
    sequences of `length` steps going, spread evenly from the first step on.

    A sequence that ends early gives back what it did not use, so that shorter ones start oftener.
    """

    def __init__(self, batch: int, length: int, interval: int) -> None:
        if not 1 <= interval <= length or batch < 1:
            raise FsError(
                Code.INVALID,
                f"batch {batch}, length {length}, interval {interval}: a batch of at least 1, and "
                "an interval from 1 to the length",
            )
        self.batch, self.length, self.interval = batch, length, interval
        self.together = batch * interval / length
        self._credit = max(1.0, self.together)
        self._intervals = 0

    def allowed(self, now: int) -> int:
        """How many may start now. `now` never goes back."""
        passed = now // self.interval
        self._credit += (passed - self._intervals) * self.together
        self._intervals = passed
        self._credit = min(self._credit, self.together + 1.0)
        return int(self._credit + 1e-9)

    def started(self, count: int = 1) -> None:
        self._credit -= count

    def ended(self, unused_steps: int) -> None:
        """One that was to take so many steps more."""
        self._credit += min(max(unused_steps, 0), self.length) / self.length


def level_peak(batch: int, length: int, interval: int) -> float:
    """Tokens: the highest load of the schedule, when sequences start with one token each."""
    return batch * (length + interval) / 2
