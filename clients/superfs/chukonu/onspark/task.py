"""What a Python worker of Spark does with a split: read, transform, hand on as Arrow batches."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from superfs.chukonu.catalog.dtypes import small
from superfs.chukonu.counters import Counts, Tally
from superfs.chukonu.embedded.steps import run_steps
from superfs.chukonu.native import pa
from superfs.chukonu.rows import arrow_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from superfs.chukonu.expressions import Ref
    from superfs.chukonu.plan.logical import Node
    from superfs.chukonu.sources.files import Source
    from superfs.chukonu.sources.grouping import Unit

SPEC = "split"
BATCH_ROWS = 10_000


@dataclass(frozen=True)
class Splits:
    """Reads the splits that a partition has. `source` has no files: splits have theirs."""

    source: Source
    columns: Sequence[Ref]

    @property
    def known(self) -> list[tuple[Node, int]]:
        """Steps that it takes by itself, and by which numbers they are counted."""
        return []

    def units(self, batches: Iterator[Any]) -> Iterator[Unit]:
        for batch in batches:
            for spec in batch.column(SPEC):
                yield from pickle.loads(spec.as_py())

    def read(self, unit: Unit, tally: Tally, number: int) -> Iterator[Any]:
        """`number`: of the scan, to whom it is counted."""
        way = self.source.store.way
        counts = Counts()
        yield from self.source.frames(
            unit.split, self.columns, counts, lambda o, f: tally.read(o, f, way)
        )
        tally.numbered(number).merge(counts)


class SegmentTask:
    """Given to mapInArrow, and pickled with it. `source` has no files: splits have theirs."""

    def __init__(
        self, source: Source, columns: Sequence[Ref], steps: Sequence[Node], output: Sequence[Ref]
    ) -> None:
        self._source = source
        self._columns = columns
        self._steps = steps
        self._output = output

    def __call__(self, batches: Iterator[Any]) -> Iterator[Any]:
        tally, splits = Tally(), Splits(self._source, self._columns)
        frames = (f for unit in splits.units(batches) for f in splits.read(unit, tally, -1))
        for frame in run_steps(frames, self._steps, tally):
            yield from _spark_table(frame, self._output).to_batches(BATCH_ROWS)


def _spark_table(frame: Any, output: Sequence[Ref]) -> Any:  # noqa: ANN401
    """Spark takes small strings and lists only."""
    table = arrow_table(frame, output)
    fields = [pa.field(field.name, small(field.type)) for field in table.schema]
    return table.cast(pa.schema(fields))


def ddl(output: Sequence[Ref]) -> str:
    return ", ".join(
        f"`{ref.name.replace('`', '``')}` {ref.dtype.simpleString()}" for ref in output
    )
