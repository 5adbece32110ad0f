"""A job: one plan, run once by the embedded executor, and counted.

Only as many parts are at work as there are threads. A wide node brings its inputs together, through
an exchange, before its own parts begin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xxhash

from superfs.chukonu.counters import Run, Tally
from superfs.chukonu.embedded import keyed
from superfs.chukonu.embedded.exchange import Exchange
from superfs.chukonu.embedded.joining import joined
from superfs.chukonu.embedded.parts import Part, empty, fused, given, made, passed
from superfs.chukonu.native import pl
from superfs.chukonu.plan import logical as p
from superfs.chukonu.plan.explain import operators
from superfs.chukonu.plan.stages import Stage, cut
from superfs.chukonu.sources.ways import Ways

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from superfs.chukonu.embedded.dividing import Division
    from superfs.chukonu.embedded.executor import Executor

Frame = Any


class Job:
    """`plan` is pruned: its nodes are copies, so each place in it has counts of its own."""

    def __init__(self, executor: Executor, plan: p.Node) -> None:
        self._executor = executor
        self.budget = executor.budget
        self.threads = executor.threads
        self.output = plan.output
        self._stages = cut(plan)
        scans = [node for node, _ in operators(self._stages) if isinstance(node, p.Scan)]
        size = sum(split.bytes for scan in scans for split in scan.source.splits)
        self.run = Run(operators(self._stages), size, cpu=executor.cpu_seconds)
        self._ways = Ways(scan.source.store for scan in scans)

    def parts(self) -> list[Part]:
        """Of the last stage; all before it have run when this returns."""
        found = self.stage(self._stages)
        self.run.tasks_total = len(found)
        return found

    def frames(self) -> Iterator[Frame]:
        yield from self.stream(self.parts(), last=True)
        self.end()

    def results(self, tasks: Iterable[Callable[[Tally], Any]]) -> Iterator[Any]:
        """Of tasks that take what the parts give, in order."""

        def single(task: Callable[[Tally], Any]) -> Callable[[Tally], Iterator[Any]]:
            def run(tally: Tally) -> Iterator[Any]:
                yield task(tally)

            return run

        yield from self.stream((Part("", single(task)) for task in tasks), last=True)
        self.end()

    def end(self) -> None:
        self.run.end(self._ways.split)

    def stream(self, parts: Iterable[Part], *, last: bool = False) -> Iterator[Any]:
        """What they give, in order. What a part has counted is the run's when it is done."""

        def counted(part: Part) -> Callable[[], Iterator[Any]]:
            def run() -> Iterator[Any]:
                tally = self.run.tally()
                yield from part.run(tally)
                self.run.merge(tally, last=last)

            return run

        yield from self._executor.stream(counted(part) for part in parts)

    # ---- stages

    def stage(self, stage: Stage) -> list[Part]:
        return [fused(part, stage.steps) for part in self._root(stage)]

    def exchange(self, blank: Frame, begin: Callable[[list[Frame]], Division]) -> Exchange:
        return Exchange(self.budget, self._executor.folder, blank, begin)

    def brought(
        self,
        stage: Stage,
        begin: Callable[[list[Frame]], Division],
        parts: list[Part] | None = None,
    ) -> Exchange:
        """All rows of a stage."""
        found = self.exchange(empty(stage.output), begin)
        for frame in self.stream(self.stage(stage) if parts is None else parts):
            found.add(frame)
        return found

    def _root(self, stage: Stage) -> list[Part]:
        node = stage.root
        match node:
            case p.Scan():
                size = self.budget.frame_bytes
                return [_scanned(node, split, size) for split in node.source.planned()]
            case p.Local(frame):
                return [given(node, frame)]
            case p.Union():
                return [
                    part for place in range(len(stage.inputs)) for part in _side(self, stage, place)
                ]
            case p.Limit(_, count):
                return [self._limited(stage, count)]
            case p.Join():
                return joined(self, stage, node)
            case p.Group():
                return keyed.grouped(self, stage, node)
            case p.Distinct():
                return keyed.distinct(self, stage, node)
            case p.Windowed():
                return keyed.windowed(self, stage, node)
            case p.Sort():
                return keyed.sorted_(self, stage, node)
            case p.Repartition():
                return keyed.repartitioned(self, stage, node)
        raise AssertionError(node)

    def _limited(self, stage: Stage, count: int) -> Part:
        """Partitions beyond the last needed row are not run."""
        node = stage.root
        inner = self.stage(stage.inputs[0])

        def first() -> Iterator[tuple[int, Frame]]:
            left = count
            for part in inner:
                if left <= 0:
                    return
                tally = self.run.tally()
                for frame in part.run(tally):
                    yield frame.height, frame.head(left)
                    left = max(0, left - frame.height)
                    if not left:
                        break
                self.run.merge(tally)

        name = xxhash.xxh3_64_hexdigest("\0".join(part.name for part in inner).encode())
        return made(f"first {count} of {name}", node, first)


def _scanned(node: p.Scan, split: Any, frame_bytes: int) -> Part:  # noqa: ANN401
    def run(tally: Tally) -> Iterator[Frame]:
        source = node.source

        def read(owned: int, fetched: int) -> None:
            tally.read(owned, fetched, source.store.way)

        frames = source.frames(split, node.columns, tally.of(node), read, frame_bytes)
        while True:
            with tally.at(node):
                frame = next(frames, None)
            if frame is None:
                return
            yield frame

    return Part(split.identity(node.source.format), run)


def _side(job: Job, stage: Stage, place: int) -> Iterator[Part]:
    node, side = stage.root, stage.inputs[place]
    assert isinstance(node, p.Union)
    pairs = zip(side.output, node.columns, strict=True)
    names = [pl.col(old.key).alias(new.key) for old, new in pairs]

    def renamed(part: Part) -> Part:
        def run(tally: Tally) -> Iterator[Frame]:
            for frame in part.run(tally):
                passed(node, tally.of(node), frame.height, frame.height)
                yield frame.select(names)

        return Part(f"{place}:{part.name}", run)

    for part in job.stage(side):
        yield renamed(part)
