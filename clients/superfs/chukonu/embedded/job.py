"""A job: one plan, run once by the embedded executor, and counted.

A partition is a function that is given a tally and gives a frame. A narrow segment wraps the
function, so that a partition is read, transformed and handed on in one go, and only as many of them
are in memory as there are threads. A wide node brings its inputs together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from superfs.chukonu.catalog.dtypes import dtype
from superfs.chukonu.counters import Counts, Run, Tally, filtered
from superfs.chukonu.embedded import wide
from superfs.chukonu.embedded.spill import FILES, Spill, gathered, spilled
from superfs.chukonu.embedded.steps import run_steps
from superfs.chukonu.expressions import Ref
from superfs.chukonu.native import pl
from superfs.chukonu.plan import logical as p
from superfs.chukonu.plan.explain import operators
from superfs.chukonu.plan.stages import Stage, cut
from superfs.chukonu.sources.ways import Ways

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from superfs.chukonu.embedded.executor import Executor

Frame = Any
Part = Callable[[Tally], Frame]


class Job:
    """`plan` is pruned: its nodes are copies, so each place in it has counts of its own."""

    def __init__(self, executor: Executor, plan: p.Node) -> None:
        self._executor = executor
        self._stages = cut(plan)
        scans = [node for node, _ in operators(self._stages) if isinstance(node, p.Scan)]
        size = sum(split.bytes for scan in scans for split in scan.source.splits)
        self.run = Run(operators(self._stages), size)
        self._ways = Ways(scan.source.store for scan in scans)

    def partitions(self) -> list[Part]:
        found = self._stage(self._stages)
        self.run.tasks_total = len(found)
        return found

    def results(self, partitions: Iterable[Callable[[Tally], Any]]) -> Iterator[Any]:
        """Of the last stage, in order. What they have counted is the run's."""
        yield from self._run(partitions, last=True)
        self.end()

    def frame(self) -> Frame:
        return _together(list(self.results(self.partitions())), self._stages.output)

    def end(self) -> None:
        self.run.end(self._ways.split)

    def _run(
        self, partitions: Iterable[Callable[[Tally], Any]], *, last: bool = False
    ) -> Iterator[Any]:
        def counted(part: Callable[[Tally], Any]) -> Callable[[], Any]:
            def run() -> Any:  # noqa: ANN401
                tally = self.run.tally()
                found = part(tally)
                self.run.merge(tally, last=last)
                return found

            return run

        yield from self._executor.run(counted(part) for part in partitions)

    # ---- stages

    def _stage(self, stage: Stage) -> list[Part]:
        return [_fused(part, stage.steps) for part in self._root(stage)]

    def _whole(self, stage: Stage) -> Frame:
        """All rows of a stage in one frame."""
        return _together(list(self._run(self._stage(stage))), stage.output)

    def _root(self, stage: Stage) -> list[Part]:
        node = stage.root
        match node:
            case p.Scan():
                return [_scanned(node, part) for part in node.source.partitions(node.columns)]
            case p.Local(frame):
                return [_given(node, frame)]
            case p.Union():
                return [part for side in self._sides(stage) for part in side]
            case p.Limit(_, count):
                limited, seen = self._limited(stage.inputs[0], count)
                return [_counted(node, seen, lambda: limited)]
            case p.Join():
                return self._joined(stage, node)
            case p.Group() if wide.decomposable(node):
                keys = [ref for ref, _ in node.keys]
                return self._keyed(stage, keys, lambda f: wide.merged(f, node), partial=True)
            case p.Group() | p.Distinct() | p.Windowed():
                return self._keyed(stage, wide.keys_of(node), lambda f: wide.run(f, node))
        whole = self._whole(stage.inputs[0])
        if isinstance(node, p.Repartition):
            made = wide.repartition(whole, node)
            return [_counted(node, None, part) for part in made]
        return [_counted(node, whole.height, lambda: wide.run(whole, node))]

    def _gather(self, frames: Iterable[Frame], keys: Sequence[Ref]) -> list[Frame] | Spill:
        return gathered(frames, keys, self._executor.budget_bytes, self._executor.folder)

    def _keyed(
        self,
        stage: Stage,
        keys: Sequence[Ref],
        finish: Callable[[Frame], Frame],
        *,
        partial: bool = False,
    ) -> list[Part]:
        """`finish` over all rows, or over the rows of one file of keys after the other. `partial`:
        what partitions give is aggregated there first, and counted there."""
        node, below = stage.root, stage.inputs[0]
        parts = self._stage(below) or [lambda _: _together([], below.output)]
        frames = self._run([_partial(node, part) if partial else part for part in parts])
        found = self._gather(frames, keys)

        def finished(get: Callable[[], Frame]) -> Part:
            def run(tally: Tally) -> Frame:
                with tally.at(node) as counts:
                    whole = get()
                    result = finish(whole)
                _passed(node, counts, 0 if partial else whole.height, result.height)
                return result

            return run

        if isinstance(found, list):
            together = pl.concat(found)
            return [finished(lambda: together)]
        return [finished(lambda n=n: found.part(n)) for n in range(FILES)]  # type: ignore[misc]

    def _joined(self, stage: Stage, node: p.Join) -> list[Part]:
        sides: list[Any] = []
        keys = [
            [k for k in side if isinstance(k, Ref)] for side in (node.left_keys, node.right_keys)
        ]
        for inner, key in zip(stage.inputs, keys, strict=True):
            sides.append(self._gather(self._run(self._stage(inner)), key))

        def joined(get: Callable[[], tuple[Frame, Frame]]) -> Part:
            def run(tally: Tally) -> Frame:
                with tally.at(node) as counts:
                    left, right = get()
                    result = wide.join(left, right, node)
                _passed(node, counts, left.height + right.height, result.height)
                return result

            return run

        if all(isinstance(side, list) for side in sides):
            left, right = (
                _together(side, inner.output)
                for side, inner in zip(sides, stage.inputs, strict=True)
            )
            return [joined(lambda: (left, right))]
        for place, side in enumerate(sides):
            if isinstance(side, list):
                frames = side or [_together([], stage.inputs[place].output)]
                sides[place] = spilled(frames, keys[place], self._executor.folder).finish()
        one, other = sides
        return [
            joined(lambda n=n: (one.part(n), other.part(n)))  # type: ignore[misc]
            for n in range(FILES)
        ]

    def _sides(self, stage: Stage) -> Iterator[list[Part]]:
        node = stage.root
        assert isinstance(node, p.Union)
        for side in stage.inputs:
            names = {old.key: new.key for old, new in zip(side.output, node.columns, strict=True)}

            def renamed(part: Part, names: dict[str, str] = names) -> Part:
                def run(tally: Tally) -> Frame:
                    frame = part(tally)
                    _passed(node, tally.of(node), frame.height, frame.height)
                    return frame.select([pl.col(old).alias(new) for old, new in names.items()])

                return run

            yield [renamed(part) for part in self._stage(side)]

    def _limited(self, stage: Stage, count: int) -> tuple[Frame, int]:
        """Partitions beyond the last needed row are not run. And how many rows were seen."""
        found: list[Frame] = []
        seen = 0
        for part in self._stage(stage):
            if count <= 0:
                break
            tally = self.run.tally()
            frame = part(tally)
            self.run.merge(tally)
            seen += frame.height
            found.append(frame.head(count))
            count -= found[-1].height
        return _together(found, stage.output), seen


# ---- parts that count


def _fused(part: Part, steps: Sequence[p.Node]) -> Part:
    return (lambda tally: run_steps(part(tally), steps, tally)) if steps else part


def _scanned(node: p.Scan, part: Callable[[Counts], tuple[Frame, int, int]]) -> Part:
    def run(tally: Tally) -> Frame:
        with tally.at(node) as counts:
            frame, owned, fetched = part(counts)
        tally.read(owned, fetched, node.source.store.way)
        return frame

    return run


def _given(node: p.Node, frame: Frame) -> Part:
    def run(tally: Tally) -> Frame:
        _passed(node, tally.of(node), frame.height, frame.height)
        return frame

    return run


def _counted(node: p.Node, rows_in: int | None, make: Callable[[], Frame]) -> Part:
    """`rows_in` None: as many as come out."""

    def run(tally: Tally) -> Frame:
        with tally.at(node) as counts:
            frame = make()
        _passed(node, counts, frame.height if rows_in is None else rows_in, frame.height)
        return frame

    return run


def _partial(node: p.Node, part: Part) -> Part:
    assert isinstance(node, p.Group)

    def run(tally: Tally) -> Frame:
        frame = part(tally)
        with tally.at(node) as counts:
            counts.rows_in += frame.height
            return wide.partial(frame, node)

    return run


_LOST = {p.Distinct: "duplicate", p.Limit: "beyond the limit"}


def _passed(node: p.Node, counts: Counts, rows_in: int, rows_out: int) -> None:
    if type(node) in _LOST:
        filtered(counts, rows_in, rows_out, _LOST[type(node)])
    else:
        counts.rows_in += rows_in
        counts.rows_out += rows_out


def _together(frames: list[Frame], output: Sequence[Ref]) -> Frame:
    if not frames:
        return pl.DataFrame(schema={ref.key: dtype(ref.dtype) for ref in output})
    return frames[0] if len(frames) == 1 else pl.concat(frames)
