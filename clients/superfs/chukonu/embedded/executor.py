"""The embedded executor: stages of a plan on threads of this process.

A partition is a function that gives a frame. A narrow segment wraps the function, so that a
partition is read, transformed and handed on in one go, and only as many of them are in memory as
there are threads. A wide node brings its inputs together.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from superfs.chukonu.catalog.dtypes import dtype
from superfs.chukonu.embedded import wide
from superfs.chukonu.embedded.spill import FILES, Spill, gathered, spilled
from superfs.chukonu.embedded.steps import run_steps
from superfs.chukonu.expressions import Ref
from superfs.chukonu.native import pl
from superfs.chukonu.plan import logical as p
from superfs.chukonu.plan.pruning import prune
from superfs.chukonu.plan.stages import Stage, cut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


Frame = Any


class Executor:
    def __init__(self, threads: int, budget_bytes: int, folder: str | None = None) -> None:
        """`budget_bytes`: what one side of a wide node may have in memory before it goes to files
        in `folder`."""
        self.threads = max(1, threads)
        self.budget_bytes = budget_bytes
        self._folder = folder
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="chukonu")

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def frames(self, plan: p.Node) -> Iterator[Frame]:
        """In the order of partitions."""
        yield from self.run(self.partitions(prune(plan)))

    def frame(self, plan: p.Node) -> Frame:
        return self._whole(cut(prune(plan)))

    def partitions(self, plan: p.Node) -> list[Callable[[], Frame]]:
        return self._stage(cut(plan))

    def _stage(self, stage: Stage) -> list[Callable[[], Frame]]:
        return [_fused(part, stage.steps) for part in self._root(stage)]

    def run(self, partitions: Iterable[Callable[[], Any]]) -> Iterator[Any]:
        """Results in order, of as many at once as there are threads."""
        waiting: deque[Any] = deque()
        try:
            for part in partitions:
                waiting.append(self._pool.submit(part))
                if len(waiting) > self.threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _whole(self, stage: Stage) -> Frame:
        """All rows of a stage in one frame."""
        return _together(list(self.run(self._stage(stage))), stage.output)

    def _root(self, stage: Stage) -> list[Callable[[], Frame]]:
        node = stage.root
        match node:
            case p.Scan(source, _, columns):
                return list(source.partitions(columns))
            case p.Local(frame):
                return [lambda: frame]
            case p.Union():
                return [part for side in self._sides(stage) for part in side]
            case p.Limit(_, count):
                limited = self._limited(stage.inputs[0], count)
                return [lambda: limited]
            case p.Join():
                return self._joined(stage, node)
            case p.Group() if wide.decomposable(node):
                keys = [ref for ref, _ in node.keys]
                return self._keyed(
                    stage, keys, lambda f: wide.merged(f, node), lambda f: wide.partial(f, node)
                )
            case p.Group() | p.Distinct() | p.Windowed():
                return self._keyed(stage, wide.keys_of(node), lambda f: wide.run(f, node))
        whole = self._whole(stage.inputs[0])
        if isinstance(node, p.Repartition):
            return wide.repartition(whole, node)
        return [lambda: wide.run(whole, node)]

    def _gather(self, frames: Iterable[Frame], keys: Sequence[Ref]) -> list[Frame] | Spill:
        return gathered(frames, keys, self.budget_bytes, self._folder)

    def _keyed(
        self,
        stage: Stage,
        keys: Sequence[Ref],
        finish: Callable[[Frame], Frame],
        first: Callable[[Frame], Frame] | None = None,
    ) -> list[Callable[[], Frame]]:
        """`finish` over all rows, or over the rows of one file of keys after the other; `first` is
        applied to each partition before."""
        below = stage.inputs[0]
        parts = self._stage(below) or [lambda: _together([], below.output)]
        frames = self.run([_then(part, [first]) if first else part for part in parts])
        found = self._gather(frames, keys)
        if isinstance(found, list):
            whole = pl.concat(found)
            return [lambda: finish(whole)]
        return [lambda n=n: finish(found.part(n)) for n in range(FILES)]  # type: ignore[misc]

    def _joined(self, stage: Stage, node: p.Join) -> list[Callable[[], Frame]]:
        sides: list[Any] = []
        keys = [
            [k for k in side if isinstance(k, Ref)] for side in (node.left_keys, node.right_keys)
        ]
        for inner, key in zip(stage.inputs, keys, strict=True):
            sides.append(self._gather(self.run(self._stage(inner)), key))
        if all(isinstance(side, list) for side in sides):
            left, right = (
                _together(side, inner.output)
                for side, inner in zip(sides, stage.inputs, strict=True)
            )
            return [lambda: wide.join(left, right, node)]
        for place, side in enumerate(sides):
            if isinstance(side, list):
                frames = side or [_together([], stage.inputs[place].output)]
                sides[place] = spilled(frames, keys[place], self._folder).finish()
        one, other = sides
        return [
            lambda n=n: wide.join(one.part(n), other.part(n), node)  # type: ignore[misc]
            for n in range(FILES)
        ]

    def _sides(self, stage: Stage) -> Iterator[list[Callable[[], Frame]]]:
        assert isinstance(stage.root, p.Union)
        for side in stage.inputs:
            names = {
                old.key: new.key for old, new in zip(side.output, stage.root.columns, strict=True)
            }

            def rename(frame: Frame, names: dict[str, str] = names) -> Frame:
                return frame.select([pl.col(old).alias(new) for old, new in names.items()])

            yield [_then(part, [rename]) for part in self._stage(side)]

    def _limited(self, stage: Stage, count: int) -> Frame:
        """Partitions beyond the last needed row are not run, but for those already started."""
        found: list[Frame] = []
        for part in self._stage(stage):
            if count <= 0:
                break
            found.append(part().head(count))
            count -= found[-1].height
        return _together(found, stage.output)


def _fused(part: Callable[[], Frame], steps: Sequence[p.Node]) -> Callable[[], Frame]:
    return (lambda: run_steps(part(), steps)) if steps else part


def _then(
    part: Callable[[], Frame], more: Sequence[Callable[[Frame], Frame]]
) -> Callable[[], Frame]:
    def run() -> Frame:
        frame = part()
        for change in more:
            frame = change(frame)
        return frame

    return run if more else part


def _together(frames: list[Frame], output: Sequence[Ref]) -> Frame:
    if not frames:
        return pl.DataFrame(schema={ref.key: dtype(ref.dtype) for ref in output})
    return frames[0] if len(frames) == 1 else pl.concat(frames)
