"""Parts: what one task does. A part gives frames, one after the other, and counts what it does. A
narrow segment wraps a part, so that rows are read, transformed and handed on in one go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from superfs.chukonu.catalog.dtypes import dtype
from superfs.chukonu.counters import Counts, Tally, filtered
from superfs.chukonu.embedded.steps import run_steps
from superfs.chukonu.native import pl
from superfs.chukonu.plan import logical as p

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from superfs.chukonu.expressions import Ref

Frame = Any


@dataclass(frozen=True)
class Part:
    """`name`: two parts of one plan with the same name have the same rows."""

    name: str
    run: Callable[[Tally], Iterator[Frame]]


def fused(part: Part, steps: Sequence[p.Node]) -> Part:
    if not steps:
        return part
    return Part(part.name, lambda tally: run_steps(part.run(tally), steps, tally))


def given(node: p.Node, frame: Frame) -> Part:
    def run(tally: Tally) -> Iterator[Frame]:
        passed(node, tally.of(node), frame.height, frame.height)
        yield frame

    return Part("given", run)


def made(name: str, node: p.Node, make: Callable[[], Iterator[tuple[int, Frame]]]) -> Part:
    """`make` gives frames, each with the rows that went into it."""

    def run(tally: Tally) -> Iterator[Frame]:
        steps = make()
        while True:
            with tally.at(node) as counts:
                found = next(steps, None)
                if found is not None:
                    passed(node, counts, found[0], found[1].height)
            if found is None:
                return
            yield found[1]

    return Part(name, run)


LOST = {p.Distinct: "duplicate", p.Limit: "beyond the limit"}


def passed(node: p.Node, counts: Counts, rows_in: int, rows_out: int) -> None:
    if type(node) in LOST:
        filtered(counts, rows_in, rows_out, LOST[type(node)])
    else:
        counts.rows_in += rows_in
        counts.rows_out += rows_out


def empty(output: Sequence[Ref]) -> Frame:
    return pl.DataFrame(schema={ref.key: dtype(ref.dtype) for ref in output})


def together(frames: list[Frame], output: Sequence[Ref]) -> Frame:
    if not frames:
        return empty(output)
    return frames[0] if len(frames) == 1 else pl.concat(frames)


def sliced(frame: Frame, limit_bytes: int) -> Iterator[Frame]:
    """In frames of about that size; one without rows when it has none."""
    size = frame.estimated_size()
    if size <= limit_bytes:
        yield frame
        return
    yield from frame.iter_slices(max(1, frame.height * limit_bytes // size))
