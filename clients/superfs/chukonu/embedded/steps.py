"""One fused segment over one frame: step after step natively, in the task that read it. After each
step its rows are counted, and its faults seen before the next step could hide them; a filter looks
only at what the filters before it have left."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from superfs.chukonu import expressions as e
from superfs.chukonu.catalog.faults import exception
from superfs.chukonu.counters import filtered
from superfs.chukonu.embedded.compile import compile_expr
from superfs.chukonu.errors import UnsupportedError
from superfs.chukonu.naming import name_of
from superfs.chukonu.native import pl
from superfs.chukonu.plan import logical as p

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from superfs.chukonu.counters import Tally

Frame = Any
"""A Polars DataFrame whose columns are the keys of a node's output."""


def run_steps(frames: Iterator[Frame], steps: Sequence[p.Node], tally: Tally) -> Iterator[Frame]:
    """Frame by frame. Only what mapInArrow is given sees where one ends."""
    for place, step in enumerate(steps):
        if isinstance(step, p.MapBatches):
            before = (_stepped(frame, steps[:place], tally) for frame in frames)
            yield from run_steps(_mapped(before, step, tally), steps[place + 1 :], tally)
            return
    for frame in frames:
        yield _stepped(frame, steps, tally)


def _stepped(frame: Frame, steps: Sequence[p.Node], tally: Tally) -> Frame:
    for step in steps:
        with tally.at(step) as counts:
            before = frame.height
            frame = _done(frame, step)
        match step:
            case p.Filter(_, condition, reason):
                filtered(counts, before, frame.height, reason or f"not {name_of(condition)}")
            case p.Sample():
                filtered(counts, before, frame.height, "not sampled")
            case _:
                counts.rows_in += before
                counts.rows_out += frame.height
    return frame


def _done(frame: Frame, step: p.Node) -> Frame:
    match step:
        case p.Project(_, columns):
            return _project(frame, columns)
        case p.Filter(_, condition):
            return _filter(frame, condition)
        case p.Generate():
            return _generate(frame, step)
        case p.Sample(_, fraction, seed):
            return _sample(frame, fraction, seed)
    raise AssertionError(f"not a narrow step: {step}")


def _checked(frame: Frame, faults: list[tuple[str, e.Expr]]) -> Frame:
    """Without its fault columns, when none of them has anything."""
    for key, expr in faults:
        found = frame[key].drop_nulls()
        if len(found):
            raise exception(int(found[0]), name_of(expr))
    return frame.drop([key for key, _ in faults]) if faults else frame


def _project(frame: Frame, columns: Sequence[tuple[e.Ref, e.Expr]]) -> Frame:
    values, faults, checks = [], [], []
    for ref, expr in columns:
        made = compile_expr(expr)
        values.append(made.value.alias(f"n{ref.number}"))
        if made.fault is not None:
            key = f"f{ref.number}"
            faults.append(made.fault.alias(key))
            checks.append((key, expr))
    # with_columns, not select: a constant is then as long as the frame.
    query = frame.lazy().with_columns(*values, *faults)
    kept = [pl.col(f"n{ref.number}").alias(ref.key) for ref, _ in columns]
    return _checked(query.select(*kept, *(pl.col(key) for key, _ in checks)).collect(), checks)


def _filter(frame: Frame, condition: e.Expr) -> Frame:
    made = compile_expr(condition)
    if made.fault is None:
        return frame.lazy().filter(made.value).collect()
    found = frame.lazy().with_columns(made.value.alias("keep"), made.fault.alias("fault")).collect()
    return _checked(found, [("fault", condition)]).filter(pl.col("keep")).drop("keep")


def _generate(frame: Frame, step: p.Generate) -> Frame:
    array = step.explode.child
    assert isinstance(array, e.Ref)
    new = step.column.key
    kept = [pl.col(ref.key) for ref in step.kept]
    query = frame.lazy().select(*kept, pl.col(array.key).alias(new))
    if not step.explode.outer:
        query = query.filter(pl.col(new).list.len() > 0)
    else:  # Polars gives no row for an empty list, and one for null
        query = query.with_columns(pl.when(pl.col(new).list.len() > 0).then(pl.col(new)))
    return query.explode(new).collect()


def _mapped(frames: Iterator[Frame], step: p.MapBatches, tally: Tally) -> Iterator[Frame]:
    from superfs.chukonu.native import pa
    from superfs.chukonu.rows import arrow_table, frame_of_arrow

    counts = tally.of(step)

    def batches() -> Iterator[Any]:
        for frame in frames:
            counts.rows_in += frame.height
            yield from arrow_table(frame, step.child.output).to_batches()

    some = False
    found = iter(step.run(batches()))
    while True:
        with tally.at(step):
            batch = next(found, None)
        if batch is None:
            break
        counts.rows_out += batch.num_rows
        some = True
        yield frame_of_arrow(pa.Table.from_batches([batch]), step.columns)
    if not some:
        yield frame_of_arrow(None, step.columns)


def _sample(frame: Frame, fraction: float, seed: int) -> Frame:
    """A row is taken or not by a hash of the seed and of what is in it, wherever it lies: the same
    for any number of partitions. Equal rows share their fate."""
    if frame.width == 0:
        raise UnsupportedError("sample of no columns")
    hashes = frame.hash_rows(int.from_bytes(hashlib.blake2b(f"{seed}".encode()).digest()[:8]))
    return frame.filter(hashes < int(fraction * (1 << 64))) if fraction < 1 else frame
