"""The parts of wide nodes over one input: groups, distinct rows, windows, order, partitions.

What fits in memory is one part. What does not has a part for each file that it was divided into.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from superfs.chukonu.embedded import wide, window
from superfs.chukonu.embedded.dividing import ByHash, InOrder, InTurn
from superfs.chukonu.embedded.parts import Part, empty, made, sliced
from superfs.chukonu.errors import MemoryExceeded
from superfs.chukonu.expressions import Ref, refs_of
from superfs.chukonu.native import pl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from superfs.chukonu.counters import Tally
    from superfs.chukonu.embedded.exchange import Exchange, Leaf
    from superfs.chukonu.embedded.job import Job
    from superfs.chukonu.embedded.pieces import Pieces
    from superfs.chukonu.plan import logical as p
    from superfs.chukonu.plan.stages import Stage

Frame = Any
SHARE_BYTES = 4 << 20
"""Less is not worth a part of its own."""
Counted = tuple[int, Frame]


def _parts(
    job: Job,
    node: p.Node,
    exchange: Exchange,
    finish: Callable[[Frame], Frame],
    large: Callable[[Leaf], Iterator[Counted]],
    *,
    counted: bool = False,
) -> list[Part]:
    """`finish` over all rows of a file; `large` over those of one that a task cannot bring back.
    `counted`: rows that went in have been."""
    limit = job.budget.frame_bytes

    def finished(get: Callable[[], Frame]) -> Iterator[Counted]:
        whole = get()
        rows = 0 if counted else whole.height
        for frame in sliced(finish(whole), limit):
            yield rows, frame
            rows = 0

    if not exchange.spilled:
        count = min(job.threads, exchange.size_bytes // SHARE_BYTES)
        if count > 1:
            return _shares(node, exchange, finish, limit, count, counted=counted)
        return [made("all", node, lambda: finished(exchange.whole))]

    def of_leaf(leaf: Leaf) -> Part:
        if leaf.pieces.size_bytes > job.budget.part_bytes:
            return made(leaf.name, node, lambda: large(leaf))
        return made(leaf.name, node, lambda: finished(leaf.pieces.whole))

    return [of_leaf(leaf) for leaf in exchange.leaves()]


def _shares(
    node: p.Node,
    exchange: Exchange,
    finish: Callable[[Frame], Frame],
    limit: int,
    count: int,
    *,
    counted: bool,
) -> list[Part]:
    """What was finished in memory as several parts, for what comes after it, writing mostly, is
    work for all threads. Whoever comes first finishes it, the others wait."""
    lock = threading.Lock()
    found: list[Frame] = []

    def share(number: int) -> Iterator[Counted]:
        with lock:
            if not found:
                found.append(finish(exchange.whole()))
        whole = found[0]
        rows = 0 if counted or number else sum(frame.height for frame in exchange.frames)
        start, end = (whole.height * n // count for n in (number, number + 1))
        for frame in sliced(whole.slice(start, end - start), limit):
            yield rows, frame
            rows = 0

    return [made(f"all.{n}/{count}", node, partial(share, n)) for n in range(count)]


# ---- groups and distinct rows


def grouped(job: Job, stage: Stage, node: p.Group) -> list[Part]:
    keys = [ref for ref, _ in node.keys]
    below = stage.inputs[0]
    if not wide.decomposable(node):
        keys = [key for _, key in node.keys if isinstance(key, Ref)]
        exchange = job.brought(below, lambda _: ByHash(keys))
        whole = partial(_whole, job, partial(wide.run, node=node))
        return _parts(job, node, exchange, partial(wide.run, node=node), whole)
    exchange = job.exchange(wide.partial(empty(below.output), node), lambda _: ByHash(keys))
    for frame in job.stream(_partial(node, part) for part in job.stage(below)):
        exchange.add(frame)
    merged = partial(wide.merged, node=node)
    return _parts(job, node, exchange, merged, partial(_whole, job, merged), counted=True)


def _partial(node: p.Group, part: Part) -> Part:
    """What a part gives is aggregated there first, and counted there."""

    def run(tally: Tally) -> Iterator[Frame]:
        for frame in part.run(tally):
            with tally.at(node) as counts:
                counts.rows_in += frame.height
                found = wide.partial(frame, node)
            yield found

    return Part(part.name, run)


def _whole(job: Job, finish: Callable[[Frame], Frame], leaf: Leaf) -> Iterator[Counted]:
    """There is no way but to have all of it in memory."""
    if leaf.pieces.size_bytes > job.budget.held_max:
        raise MemoryExceeded(leaf.pieces.size_bytes, job.budget.total_bytes, "a group")
    frame = leaf.pieces.whole()
    yield frame.height, finish(frame)


def distinct(job: Job, stage: Stage, node: p.Distinct) -> list[Part]:
    finish = partial(wide.run, node=node)

    def large(leaf: Leaf) -> Iterator[Counted]:
        """Few keys and many rows: of those that are known no more are kept."""
        kept = leaf.pieces.empty
        rows = 0
        for frame in leaf.pieces.frames():
            rows += frame.height
            kept = finish(pl.concat([kept, frame]))
        yield rows, kept

    below = stage.inputs[0]
    unique = [_unique(node, part) for part in job.stage(below)]
    exchange = job.brought(below, lambda _: ByHash(node.keys), unique)
    return _parts(job, node, exchange, finish, large)


def _unique(node: p.Distinct, part: Part) -> Part:
    def run(tally: Tally) -> Iterator[Frame]:
        for frame in part.run(tally):
            with tally.at(node) as counts:
                found = wide.run(frame, node)
                lost = frame.height - found.height
                counts.rows_in += lost
                if lost:
                    counts.dropped["duplicate"] = counts.dropped.get("duplicate", 0) + lost
            yield found

    return Part(part.name, run)


# ---- order and partitions


def sorted_(job: Job, stage: Stage, node: p.Sort) -> list[Part]:
    exchange = job.brought(stage.inputs[0], lambda frames: InOrder(node.orders, frames))
    ordered = partial(wide.run, node=node)
    return _parts(job, node, exchange, ordered, lambda leaf: _passed(leaf.pieces))


def _passed(pieces: Pieces) -> Iterator[Counted]:
    for frame in pieces.frames():
        yield frame.height, frame


def repartitioned(job: Job, stage: Stage, node: p.Repartition) -> list[Part]:
    keys = [key for key in node.keys if isinstance(key, Ref)]
    count = max(1, node.count)
    exchange = job.brought(stage.inputs[0], lambda _: InTurn(count, keys))
    if exchange.spilled:
        files = exchange.files()
        found = [(f"{files.name}.{n}", files.of(n)) for n in range(count)]
        return [made(name, node, partial(_passed, pieces)) for name, pieces in found]
    shares = dict(InTurn(count, keys).parts(exchange.whole()))

    def share(number: int) -> Iterator[Counted]:
        frame: Frame = shares.get(number, exchange.empty)
        yield frame.height, frame

    return [made(f"{count}.{n}", node, partial(share, n)) for n in range(count)]


# ---- windows


def windowed(job: Job, stage: Stage, node: p.Windowed) -> list[Part]:
    exchange = job.brought(stage.inputs[0], lambda _: ByHash(wide.keys_of(node)))
    added = partial(wide.run, node=node)
    return _parts(job, node, exchange, added, lambda leaf: _narrow(job, node, leaf.pieces))


def _narrow(job: Job, node: p.Windowed, pieces: Pieces) -> Iterator[Counted]:
    """A window partition that is too large: only the columns that its functions look at are brought
    back, and what they give is put beside the rows, which lie in their order."""
    overs = [over for _, over in node.columns]
    needed = sorted({ref.key for over in overs for ref in refs_of(over)})
    needed = needed or [pieces.empty.columns[0]]
    parts: list[Frame] = []
    size = 0
    for frame in pieces.frames(needed):
        parts.append(frame.rechunk())
        size += frame.estimated_size()
        if size > job.budget.held_max:
            raise MemoryExceeded(size, job.budget.total_bytes, "one partition of a window")
    found = window.add(pl.concat(parts), node.columns).select([ref.key for ref, _ in node.columns])
    del parts
    place = 0
    for frame in pieces.frames():
        beside = found.slice(place, frame.height)
        place += frame.height
        yield frame.height, frame.hstack(beside)
