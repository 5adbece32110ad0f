"""Which files of a directory to fetch before somebody reads them.

Pure: files are positions in the order of the directory's listing, and nothing is known of them here
but which are read when. One `Course` is of one directory.

* Readers who go through it in order are `Run`s: the first file is fetched alone, from the second on
  a window that grows while it is used. The next window is asked for when the reader has arrived in
  the last one. Several may be under way at once (one per process), and each may jump a little.
* Reads here and there: with the third file windows are fetched besides, each twice as large, in all
  not more than `STRAY_RATIO` files for each that is read: so many cost about what one more question
  does. What is dropped unread counts `WASTE_WEIGHT` times more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

WIDTH_MIN, WIDTH_MAX = 8, 512
"""Files of a window."""
RUN_GROWTH, STRAY_GROWTH = 4, 2
RUNS_MAX = 16
NEAR = 4
"""Files that a reader in order may leave out or come back to."""
STRAYS_MIN = 3
STRAY_RATIO, UNIT_BYTES = 32, 8192
"""Files of at most so many bytes fetched besides strays, for each file that is read: about what
costs as much as a read that has to ask."""
WASTE_WEIGHT = 3
HABIT_MIN, HABIT_WIDTH, HABIT_OPEN_MAX = 3, 32, 4
"""So many directories that were read by half, the width of the window then, and how many may be
begun before the first of them counts as one that was not."""
SCAN, SCAN_STRAYS = 4, 4096
"""A window looks at so many times its width for files that are worth fetching; besides strays, at
so many files."""


@dataclass(slots=True, eq=False)
class Run:
    """`end`: the first position that was not asked for; `mark`: where the last window began."""

    course: Course
    last: int
    end: int
    mark: int
    width: int = 0
    asked: int = 0  # files
    used: int = 0
    wasted: int = 0
    in_order: bool = True


@dataclass(frozen=True, slots=True)
class Window:
    """Of files from `start` on, for `run`. `waits`: the first one is being waited for."""

    run: Run
    start: int
    waits: bool = False


class Course:
    """`width`: of the window that the first read brings, where it is known that more will follow.
    `width_min`: of a reader's first window otherwise. `read_at`: when somebody last read there; the
    owner's to set."""

    def __init__(self, count: int, width: int = 0, width_min: int = WIDTH_MIN) -> None:
        self.count = count
        self._first = width
        self._width_min = width_min
        self.read_at = 0.0
        self.reads = 0
        self._runs: list[Run] = []
        self._strays = Run(self, 0, 0, 0, in_order=False)
        self._spent = 0  # on them
        self._strayed = 0  # reads that belonged to no run
        self._read = bytearray(count)
        self._again = 0

    @property
    def width(self) -> int:
        """Of the widest window of a reader in order."""
        return max((run.width for run in self._runs), default=0)

    # ---- what is read

    def missed(self, position: int) -> Window | None:
        """Somebody reads a file that is not there. None: fetch it alone. What is waited for is
        read (`found`) when it has come."""
        run = self._run_at(position)
        if run is not None:
            run.last = position
            return self._next(run, position, waits=True)
        run = Run(self, position, position + 1, position)
        self._runs.append(run)
        if len(self._runs) > RUNS_MAX:
            del self._runs[0]
        self._strayed += 1
        if self._first:
            return self._next(run, position, waits=True)
        self._note(position)
        if self._strayed < STRAYS_MIN or self._strays_left < WIDTH_MIN:
            return None
        return Window(self._strays, position + 1)

    def found(self, position: int, run: Run) -> Window | None:
        """Somebody reads for the first time what was fetched for `run`."""
        run.used += 1
        self._note(position)
        if not run.in_order:
            going = self._run_at(position)
            if going is not None:
                going.last, going.end = position, max(going.end, position + 1)
            return None
        run.last = position
        if position < run.mark or run.end >= self.count or run.width == 1:
            return None  # the last: who leaves so much out may leave out the next one
        return self._next(run, run.end, waits=False)

    def _run_at(self, position: int) -> Run | None:
        for run in reversed(self._runs):
            if (
                run.last - NEAR <= position <= max(run.last, run.end) + NEAR
                and position != run.last
            ):
                return run
        return None

    def _next(self, run: Run, start: int, *, waits: bool) -> Window:
        if not run.asked:
            self._strayed -= 1  # it was the beginning of a run
        return Window(run, start, waits)

    @property
    def _strays_left(self) -> int:
        return STRAY_RATIO * self.reads - self._spent - WASTE_WEIGHT * self._strays.wasted

    def _note(self, position: int) -> None:
        self.reads += 1
        if not self._read[position]:
            self._read[position] = 1
            return
        self._again += 1
        if self._again > max(WIDTH_MIN, self.count // 8):
            self._read = bytearray(self.count)
            self._again = 0

    # ---- what to fetch

    def pick(
        self,
        window: Window,
        cost: Callable[[int], int],
        bytes_max: int,
        unit_bytes: int = UNIT_BYTES,
    ) -> list[int]:
        """The positions to fetch now: whoever calls this does so. `cost`: bytes of a file, negative
        where there is no use in it. `unit_bytes`: a file of more counts as several."""
        run = window.run
        self._widen(run)
        picked: list[int] = []
        position = window.start
        for position in self._from(window):
            bytes_ = cost(position)
            if bytes_ < 0:
                continue
            bytes_max -= bytes_
            if bytes_max < 0:
                position -= 1
                break
            picked.append(position)
            if not run.in_order:
                self._spent += 1 + bytes_ // unit_bytes
            if len(picked) == run.width:
                break
        if run.in_order:
            run.mark, run.end = window.start, max(run.end, min(position + 1, self.count))
        run.asked += len(picked)
        return picked

    def _from(self, window: Window) -> Iterable[int]:
        """What was read is passed over, unless somebody begins to read it all again."""
        start, run = window.start, window.run
        if run.in_order:
            ahead = range(start, min(start + SCAN * run.width, self.count))
            if self._again > NEAR:
                return ahead
            wanted = start if window.waits else -1
            return (at for at in ahead if at == wanted or not self._read[at])
        looked = min(self.count, SCAN_STRAYS)
        around = ((start + step) % self.count for step in range(looked))
        return (at for at in around if not self._read[at])

    def _widen(self, run: Run) -> None:
        if not run.in_order:
            width = max(self._width_min, STRAY_GROWTH * run.width)
            run.width = min(width, WIDTH_MAX, self._strays_left)
            return
        passed = run.asked - run.width
        if run.width == 0:
            run.width = self._first or self._width_min
            self._first = 0
        elif passed >= WIDTH_MIN and 2 * run.used < passed:
            run.width = max(1, run.width // RUN_GROWTH)
        else:
            run.width = min(RUN_GROWTH * run.width, WIDTH_MAX)


class Habit:
    """Whether who reads one file of a directory is about to read them all, as a search through a
    tree does: then the first file need not be asked for alone."""

    def __init__(self) -> None:
        self._good = 0
        self._open: list[Course] = []

    @property
    def width(self) -> int:
        """Of the first window of another directory; 0: no window."""
        return HABIT_WIDTH if self._good >= HABIT_MIN else 0

    def begun(self, course: Course) -> None:
        going_on: list[Course] = []
        for earlier in self._open:
            if 2 * earlier.reads >= earlier.count:
                self._good = min(self._good + 1, 2 * HABIT_MIN)
            else:
                going_on.append(earlier)
        if len(going_on) >= HABIT_OPEN_MAX:
            del going_on[0]
            self._good //= 2
        self._open = [*going_on, course]
