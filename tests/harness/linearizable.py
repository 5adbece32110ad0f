"""Whether a history has an order in time that explains it: the search, over any small state.

Just-in-time linearization (Wing & Gong, with Lowe's order of the search): the events are gone
through in time; a set of configurations is kept, each a state and which of the operations under
way have happened in it. An operation takes effect no earlier than an answer that needs it. What
only looks happens as soon as it is true: that takes nothing away from the others.

What was never answered may happen at any time from its beginning on, or never.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.history import FOREVER, Op

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Value = int | str | None
State = tuple[Value, ...]
CONFIGURATIONS_MAX = 100_000


@dataclass(slots=True, eq=False)
class Step:
    """Exactly one of `sees` (it changes nothing) and `does` (what may come of it in this state)."""

    op: Op
    sees: Callable[[State], bool] | None = None
    does: Callable[[State], Sequence[State]] | None = None

    @property
    def answered(self) -> int:
        return FOREVER if self.op.unsure else self.op.answered


Configuration = tuple[State, int]


class Search:
    def __init__(self, steps: Sequence[Step], initial: State) -> None:
        self._steps = steps
        self._configurations: set[Configuration] = {(initial, 0)}
        self._slots: list[Step | None] = []
        self._under_way: dict[int, Step] = {}
        self._slot_of: dict[int, int] = {}

    def run(self) -> str | None:
        """None, or the first operation that no order explains."""
        events = [(step.op.invoked, 0, i) for i, step in enumerate(self._steps)]
        events += [
            (step.answered, 1, i) for i, step in enumerate(self._steps) if step.answered != FOREVER
        ]
        for _, ends, i in sorted(events):
            if not ends:
                self._begin(i)
                continue
            before = self._configurations
            self._end(i)
            if not self._configurations:
                return self._complaint(i, before)
        return None

    def _begin(self, i: int) -> None:
        step = self._steps[i]
        try:
            slot = self._slots.index(None)
            self._slots[slot] = step
        except ValueError:
            slot = len(self._slots)
            self._slots.append(step)
        self._under_way[slot] = step
        self._slot_of[i] = slot
        if step.sees is not None:
            sees, bit = step.sees, 1 << slot
            self._configurations = {
                (state, done | bit if sees(state) else done) for state, done in self._configurations
            }

    def _end(self, i: int) -> None:
        slot = self._slot_of.pop(i)
        bit = 1 << slot
        left: set[Configuration] = set()
        tried: set[Configuration] = set()
        todo = list(self._configurations)
        while todo:
            state, done = todo.pop()
            if done & bit:
                left.add((state, done ^ bit))
                continue
            for other, step in self._under_way.items():
                if step.does is None or done >> other & 1:
                    continue
                for after in step.does(state):
                    following = (after, self._look(after, done | 1 << other))
                    if following not in tried:
                        tried.add(following)
                        todo.append(following)
            assert len(tried) <= CONFIGURATIONS_MAX, "too much at the same time to be checked"
        self._configurations = left
        self._slots[slot] = None
        del self._under_way[slot]

    def _look(self, state: State, done: int) -> int:
        for slot, step in self._under_way.items():
            if step.sees is not None and not done >> slot & 1 and step.sees(state):
                done |= 1 << slot
        return done

    def _complaint(self, i: int, before: set[Configuration]) -> str:
        step = self._steps[i]
        lines = [f"no order explains {step.op}"]
        lines += [f"  before: {state}" for state in sorted({str(s) for s, _ in before})[:8]]
        meanwhile = {id(s.op): s.op for s in self._under_way.values()}
        lines += [f"  meanwhile {op}" for op in meanwhile.values()]
        ended = {id(s.op): s.op for s in self._steps if s.answered < step.answered}
        earlier = sorted(ended.values(), key=lambda op: op.answered)
        lines += [f"  earlier {op}" for op in earlier[-40:]]
        return "\n".join(lines)
