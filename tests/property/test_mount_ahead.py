"""What is fetched ahead: never what is of no use, never more than there is room for, in a bounded
relation to what is read, and enough."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superfs.mount.ahead import (
    HABIT_WIDTH,
    RUN_GROWTH,
    STRAY_RATIO,
    WIDTH_MAX,
    WIDTH_MIN,
    Course,
    Habit,
    Run,
    Window,
)

SIZE = 4000


@dataclass
class Reader:
    """Files of one size. What is asked for comes at once. `forgets`: what was read is not kept."""

    course: Course
    useless: frozenset[int] = frozenset()
    forgets: bool = False
    unread_max: int = 1 << 30
    room: int = 1 << 20
    here: dict[int, Run] = field(default_factory=dict)
    missed: int = 0
    messages: int = 0
    asked: int = 0
    _missed: int = -1
    kept: set[int] = field(default_factory=set)
    widths: list[int] = field(default_factory=list)
    fetched: set[int] = field(default_factory=set)
    twice: int = 0

    def read(self, position: int) -> None:
        if position in self.kept:
            return
        self.kept.add(position)
        run = self.here.pop(position, None)
        if run is not None:
            self.fetch(self.course.found(position, run))
        elif position not in self.useless:
            self._missed = position
            window = self.course.missed(position)
            if window is None or not window.waits:
                self.missed += 1  # it alone
            self.fetch(window)
            if window is not None and window.waits:
                assert self.here.pop(position, None) is window.run, "it is waited for"
                self.fetch(self.course.found(position, window.run))
            self._missed = -1

    def fetch(self, window: Window | None) -> None:
        if window is None:
            return
        files = max(self.unread_max - len(self.here), 1 if window.waits else 0)
        room = min(self.room, files * SIZE)
        positions = self.course.pick(window, self.cost, room)
        assert len(set(positions)) == len(positions) <= WIDTH_MAX
        assert all(
            0 <= position < self.course.count and self.cost(position) > 0 for position in positions
        )
        assert sum(self.cost(position) for position in positions) <= self.room
        self.here.update(dict.fromkeys(positions, window.run))
        self.twice += len(self.fetched.intersection(positions))
        self.fetched.update(positions)
        self.messages += bool(positions)
        self.asked += len(positions)
        self.widths.append(len(positions))

    def cost(self, position: int) -> int:
        known = position in self.useless or position in self.here
        known = known or (position in self.kept and not self.forgets)
        return -1 if known and position != self._missed else SIZE


@settings(max_examples=50)
@given(st.integers(1, 100), st.data())
def test_any_reader_is_served_and_nothing_useless_is_fetched(
    count: int, data: st.DataObject
) -> None:
    positions = st.integers(0, count - 1)
    useless = data.draw(st.frozensets(positions))
    reader = Reader(Course(count), useless, room=data.draw(st.integers(SIZE, 1 << 20)))
    reads = data.draw(st.lists(positions, max_size=60))
    for position in reads:
        reader.read(position)
    allowed = (STRAY_RATIO + RUN_GROWTH + 1) * len(reads) + WIDTH_MIN
    assert reader.asked <= allowed


@pytest.mark.parametrize(("count", "readers"), [(1, 1), (2, 1), (100, 4), (1000, 1), (300, 6)])
def test_readers_in_order(count: int, readers: int) -> None:
    """Each takes a stretch of its own; none of them waits often."""
    reader = Reader(Course(count * readers))
    for step in range(count):
        for stretch in range(readers):
            reader.read(stretch * count + step)
    assert reader.missed <= readers
    assert reader.asked <= count * readers
    assert reader.messages <= 6 * readers + count * readers // 200


@pytest.mark.parametrize(("count", "readers"), [(50, 2), (1000, 4), (997, 3)])
def test_one_listing_read_by_several_together(count: int, readers: int) -> None:
    """As the workers of a loader do: a few positions apart, a little out of turn."""
    rng = random.Random(count)
    reader = Reader(Course(count))
    for start in range(0, count, readers):
        group = list(range(start, min(start + readers, count)))
        rng.shuffle(group)
        for position in group:
            reader.read(position)
    assert reader.missed <= 4
    assert reader.messages <= 20


@pytest.mark.parametrize("count", [100, 1000, 4000])
def test_a_shuffled_reader_of_all(count: int) -> None:
    reader = Reader(Course(count))
    for position in random.Random(count).sample(range(count), count):
        reader.read(position)
    assert reader.asked <= count
    assert reader.missed + reader.messages <= 30 + count // 20


@pytest.mark.parametrize("count", [200, 1500, 4000])
def test_nothing_is_fetched_twice_of_what_is_read_once(count: int) -> None:
    """There is not room for all: what was read is not kept. Files that happen to be read one behind
    the other look like the beginning of a reader in order."""
    reader = Reader(Course(count), forgets=True, unread_max=count // 2)
    for position in random.Random(count).sample(range(count), count):
        reader.read(position)
    assert reader.twice == 0


def test_a_second_reader_in_order_of_what_was_not_kept() -> None:
    course = Course(1000)
    for _ in range(2):
        reader = Reader(course, forgets=True)
        for position in range(1000):
            reader.read(position)
        assert reader.missed + reader.messages <= 20


@pytest.mark.parametrize("reads", [1, 2, 10, 100])
def test_a_reader_of_a_few_here_and_there(reads: int) -> None:
    reader = Reader(Course(20_000))
    for position in random.Random(reads).sample(range(20_000), reads):
        reader.read(position)
    assert reader.asked <= STRAY_RATIO * reads
    if reads <= 2:
        assert reader.asked == 0


def test_a_reader_who_wants_one_kind_alone() -> None:
    """Every tenth file, shuffled: what is fetched besides is hardly ever wanted."""
    reader = Reader(Course(8000))
    wanted = list(range(0, 8000, 10))
    random.Random(1).shuffle(wanted)
    for position in wanted:
        reader.read(position)
    assert reader.asked <= 8000
    assert reader.messages + reader.missed <= 400


def test_what_is_dropped_unread_makes_windows_rare() -> None:
    reader = Reader(Course(20_000))
    for position in random.Random(1).sample(range(20_000), 300):
        reader.read(position)
        for run in reader.here.values():
            run.wasted += 1
        reader.here.clear()
    assert reader.asked <= STRAY_RATIO * 300 // 4 + WIDTH_MAX


def test_a_reader_who_leaves_files_out() -> None:
    """One in four, in order: windows stay small."""
    reader = Reader(Course(4000))
    for position in range(0, 4000, 4):
        reader.read(position)
    assert max(reader.widths) <= 4 * WIDTH_MIN
    assert reader.messages + reader.missed <= 1000


def test_a_second_pass_counts_anew() -> None:
    """Nothing was kept; the second epoch is as good as the first."""
    course = Course(1000)
    for epoch in range(2):
        reader = Reader(course)
        for position in random.Random(epoch).sample(range(1000), 1000):
            reader.read(position)
        assert reader.missed + reader.messages <= 150


def test_first_windows_are_wider_where_bytes_cost_little() -> None:
    narrow, wide = Reader(Course(400)), Reader(Course(400, width_min=4 * WIDTH_MIN))
    for position in random.Random(3).sample(range(400), 400):
        narrow.read(position)
        wide.read(position)
    assert narrow.widths[0] == WIDTH_MIN
    assert wide.widths[0] == 4 * WIDTH_MIN
    assert wide.messages < narrow.messages


def test_a_habit_comes_and_goes() -> None:
    habit = Habit()

    def visit(reads: int) -> int:
        width = habit.width
        course = Course(10, width)
        habit.begun(course)
        reader = Reader(course)
        for position in range(reads):
            reader.read(position)
        return width

    assert [visit(10) for _ in range(6)] == [0, 0, 0, 0, HABIT_WIDTH, HABIT_WIDTH]
    assert [visit(1) for _ in range(12)][-1] == 0
    assert Course(10, HABIT_WIDTH).missed(3) is not None
