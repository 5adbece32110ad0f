"""One fused segment over one frame: a single lazy Polars query, cut only where a fault must be seen
before the next step could hide it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from superfs.chukonu import expressions as e
from superfs.chukonu.catalog.faults import exception
from superfs.chukonu.embedded.compile import compile_expr
from superfs.chukonu.errors import UnsupportedError
from superfs.chukonu.naming import name_of
from superfs.chukonu.native import pl
from superfs.chukonu.plan import logical as p

if TYPE_CHECKING:
    from collections.abc import Sequence

Frame = Any
"""A Polars DataFrame whose columns are the keys of a node's output."""


def run_steps(frame: Frame, steps: Sequence[p.Node]) -> Frame:
    query = frame.lazy()
    for step in steps:
        match step:
            case p.Project(_, columns):
                query = _project(query, columns)
            case p.Filter(_, condition):
                query = _filter(query, condition)
            case p.Generate():
                query = _generate(query, step)
            case p.MapBatches():
                query = _map_batches(query.collect(), step).lazy()
            case p.Sample(_, fraction, seed):
                query = _sample(query.collect(), fraction, seed).lazy()
            case _:
                raise AssertionError(f"not a narrow step: {step}")
    return query.collect()


def _checked(query: Any, faults: list[tuple[str, e.Expr]]) -> Any:  # noqa: ANN401
    """The query, computed, when none of its fault columns has anything."""
    if not faults:
        return query
    frame = query.collect()
    for key, expr in faults:
        found = frame[key].drop_nulls()
        if len(found):
            raise exception(int(found[0]), name_of(expr))
    return frame.drop([key for key, _ in faults]).lazy()


def _project(query: Any, columns: Sequence[tuple[e.Ref, e.Expr]]) -> Any:  # noqa: ANN401
    values, faults, checks = [], [], []
    for ref, expr in columns:
        made = compile_expr(expr)
        values.append(made.value.alias(f"n{ref.number}"))
        if made.fault is not None:
            key = f"f{ref.number}"
            faults.append(made.fault.alias(key))
            checks.append((key, expr))
    # with_columns, not select: a constant is then as long as the frame.
    query = query.with_columns(*values, *faults)
    kept = [pl.col(f"n{ref.number}").alias(ref.key) for ref, _ in columns]
    return _checked(query.select(*kept, *(pl.col(key) for key, _ in checks)), checks)


def _filter(query: Any, condition: e.Expr) -> Any:  # noqa: ANN401
    made = compile_expr(condition)
    if made.fault is None:
        return query.filter(made.value)
    query = query.with_columns(made.value.alias("keep"), made.fault.alias("fault"))
    return _checked(query, [("fault", condition)]).filter(pl.col("keep")).drop("keep")


def _generate(query: Any, step: p.Generate) -> Any:  # noqa: ANN401
    array = step.explode.child
    assert isinstance(array, e.Ref)
    query = query.with_columns(pl.col(array.key).alias(step.column.key))
    if not step.explode.outer:
        query = query.filter(pl.col(step.column.key).list.len() > 0)
    else:  # Polars gives no row for an empty list, and one for null
        array_ = pl.col(step.column.key)
        query = query.with_columns(pl.when(array_.list.len() > 0).then(array_))
    return query.explode(step.column.key)


def _map_batches(frame: Frame, step: p.MapBatches) -> Frame:
    from superfs.chukonu.rows import arrow_table, frame_of_arrow

    table = arrow_table(frame, step.child.output)
    batches = list(step.run(iter(table.to_batches())))
    if not batches:
        return frame_of_arrow(None, step.columns)
    from superfs.chukonu.native import pa

    return frame_of_arrow(pa.Table.from_batches(batches), step.columns)


def _sample(frame: Frame, fraction: float, seed: int) -> Frame:
    """A row is taken or not by a hash of the seed and of what is in it, wherever it lies: the same
    for any number of partitions. Equal rows share their fate."""
    if frame.width == 0:
        raise UnsupportedError("sample of no columns")
    hashes = frame.hash_rows(int.from_bytes(hashlib.blake2b(f"{seed}".encode()).digest()[:8]))
    return frame.filter(hashes < int(fraction * (1 << 64))) if fraction < 1 else frame
