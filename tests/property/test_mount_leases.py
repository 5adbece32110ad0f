"""What a mount may repeat, against a list of all that was ever recalled: never what an invalidation
has named since it was asked for."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from superfs.core.attrs import Attr
from superfs.mount import leases as limits
from superfs.mount.leases import NEVER, Grant, Lease, Leases

STEPS = 600
PLACES, INODES = (1, 2, 3), range(1, 7)
VERBS = ["ask", "ask", "ask", "answer", "answer", "recall", "recall", "whole", "give back",
         "lapse", "extend"]  # fmt: skip


@dataclass
class Question:
    asked: int
    place: int
    ino: int
    whole: bool = False  # recalled since
    names: bool = False
    attr: bool = False


@dataclass
class Told:
    """What is remembered, and whether it may still be told."""

    lease: Lease
    question: Question
    ended: bool = False


@dataclass
class World:
    leases: Leases = field(default_factory=Leases)
    questions: list[Question] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.leases.extend(20.0)

    def answer(self, which: int, *, name: bool) -> None:
        if not self.questions:
            return
        question = self.questions.pop(which % len(self.questions))
        grant = Grant(self.leases, frozenset([question.place]), question.asked, 0.0, 0.0)
        attr = Attr(question.ino, 1, question.place, 0o100644, 1, 0, 0)
        lease = grant.names(question.place) if name else grant.attr(attr)
        stale = question.whole or (question.names if name else question.attr)
        assert lease is NEVER or not stale
        if lease is not NEVER:
            assert lease.until == self.leases.until
            self.told.append(Told(lease, question))

    def recall(self, place: int, inos: list[int]) -> None:
        self.leases.recall(place, whole=False, inos=inos)
        for question in self.questions:
            if question.place == place:
                question.names = True
                question.attr = question.attr or question.ino in inos

    def end(self, place: int | None) -> None:
        """All of a lease, or of any."""
        for question in self.questions:
            question.whole = question.whole or place in (None, question.place)
        for told in self.told:
            told.ended = told.ended or place in (None, told.question.place)

    def check(self) -> None:
        for told in self.told:
            assert not (told.ended and told.lease.until)
            assert told.ended or told.lease.until == self.leases.until


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_told_that_was_recalled(
    seed: int, few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if few:  # is remembered of what was recalled singly, and of leases
        monkeypatch.setattr(limits, "INODES_MAX", 2)
        monkeypatch.setattr(limits, "TABLE_MAX", 2)
    world, rng = World(), random.Random(seed)
    for _ in range(STEPS):
        verb, place = rng.choice(VERBS), rng.choice(PLACES)
        if verb == "ask":
            world.questions.append(Question(world.leases.clock, place, rng.choice(INODES)))
        elif verb == "answer":
            world.answer(rng.randrange(100), name=rng.random() < 0.3)
        elif verb == "recall":
            world.recall(place, rng.sample(INODES, rng.randrange(3)))
        elif verb == "whole":
            world.leases.recall(place, whole=True)
            world.end(place)
        elif verb == "give back":
            if world.leases.give_back([place]):
                world.end(place)
        elif verb == "lapse" and rng.random() < 0.2:
            world.leases.lapse()
            world.end(None)
        else:
            world.now += 5.0
            world.leases.extend(world.now + 20.0)
        world.check()
    assert world.told
