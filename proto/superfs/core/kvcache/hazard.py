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

from array import array
from typing import TYPE_CHECKING

from superfs.core.kvcache.digests import NONE, grow
from superfs.core.kvcache.lines import Ghost
from superfs.core.kvcache.ranking import Ranking

if TYPE_CHECKING:
    from superfs.core.kvcache.table import BlockTable

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
        self._queue = array("Q")  # when it was used last, in this clock
        self._turn = array("B")
        self._heat = array("B")  # something followed it
        self._line = array("B")  # the kind in whose line it is
        places = array("I")
        self._lines = [Ranking(self._used, places) for _ in range(KINDS)]
        self._ghost = Ghost(GHOSTS_PER_CAPACITY * blocks)  # kind, last use
        self._hits = [[0.0] * AGES for _ in range(KINDS)]
        self._ends = [[0.0] * AGES for _ in range(KINDS)]
        self._value = [[1.0 / (1 + age) for age in range(AGES)] for _ in range(KINDS)]  # LRU
        self._now = 0
        self._learn_at = max(LEARN_MIN, blocks // 2)

    def use(self, table: BlockTable) -> None:
        self._table = table

    def inserted(self, row: int) -> None:
        grow(row + 1, self._queue, self._turn, self._heat, self._line)
        self._tick(row)
        table = self._table
        parent = table.parent[row]
        self._turn[row] = self._heat[row] = 0
        if parent != NONE:
            self._turn[row] = min(TURNS_MAX - 1, self._turn[parent] + (table.uses[parent] > 1))
            self._heat[parent] = 1
        self._queue[row] = self._now
        known = self._ghost.pop(table.index.key(row))
        if known is not None:
            kind, last = known
            self._count(self._hits, kind, last)
            table.uses[row] = kind // (2 * TURNS_MAX) + 2

    def touched(self, row: int) -> None:
        self._tick()
        self._count(self._hits, self._kind(row, self._table.uses[row] - 1), self._queue[row])
        self._queue[row] = self._now

    def offer(self, row: int) -> None:
        kind = self._kind(row, self._table.uses[row])
        if kind != self._line[row]:
            self._lines[self._line[row]].discard(row)
        self._line[row] = kind
        self._lines[kind].put(row)

    def withdraw(self, row: int) -> None:
        self._lines[self._line[row]].discard(row)

    def victim(self) -> int:
        best, lowest = NONE, (0.0, 0)
        for kind, line in enumerate(self._lines):
            row = line.first()
            if row != NONE:
                last = self._queue[row]
                value = (self._value[kind][self._age_of(last)], last)
                if best == NONE or value < lowest:
                    best, lowest = row, value
        return best

    def removed(self, row: int, *, evicted: bool) -> None:
        if evicted:
            kind = self._kind(row, self._table.uses[row])
            given_up = self._ghost.add(self._table.index.key(row), kind, self._queue[row])
            if given_up is not None:
                self._count(self._ends, *given_up)

    def _tick(self, new: int = NONE) -> None:
        """`new`: not to be counted among those that live."""
        self._now += 1
        if self._now >= self._learn_at:
            self._learn_at = self._now + max(LEARN_MIN, self._blocks // 2)
            self._learn(new)

    def _used(self, row: int) -> int:
        return self._queue[row]

    def _kind(self, row: int, uses: int) -> int:
        return (min(uses, USES_MAX) - 1) * 2 * TURNS_MAX + 2 * self._turn[row] + self._heat[row]

    def _age_of(self, last: int) -> int:
        return min(AGES - 1, (self._now - last) // self._age)

    def _count(self, counts: list[list[float]], kind: int, last: int) -> None:
        counts[kind][self._age_of(last)] += 1.0

    def _learn(self, new: int) -> None:
        alive = [[0.0] * AGES for _ in range(KINDS)]
        for row in self._table.rows():
            if row != new:
                self._count(alive, self._kind(row, self._table.uses[row]), self._queue[row])
        for kind, last in self._ghost.known():
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
