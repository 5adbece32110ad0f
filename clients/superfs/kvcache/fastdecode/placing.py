"""Which sequence starts when, in which mini-batch and with which R-worker.

A sequence starts when it fits: the predicted load of its R-worker stays below what that can hold,
and where the load is levelled, below the level too, at every step of its future.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.core.fastdecode.schedule import LoadControl, Ramp, Span, level_peak
from superfs.kvcache.fastdecode.form import MINIS_MAX, PAGE_TOKENS, ROWS_MAX, SLOTS_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from superfs.kvcache.fastdecode.link import Link
    from superfs.kvcache.fastdecode.requests import Request


@dataclass(frozen=True, slots=True)
class EngineConfig:
    batch: int = 64  # sequences at a time
    minis: int = 2  # mini-batches that take turns: 2, or 1 where nothing is elsewhere
    threads: int = 1  # mini-batches that are at the weights together; 1: one, with torch's threads
    tokens_max: int = 4096  # of one sequence
    chunk_tokens: int = 512  # of prompts, between two steps
    level_length: int = 0  # steps of a sequence, for the level schedule; 0: without it
    level_interval: int = 0  # steps between micro-batches; 0: a sixteenth of the length
    local_share: float = 0.0  # of the sequences, that a link in this process gets

    def __post_init__(self) -> None:
        checks = (
            ("batch", 1, min(ROWS_MAX * self.minis, SLOTS_MAX)),
            ("minis", 1, MINIS_MAX),
            ("threads", 1, MINIS_MAX),
            ("tokens_max", 1, 1 << 22),
            ("chunk_tokens", 1, 1 << 20),
            ("level_length", 0, 1 << 22),
            ("level_interval", 0, max(self.level_length, 0)),
            ("local_share", 0.0, 1.0),
        )
        for name, least, most in checks:
            if not least <= getattr(self, name) <= most:
                raise FsError(Code.INVALID, f"{name} must be from {least} to {most}")

    @property
    def rows(self) -> int:
        """Of one mini-batch."""
        return -(-self.batch // self.minis)

    @property
    def interval(self) -> int:
        return self.level_interval or max(1, self.level_length // 16)


@dataclass(slots=True, eq=False)
class Place:
    """A link, its slots, and what is promised to its sequences."""

    link: Link
    slots: list[int]
    lost: bool = False
    promised_tokens: int = 0


@dataclass(slots=True, eq=False)
class Mini:
    """One mini-batch: its sequences in the order in which they came, its clock."""

    number: int
    controls: dict[Place, LoadControl]
    ramp: Ramp | None
    level: LoadControl | None
    requests: list[Request] = field(default_factory=list)
    entering: list[Request] = field(default_factory=list)  # their prompts are being computed
    step: int = 0
    load_tokens_max: int = 0

    @property
    def size(self) -> int:
        return len(self.requests) + len(self.entering)


class Placing:
    def __init__(self, config: EngineConfig, links: Sequence[Link]) -> None:
        if not links:
            raise FsError(Code.INVALID, "an engine needs at least one R-worker, or a local share")
        self.config = config
        self.places = [Place(link, list(range(config.batch))[::-1]) for link in links]
        self.minis = [self._mini(number) for number in range(config.minis)]
        self._where: dict[Request, tuple[Mini, Span]] = {}

    def _mini(self, number: int) -> Mini:
        config = self.config
        controls = {
            place: LoadControl(max(1, place.link.capacity_tokens // config.minis))
            for place in self.places
        }
        if not config.level_length:
            return Mini(number, controls, None, None)
        ramp = Ramp(config.rows, config.level_length, config.interval)
        level = level_peak(config.rows, config.level_length, config.interval)
        return Mini(number, controls, ramp, LoadControl(max(1, round(level))))

    def check(self, request: Request) -> None:
        """INVALID, NO_SPACE: it could never start."""
        whole = request.prompt_tokens + request.sampling.max_tokens
        if whole > self.config.tokens_max:
            raise FsError(
                Code.INVALID, f"{whole} tokens with the prompt, and tokens_max is "
                f"{self.config.tokens_max}",
            )  # fmt: skip
        most = max((self._limit(p) for p in self.places if not p.lost), default=0)
        if whole + PAGE_TOKENS > most:
            raise FsError(
                Code.NO_SPACE, f"{whole} tokens, and the largest R-worker has room for {most} of "
                "one sequence: give it more memory",
            )  # fmt: skip

    def _limit(self, place: Place) -> int:
        return self.minis[0].controls[place].limit_tokens

    def place(self, request: Request, mini: Mini) -> bool:
        """Starts it in this mini-batch, where it fits."""
        if mini.size >= self.config.rows:
            return False
        if mini.ramp is not None and mini.size and not mini.ramp.allowed(mini.step):
            return False
        span, level = self._spans(request, mini)
        if mini.level is not None and mini.size and not mini.level.fits(level):
            return False
        fitting = [
            place
            for place in self.places
            if not place.lost and place.slots and mini.controls[place].fits(span)
        ]
        if not fitting:
            return False
        place = min(fitting, key=lambda p: (p.promised_tokens + 1) / self._weight(p))
        self._enter(request, mini, place, span, level)
        return True

    def _spans(self, request: Request, mini: Mini) -> tuple[Span, Span]:
        """In its R-worker's memory, where pages are whole; in the level, where tokens count.
        Chunks of its prompt take a step each."""
        tokens, steps = len(request.tokens), request.steps_left
        chunks = -(-tokens // self.config.chunk_tokens) - 1
        end = mini.step + chunks + steps
        memory = Span(mini.step, end, tokens + PAGE_TOKENS)
        # The level is of what grows: a sequence begins with one token.
        return memory, Span(mini.step, end, 1)

    def _weight(self, place: Place) -> float:
        here = [p for p in self.places if not p.lost]
        local = sum(p.link.local for p in here)
        if not local or local == len(here):
            return 1.0
        share = self.config.local_share
        return (share / local if place.link.local else (1 - share) / (len(here) - local)) or 1e-9

    def _enter(self, request: Request, mini: Mini, place: Place, span: Span, level: Span) -> None:
        request.place, request.slot = place, place.slots.pop()
        place.promised_tokens += span.tokens + span.end - span.start
        mini.controls[place].add(request.number, span)
        if mini.level is not None:
            mini.level.add(request.number, level)
        if mini.ramp is not None:
            mini.ramp.started()
        self._where[request] = (mini, span)
        mini.entering.append(request)

    def renew(self, place: Place, link: Link) -> None:
        """A place that was lost, and nobody is at, has a new link: with no sequences."""
        assert place.lost, link.name
        assert not place.promised_tokens, link.name
        for mini in self.minis:
            limit = max(1, link.capacity_tokens // self.config.minis)
            mini.controls[place] = LoadControl(limit)
        place.link, place.lost = link, False

    def leave(self, request: Request) -> None:
        """It has ended, or is to start again elsewhere: its place is free."""
        place = request.place
        assert place is not None
        mini, span = self._where.pop(request)
        place.promised_tokens -= span.tokens + span.end - span.start
        mini.controls[place].remove(request.number)
        if mini.level is not None:
            mini.level.remove(request.number)
        if mini.ramp is not None:
            mini.ramp.ended(self.config.level_length - (mini.step - span.start))
        place.slots.append(request.slot)
        request.place, request.slot = None, -1
