"""The parts of a join. A side that fits in memory is there for every part of the other side, which
is not moved at all. Two that do not fit are divided by the same hashes, and joined file by file.

A pair of files that stays too large, because most of it is one key, is joined piece by piece: what
matches from every pair of pieces, and what matches nothing by the keys of the other side alone.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from superfs.chukonu.embedded import wide
from superfs.chukonu.embedded.budget import FRAME_BYTES
from superfs.chukonu.embedded.dividing import ByHash
from superfs.chukonu.embedded.parts import Part, made, passed, sliced
from superfs.chukonu.expressions import Ref
from superfs.chukonu.native import pl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.chukonu.counters import Tally
    from superfs.chukonu.embedded.exchange import Exchange, Files
    from superfs.chukonu.embedded.job import Job
    from superfs.chukonu.embedded.pieces import Pieces
    from superfs.chukonu.plan import logical as p
    from superfs.chukonu.plan.stages import Stage

Frame = Any
Counted = tuple[int, Frame]
BY_LEFT = ("inner", "cross", "left", "semi", "anti")
BY_RIGHT = ("inner", "cross", "right")
PAIRS_MAX = 1 << 20
"""Rows that one frame of a result has at most, about."""


def joined(job: Job, stage: Stage, node: p.Join) -> list[Part]:
    one, other = stage.inputs
    keys = [[k for k in side if isinstance(k, Ref)] for side in (node.left_keys, node.right_keys)]
    right = job.brought(other, lambda _: ByHash(keys[1]))
    if not right.spilled and node.how in BY_LEFT:
        _noted(job, node, right)
        return [_beside(node, part, right, left=False) for part in job.stage(one)]
    left = job.brought(one, lambda _: ByHash(keys[0]))
    if not left.spilled and not right.spilled:
        return [made("all", node, lambda: _pairs(left.whole(), right.whole(), node))]
    if not left.spilled and node.how in BY_RIGHT:
        _noted(job, node, left)
        return [
            _beside(node, _stored(leaf.name, leaf.pieces), left, left=True)
            for leaf in right.leaves()
        ]
    return list(_divided(job, node, left.spill().files(), right.spill().files()))


def _noted(job: Job, node: p.Join, held: Exchange) -> None:
    """The rows of a held side went in once."""
    tally = job.run.tally()
    tally.of(node).rows_in += sum(frame.height for frame in held.frames)
    job.run.merge(tally)


def _stored(name: str, pieces: Pieces) -> Part:
    return Part(name, lambda _: pieces.frames())


def _beside(node: p.Join, part: Part, held: Exchange, *, left: bool) -> Part:
    """`left`: that is the side which is held."""

    def run(tally: Tally) -> Iterator[Frame]:
        with tally.at(node):
            known = held.whole()
        for frame in part.run(tally):
            pair = (known, frame) if left else (frame, known)
            steps = _pairs(*pair, node, known=known.height)
            while True:
                with tally.at(node) as counts:
                    found = next(steps, None)
                    if found is not None:
                        passed(node, counts, found[0], found[1].height)
                if found is None:
                    break
                yield found[1]

    return Part(part.name, run)


def _pairs(left: Frame, right: Frame, node: p.Join, known: int = 0) -> Iterator[Counted]:
    """The join of two frames, in frames of a bounded number of rows. `known` rows of them have been
    counted before."""
    rows = left.height + right.height - known
    for part, whole in _bounded(left, right, node):
        for found in sliced(wide.join(part, whole, node), FRAME_BYTES):
            yield rows, found
            rows = 0


def _bounded(left: Frame, right: Frame, node: p.Join) -> Iterator[tuple[Frame, Frame]]:
    if node.how in ("semi", "anti", "full") or left.height * right.height <= PAIRS_MAX:
        yield left, right
        return
    cut, other = (right, left) if node.how == "right" else (left, right)
    ends = _ends(cut, other, node)
    start = 0
    for end in ends:
        part = cut.slice(start, end - start)
        yield (other, part) if node.how == "right" else (part, other)
        start = end


def _ends(cut: Frame, other: Frame, node: p.Join) -> list[int]:
    """Where to cut a side, so that what each piece gives has few enough rows."""
    if node.how == "cross":
        step = max(1, PAIRS_MAX // max(1, other.height))
        return [*range(step, cut.height, step), cut.height]
    mine, others = node.left_keys, node.right_keys
    if node.how == "right":
        mine, others = others, mine
    names = [f"k{i}" for i in range(len(mine))]
    by = [wide.normal(key).alias(name) for key, name in zip(others, names, strict=True)]
    counts = other.select(by).group_by(names).agg(pl.len().alias("n"))
    by = [wide.normal(key).alias(name) for key, name in zip(mine, names, strict=True)]
    rows = cut.select(by).join(counts, on=names, how="left", maintain_order="left")
    total = rows.select(pl.col("n").fill_null(1).cast(pl.Int64).cum_sum() // PAIRS_MAX)["n"]
    ends = (total != total.shift(1)).fill_null(False).arg_true().to_list()
    return [*ends, cut.height] if not ends or ends[-1] < cut.height else ends


# ---- files


def _divided(job: Job, node: p.Join, left: Files, right: Files) -> Iterator[Part]:
    for number in sorted({*left.known, *right.known}):
        one, other = left.of(number), right.of(number)
        name = f"{left.name}.{number}"
        if one.size_bytes + other.size_bytes <= job.budget.part_bytes:
            yield made(name, node, partial(_both, one, other, node))
            continue
        deeper = left.deeper(number), right.deeper(number)
        if deeper[0] is None or deeper[1] is None or max(len(d.known) for d in deeper if d) == 1:
            yield made(name, node, partial(_piecewise, one, other, node))
        else:
            yield from _divided(job, node, deeper[0], deeper[1])


def _both(left: Pieces, right: Pieces, node: p.Join) -> Iterator[Counted]:
    yield from _pairs(left.whole(), right.whole(), node)


def _piecewise(left: Pieces, right: Pieces, node: p.Join) -> Iterator[Counted]:
    yield left.rows + right.rows, wide.join(left.empty, right.empty, node)
    if node.how in ("semi", "anti"):
        keys = _keys(right, node.right_keys)
        for frame in left.frames():
            yield 0, wide.join(frame, keys, node)
        return
    how = "cross" if node.how == "cross" else "inner"
    inner = replace(node, how=how)
    for frame in left.frames():
        for other in right.frames():
            for _, found in _pairs(frame, other, inner):
                yield 0, found
    if node.how in ("left", "full"):
        keys = _keys(right, node.right_keys)
        for frame in left.frames():
            alone = wide.join(frame, keys, replace(node, how="anti"))
            yield 0, wide.join(alone, right.empty, replace(node, how="left"))
    if node.how in ("right", "full"):
        keys = _keys(left, node.left_keys)
        turned = replace(node, left_keys=node.right_keys, right_keys=node.left_keys, how="anti")
        for frame in right.frames():
            alone = wide.join(frame, keys, turned)
            yield 0, wide.join(left.empty, alone, replace(node, how="right"))


def _keys(pieces: Pieces, keys: Any) -> Frame:  # noqa: ANN401
    """Those that there are, each once."""
    names = [key.key for key in keys]
    found = pieces.empty.select(names)
    for frame in pieces.frames(names):
        found = pl.concat([found, frame.select(names)]).unique()
    return found
