"""How rows that do not fit in memory are divided among files, so that what belongs together is in
one of them, and one at a time can be worked on.

By a hash of keys: what is too large is divided again by another hash, unless it is one key. By
ranges of an order: between keys of a sample, and the rows that are equal to one of these apart,
because they need no sorting however many they are. In turn, for `repartition`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Protocol

from superfs.chukonu import types as t
from superfs.chukonu.native import pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from superfs.chukonu.expressions import Order, Ref

FILES = 64
LEVELS_MAX = 3
SPLITTERS = 32
SAMPLE_ROWS = 4096
"""Of a frame, as many rows at most are looked at to find splitters."""
Frame = Any


class Division(Protocol):
    name: str
    """The same name, the same division of the same rows."""
    settles: bool
    """It was worth it even when all rows come to be in one file."""

    def parts(self, frame: Frame) -> Iterator[tuple[int, Frame]]:
        """(number of a file, rows for it), in their order."""

    def deeper(self, number: int, frames: Iterable[Frame]) -> Division | None:
        """How to divide file `number`, which has these frames; None if that would not help."""


def _numbered(frame: Frame, place: Any) -> Iterator[tuple[int, Frame]]:  # noqa: ANN401
    parts = frame.with_columns(place.alias("place")).partition_by(
        "place", as_dict=True, include_key=False, maintain_order=True
    )
    for (number,), part in parts.items():
        yield int(number), part


def _same(ref: Ref) -> Any:  # noqa: ANN401
    """Equal keys have equal bits: one zero, one NaN."""
    column = pl.col(ref.key)
    if ref.dtype not in (t.FLOAT, t.DOUBLE):
        return column
    return (column + 0.0).fill_nan(float("nan"))


def places(keys: Sequence[Ref], count: int, level: int = 0) -> Any:  # noqa: ANN401
    """A column of numbers below `count`, the same for equal keys."""
    if not keys:
        return pl.lit(0, pl.Int32)
    parts = pl.struct([_same(ref).alias(ref.key) for ref in keys])
    return (parts.hash(seed=level) % count).cast(pl.Int32)


class ByHash:
    settles = False

    def __init__(self, keys: Sequence[Ref], level: int = 0) -> None:
        self._keys = list(keys)
        self._level = level
        self.name = f"hash{level}"

    def parts(self, frame: Frame) -> Iterator[tuple[int, Frame]]:
        if not self._keys:
            yield 0, frame
            return
        yield from _numbered(frame, places(self._keys, FILES, self._level))

    def deeper(self, number: int, frames: Iterable[Frame]) -> Division | None:
        if not self._keys or self._level + 1 >= LEVELS_MAX:
            return None
        return ByHash(self._keys, self._level + 1)


class InTurn:
    """As many files as are asked for: row by row one after the other, or by a hash of keys."""

    settles = False

    def __init__(self, count: int, keys: Sequence[Ref] = ()) -> None:
        self._count = count
        self._keys = list(keys)
        self._rows = 0
        self.name = f"{count}"

    def parts(self, frame: Frame) -> Iterator[tuple[int, Frame]]:
        if self._keys:
            place = places(self._keys, self._count)
        else:
            place = (pl.int_range(pl.len()) + self._rows) % self._count
            self._rows += frame.height
        yield from _numbered(frame, place)

    def deeper(self, number: int, frames: Iterable[Frame]) -> Division | None:
        return None


class ByOrder:
    """Splitters are keys of a sample, at regular distances in its order."""

    settles = True

    def __init__(self, orders: Sequence[Order], frames: Iterable[Frame], files: int) -> None:
        """`frames` have the columns of the orders; about `files` splitters are chosen."""
        self._orders = list(orders)
        self._names = [f"k{i}" for i in range(len(self._orders))]
        samples = []
        for frame in frames:
            step = max(1, frame.height // SAMPLE_ROWS)
            samples.append(frame.select(self._keys()).gather_every(step))
        keys = self._sorted(pl.concat(samples))
        step = max(1, keys.height // files)
        self._splitters = keys.gather_every(step, step // 2).unique(maintain_order=True)
        text = self._splitters.write_ipc(None).getvalue()
        self.name = f"order-{hashlib.blake2b(text, digest_size=8).hexdigest()}"

    def _keys(self) -> list[Any]:
        made = []
        for name, order in zip(self._names, self._orders, strict=True):
            column = pl.col(order.child.key)  # type: ignore[attr-defined]
            floats = order.child.dtype in (t.FLOAT, t.DOUBLE)  # type: ignore[attr-defined]
            made.append((column + 0.0 if floats else column).alias(name))
        return made

    def _sorted(self, frame: Frame, *last: str) -> Frame:
        ways = [order.descending for order in self._orders]
        nulls = [order.nulls_last for order in self._orders]
        return frame.sort(
            [*self._names, *last],
            descending=[*ways, *(False for _ in last)],
            nulls_last=[*nulls, *(False for _ in last)],
            maintain_order=True,
        )

    def _placed(self, frame: Frame, marks: Sequence[int]) -> Any:  # noqa: ANN401
        """How many marks are before each row: of every splitter one for each of `marks`, before
        rows that are equal to it if it is 0, behind them if it is 2."""
        row = pl.int_range(pl.len(), dtype=pl.Int64).alias("row")
        rows = frame.select(*self._keys(), pl.lit(1, pl.Int8).alias("mark"), row)
        none = pl.lit(None, pl.Int64).alias("row")
        between = [
            self._splitters.select(*self._names, pl.lit(mark, pl.Int8).alias("mark"), none)
            for mark in marks
        ]
        found = self._sorted(pl.concat([rows, *between]), "mark").select(
            "row", (pl.col("mark") != 1).cum_sum().alias("place")
        )
        return found.filter(pl.col("row").is_not_null()).sort("row")["place"]


class InOrder(ByOrder):
    """File 2i has what is between splitters i-1 and i, file 2i+1 what is equal to splitter i."""

    def __init__(self, orders: Sequence[Order], frames: Iterable[Frame]) -> None:
        super().__init__(orders, frames, SPLITTERS)

    def parts(self, frame: Frame) -> Iterator[tuple[int, Frame]]:
        yield from _numbered(frame, self._placed(frame, (0, 2)))

    def deeper(self, number: int, frames: Iterable[Frame]) -> Division | None:
        return None if self.equal(number) else InOrder(self._orders, frames)

    @staticmethod
    def equal(number: int) -> bool:
        return number % 2 == 1


class Ranges(ByOrder):
    """Range i has what is not before splitter i-1, and before splitter i."""

    def __init__(self, orders: Sequence[Order], frames: Iterable[Frame], count: int) -> None:
        super().__init__(orders, frames, count)
        self.count = self._splitters.height + 1

    def parts(self, frame: Frame) -> Iterator[tuple[int, Frame]]:
        yield from _numbered(frame, self._placed(frame, (0,)))


class Sampled:
    """Of every frame some rows, at regular distances."""

    def parts(self, frame: Frame) -> Iterator[tuple[int, Frame]]:
        yield 0, frame.gather_every(max(1, frame.height // SAMPLE_ROWS))
