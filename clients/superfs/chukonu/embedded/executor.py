"""The embedded executor: threads of this process, on which jobs run their stages (job.py)."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from superfs.chukonu.embedded.job import Job
from superfs.chukonu.plan.pruning import prune

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from superfs.chukonu.counters import Run
    from superfs.chukonu.plan.logical import Node

Frame = Any


class Executor:
    def __init__(self, threads: int, budget_bytes: int, folder: str | None = None) -> None:
        """`budget_bytes`: what one side of a wide node may have in memory before it goes to files
        in `folder`."""
        self.threads = max(1, threads)
        self.budget_bytes = budget_bytes
        self.folder = folder
        self.last_run: Run | None = None
        """Of the job that was begun last, while it runs and after."""
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="chukonu")

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def job(self, plan: Node) -> Job:
        found = Job(self, prune(plan))
        self.last_run = found.run
        return found

    def frames(self, plan: Node) -> Iterator[Frame]:
        """In the order of partitions."""
        job = self.job(plan)
        yield from job.results(job.partitions())

    def frame(self, plan: Node) -> Frame:
        return self.job(plan).frame()

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
