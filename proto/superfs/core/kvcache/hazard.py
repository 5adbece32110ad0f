"""Our own policy: what is least likely to be used soon goes, as seen from what happened here.

Each use of a block begins a life, which ends with the next use, or is given up as too old. Lives
are of kinds, by what the tree of prefixes tells of a block: how often it was used, which turn of a
conversation it came with, whether anything ever followed it. For each kind the ages at which lives
ended are counted: also of blocks that have left, of whom a ghost stays (an estimate from residents
alone never sees what it missed), and those that still go on as censored (Kaplan and Meier). From
that comes, for each kind and age, the index of Gittins: the most hits per time that waiting for any
further while can bring. Of each kind the one that was used longest ago is looked at, and of these
the lowest goes.

There is no constant of a workload in it: ages are measured in the cache's own capacity, and what
was seen fades with it. Before it has seen anything it is LRU.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from superfs.core.kvcache.ranking import Ranking

if TYPE_CHECKING:
    from superfs.core.kvcache.table import Block

AGES = 64
AGES_PER_CAPACITY = 16
"""So lives are followed for four times the capacity."""
USES_MAX, TURNS_MAX = 4, 3
KINDS = USES_MAX * TURNS_MAX * 2
FADE = 0.97
PRIOR = 4.0
"""Lives of all kinds together that each kind is credited with, until it has enough of its own."""
GHOSTS_PER_CAPACITY = 3
LEARN_MIN = 256


class Hazard:
    def __init__(self, blocks: int) -> None:
        self._blocks = blocks
        self._age = max(1, blocks // AGES_PER_CAPACITY)
        self._lines = [Ranking() for _ in range(KINDS)]
        self._resident: dict[object, Block] = {}
        self._ghost: OrderedDict[object, tuple[int, int]] = OrderedDict()  # key -> kind, last use
        self._hits = [[0.0] * AGES for _ in range(KINDS)]
        self._ends = [[0.0] * AGES for _ in range(KINDS)]
        self._value = [[1.0 / (1 + age) for age in range(AGES)] for _ in range(KINDS)]  # LRU
        self._now = 0
        self._learn_at = max(LEARN_MIN, blocks // 2)

    def inserted(self, block: Block) -> None:
        self._tick(block)
        parent = block.parent
        if parent is not None:
            block.turn = min(TURNS_MAX - 1, parent.turn + (parent.uses > 1))
            parent.heat = 1
        block.queue = self._now
        self._resident[block.key] = block
        known = self._ghost.pop(block.key, None)
        if known is not None:
            kind, last = known
            self._count(self._hits, kind, last)
            block.uses = kind // (2 * TURNS_MAX) + 2

    def touched(self, block: Block) -> None:
        self._tick(block)
        self._count(self._hits, _kind(block, block.uses - 1), block.queue)
        block.queue = self._now

    def offer(self, block: Block) -> None:
        self._lines[_kind(block, block.uses)].put(block, block.queue)

    def victim(self) -> Block | None:
        best, lowest = None, (0.0, 0)
        for kind, line in enumerate(self._lines):
            block = line.first()
            if block is not None:
                value = (self._value[kind][self._age_of(block.queue)], block.queue)
                if best is None or value < lowest:
                    best, lowest = block, value
        return best

    def removed(self, block: Block, *, evicted: bool) -> None:
        del self._resident[block.key]
        if evicted:
            self._ghost[block.key] = (_kind(block, block.uses), block.queue)
            if len(self._ghost) > GHOSTS_PER_CAPACITY * self._blocks:
                _, (kind, last) = self._ghost.popitem(last=False)
                self._count(self._ends, kind, last)

    def _tick(self, block: Block) -> None:
        self._now += 1
        if self._now >= self._learn_at:
            self._learn_at = self._now + max(LEARN_MIN, self._blocks // 2)
            self._learn()

    def _age_of(self, last: int) -> int:
        return min(AGES - 1, (self._now - last) // self._age)

    def _count(self, counts: list[list[float]], kind: int, last: int) -> None:
        counts[kind][self._age_of(last)] += 1.0

    def _learn(self) -> None:
        alive = [[0.0] * AGES for _ in range(KINDS)]
        for block in self._resident.values():
            self._count(alive, _kind(block, block.uses), block.queue)
        for kind, last in self._ghost.values():
            self._count(alive, kind, last)
        hits = [sum(column) for column in zip(*self._hits, strict=True)]
        ends = [sum(column) for column in zip(*self._ends, strict=True)]
        going = [sum(column) for column in zip(*alive, strict=True)]
        total = sum(hits) + sum(ends) + sum(going)
        share = PRIOR / total if total else 0.0
        for kind in range(KINDS):
            self._value[kind] = gittins(
                [mine + share * all_ for mine, all_ in zip(self._hits[kind], hits, strict=True)],
                [
                    a + b + share * (c + d)
                    for a, b, c, d in zip(self._ends[kind], alive[kind], ends, going, strict=True)
                ],
            )
            self._hits[kind] = [FADE * n for n in self._hits[kind]]
            self._ends[kind] = [FADE * n for n in self._ends[kind]]


def _kind(block: Block, uses: int) -> int:
    return (min(uses, USES_MAX) - 1) * 2 * TURNS_MAX + 2 * block.turn + block.heat


def gittins(hits: list[float], ends: list[float]) -> list[float]:
    """For each age the highest ratio of hits to time, over all ages at which to stop waiting.
    `hits` and `ends`: lives that ended at an age with a use, or without (given up, or go on). The
    last age is all that is older: how long that takes is not known, so it promises nothing."""
    ages = len(hits)
    hazard = [0.0] * ages
    risk = 0.0
    for age in range(ages - 1, -1, -1):
        risk += hits[age] + ends[age]
        hazard[age] = hits[age] / risk if risk and age < ages - 1 else 0.0
    # From the last age backwards: a span that is worth more than the one behind it stands for
    # itself; else it is joined with that one, which raises it.
    value = [0.0] * ages
    spans: list[tuple[float, float, float]] = []  # hits, time, survival through it
    for age in range(ages - 1, -1, -1):
        gain, time, stay = hazard[age], 1.0 - hazard[age] / 2, 1.0 - hazard[age]
        while spans and spans[-1][0] * time > gain * spans[-1][1]:
            more, longer, survive = spans.pop()
            gain, time, stay = gain + stay * more, time + stay * longer, stay * survive
        spans.append((gain, time, stay))
        value[age] = gain / time
    return value
