"""What wide operations bring together: all rows in memory, or divided among files when they are
more than the budget has left. Divided rows keep the order in which they came, within their file.

What is divided where depends on the rows and the budget alone, so that a job that is started again
finds the same files.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from superfs.chukonu.embedded.pieces import Folder, Pieces
from superfs.chukonu.native import pl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from superfs.chukonu.embedded.budget import Budget
    from superfs.chukonu.embedded.dividing import Division

Frame = Any


@dataclass(frozen=True, eq=False)
class Leaf:
    """A file that is not divided further."""

    name: str
    number: int
    """The last one in its name: what it is to the division that made it."""
    pieces: Pieces


class Exchange:
    """`begin` makes the division, from what is in memory when the budget is met."""

    def __init__(
        self,
        budget: Budget,
        folder: str | None,
        empty: Frame,
        begin: Callable[[list[Frame]], Division],
    ) -> None:
        self._budget = budget
        self._folder = folder
        self.empty = empty
        self._begin = begin
        self.frames: list[Frame] = []
        self._files: Files | None = None
        self._held = _Held(budget)
        weakref.finalize(self, self._held.release)

    @property
    def spilled(self) -> bool:
        return self._files is not None

    def add(self, frame: Frame) -> None:
        if self._files is None:
            self.frames.append(frame)
            if not self._held.add(frame.estimated_size()):
                self.spill()
        else:
            self._files.add(frame)

    def spill(self) -> Exchange:
        """From here on in files."""
        if self._files is None:
            held = self.frames or [self.empty]
            self._files = Files(self._begin(held), Folder(self._folder), self.empty)
            self.frames = []
            while held:
                self._files.add(held.pop(0))
            self._held.release()
        return self

    @property
    def size_bytes(self) -> int:
        """Of what is in memory."""
        return sum(frame.estimated_size() for frame in self.frames)

    def whole(self) -> Frame:
        """What is in memory."""
        assert self._files is None
        return pl.concat(self.frames) if self.frames else self.empty

    def leaves(self) -> Iterator[Leaf]:
        """In the order of the division. What is too large for one task is divided again, if that is
        possible."""
        assert self._files is not None
        yield from self._files.leaves(self._budget.part_bytes)

    def files(self) -> Files:
        assert self._files is not None
        return self._files


class _Held:
    """What an exchange has of the budget. It outlives the exchange, to give it back."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._size = 0

    def add(self, size: int) -> bool:
        fits = self._budget.hold(size)
        self._size += size if fits else 0
        return fits

    def release(self) -> None:
        self._budget.release(self._size)
        self._size = 0


class Files:
    """What a division has made, one level of it."""

    def __init__(self, division: Division, folder: Folder, empty: Frame, above: str = "") -> None:
        self.division = division
        self._folder = folder
        self.empty = empty
        self.name = f"{above}{division.name}"
        self.known: dict[int, Pieces] = {}

    def add(self, frame: Frame) -> None:
        for number, part in self.division.parts(frame):
            if number not in self.known:
                self.known[number] = Pieces(self._folder, self.empty)
            self.known[number].add(part)

    def of(self, number: int) -> Pieces:
        """Without rows when there are none."""
        if number not in self.known:
            self.known[number] = Pieces(self._folder, self.empty)
        self.known[number].finish()
        return self.known[number]

    def deeper(self, number: int) -> Files | None:
        pieces = self.of(number)
        division = self.division.deeper(number, pieces.frames())
        if division is None or not pieces.rows:
            return None
        found = Files(division, self._folder, self.empty, f"{self.name}.{number}/")
        for frame in pieces.frames():
            found.add(frame)
        return found

    def divided(self, number: int, limit_bytes: int) -> Files | None:
        """None when the file is small enough, or is not made smaller by that."""
        size = self.of(number).size_bytes
        found = self.deeper(number) if size > limit_bytes else None
        if found is not None and len(found.known) == 1 and not found.division.settles:
            return None
        return found

    def leaves(self, limit_bytes: int) -> Iterator[Leaf]:
        for number in sorted(self.known):
            found = self.divided(number, limit_bytes)
            if found is None:
                yield Leaf(f"{self.name}.{number}", number, self.of(number))
            else:
                del self.known[number]
                yield from found.leaves(limit_bytes)


def gathered(exchange: Exchange, frames: Iterable[Frame]) -> Exchange:
    for frame in frames:
        exchange.add(frame)
    return exchange
