"""`dropDuplicates` of what is read: through the shuffle go a hash of the keys and where the row is,
24 bytes, whatever is in it. What remains is read once more where it is, and goes on from there:
text is never moved.

The hash has 128 bits of BLAKE2: nobody can make two texts that have the same.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from superfs.chukonu import expressions as e
from superfs.chukonu import types as t
from superfs.chukonu.counters import filtered
from superfs.chukonu.embedded.dividing import InTurn
from superfs.chukonu.embedded.parts import empty
from superfs.chukonu.embedded.steps import run_steps
from superfs.chukonu.errors import RuntimeException
from superfs.chukonu.native import pl
from superfs.chukonu.onspark import edges
from superfs.chukonu.onspark.reader import located, specs_of
from superfs.chukonu.onspark.stagetask import Ready, StageTask, alone
from superfs.chukonu.onspark.task import Splits
from superfs.chukonu.plan import logical as p
from superfs.chukonu.plan.pruning import prune
from superfs.chukonu.plan.stages import Stage, cut
from superfs.chukonu.sources.grouping import Unit, identity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.chukonu.counters import Tally
    from superfs.chukonu.onspark.building import Builder
    from superfs.chukonu.onspark.counting import Counting

Frame = Any
BYTES_MAX = 32 << 30
"""Of what is read: the driver knows every row that remains, in 8 bytes."""
LONG = (t.STRING, t.BINARY)
EXACT = (*LONG, t.BOOLEAN, t.DATE, *t.INTEGRALS)
"""Types whose equal values, and no others, are written equally."""
HASH, PLACE = e.Ref(-1, "hash", t.BINARY), e.Ref(-2, "place", t.LONG)
"""Of no plan: the same in every process."""


def suffice(inner: Stage, node: p.Distinct) -> bool:
    """Whether rows can be read again as they were, cheaply, and are larger than references."""
    root = inner.root
    if not isinstance(root, p.Scan) or any(ref.dtype not in EXACT for ref in node.keys):
        return False
    if all(ref.dtype in t.ATOMS and ref.dtype not in LONG for ref in inner.output):
        return False
    if sum(split.bytes for split in root.source.splits) > BYTES_MAX:
        return False
    return not any(_python(step) for step in inner.steps)


def _python(step: p.Node) -> bool:
    """Which may cost much, and need not give the same again."""
    match step:
        case p.Project(_, columns):
            exprs = [expr for _, expr in columns]
        case p.Filter(_, condition):
            exprs = [condition]
        case _:
            return isinstance(step, p.MapBatches)
    return any(isinstance(part, e.PythonUDF) for expr in exprs for part in expr.walk())


@dataclass(frozen=True)
class Hashed(Ready):
    """Of each unit the first rows of their keys: hash, and where they are."""

    keys: tuple[e.Ref, ...] = ()

    def divided(
        self, frames: Iterator[Frame], counting: Counting, base: int
    ) -> Iterator[tuple[int, Frame]]:
        known: set[bytes] = set()
        place = base << edges.AT_BITS
        assert self.division is not None
        for frame in frames:
            hashes: list[bytes] = []
            places: list[int] = []
            for number, data in enumerate(written(frame, self.keys), place):
                found = hashlib.blake2b(data, digest_size=16).digest()
                if found not in known:
                    known.add(found)
                    hashes.append(found)
                    places.append(number)
            place += frame.height
            made = pl.DataFrame(
                {HASH.key: hashes, PLACE.key: places},
                schema={HASH.key: pl.Binary, PLACE.key: pl.Int64},
            )
            yield from self.division.parts(made)


def written(frame: Frame, keys: tuple[e.Ref, ...]) -> list[bytes]:
    """The keys of each row. What is written of two rows is equal when the keys are."""
    parts = []
    for key in keys:
        column = pl.col(key.key)
        text = column.bin.encode("hex") if key.dtype == t.BINARY else column.cast(pl.String)
        size = text.str.len_bytes().cast(pl.String)
        parts.append(pl.concat_str([size, pl.lit(":"), text]).fill_null("-"))
    return list(frame.select(pl.concat_str(parts).cast(pl.Binary).alias("k"))["k"])


@dataclass(frozen=True, slots=True)
class Again(Unit):
    """With the numbers of the rows that remain, an Arrow stream."""

    rows: bytes


@dataclass(frozen=True)
class Kept(Splits):
    """Reads again what remains. `steps` are those that the duplicates were looked for behind."""

    steps: tuple[p.Node, ...] = ()
    numbers: tuple[int, ...] = ()
    distinct: int = -1
    """By which the duplicates are counted."""

    @property
    def known(self) -> list[tuple[p.Node, int]]:
        return list(zip(self.steps, self.numbers, strict=True))

    def read(self, unit: Unit, tally: Tally, number: int) -> Iterator[Frame]:
        assert isinstance(unit, Again)
        rows = pl.read_ipc_stream(io.BytesIO(unit.rows))[PLACE.key]
        place = given = 0
        for frame in run_steps(super().read(unit, tally, number), self.steps, tally):
            low, high = (rows.search_sorted(n) for n in (place, place + frame.height))
            found = frame[rows[low:high] - place]
            filtered(tally.numbered(self.distinct), frame.height, found.height, "duplicate")
            place += frame.height
            given += found.height
            yield found
        if given < rows.len():
            raise RuntimeException(
                "CHUKONU_CHANGED",
                f"{unit.split.spans[0].file.path}, or a file beside it, has lost rows while "
                "duplicates were looked for: run the job again",
            )


def distinct(
    builder: Builder, stage: Stage, node: p.Distinct, plain: StageTask
) -> tuple[Any, StageTask]:
    """Finds what remains, and gives the task that reads it and goes on."""
    inner = stage.inputs[0]
    scan = inner.root
    assert isinstance(scan, p.Scan)
    found = _places(builder, node)
    found = found.with_columns((pl.col(PLACE.key) // (1 << edges.AT_BITS)).alias("split"))
    rows_of = found.sort(PLACE.key).partition_by("split", as_dict=True, include_key=False)
    nothing = pl.DataFrame(schema={PLACE.key: pl.Int64})
    scan.source.planned()
    known = scan.source.groups(ordered=True)
    builder.layout.append(identity(known))
    groups = []
    for group in known:
        units = []
        for unit in group.units:
            rows = rows_of.get((unit.number,), nothing) - (unit.number << edges.AT_BITS)
            stream = io.BytesIO()
            rows.write_ipc_stream(stream)
            units.append(Again(unit.number, unit.split, stream.getvalue()))
        groups.append(replace(group, units=tuple(units)))
    steps = tuple(alone(step) for step in inner.steps)
    numbers = builder.numbers(scan, *inner.steps, node)
    policy = replace(scan.source.policy, fraction_max=1.0)
    source = replace(scan.source, files=[], policy=policy)
    splits = Kept(source, scan.columns, steps, numbers[1:-1], numbers[-1])
    data = located(builder.spark, specs_of(groups))
    return data, replace(plain, splits=splits, numbers=(numbers[0], *plain.numbers[1:]))


def _places(builder: Builder, node: p.Distinct) -> Frame:
    """Of the first rows: number of the split and, below, of the row in it."""
    from superfs.chukonu.onspark.building import collected

    plan = prune(p.Project(node.child, tuple((key, key) for key in node.keys)))
    division = InTurn(builder.partitions, [HASH])
    ready = Hashed(None, 0, builder.partitions, division, keys=node.keys)
    first = builder.uncounted()
    data = first.data(first.stage(cut(plan), ready)).repartitionById(ready.count, edges.TO)
    both = p.Local(None, (HASH, PLACE))
    blank = empty(both.columns)
    only = p.Project(both, ((PLACE, PLACE),))
    task = StageTask(None, (blank,), p.Distinct(both, (HASH,)), (only,), Ready(), (-1, -1))
    pieces = collected(first.data((data, task)))
    return pl.concat([blank.select(PLACE.key), *(piece.frame() for piece in pieces)])
