"""The embedded executor: threads of this process, on which jobs run their stages (job.py)."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from superfs.chukonu.embedded.budget import Budget
from superfs.chukonu.embedded.job import Job
from superfs.chukonu.embedded.parts import together
from superfs.chukonu.embedded.processes import Processes
from superfs.chukonu.plan.pruning import prune

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from superfs.chukonu.counters import Run
    from superfs.chukonu.plan.logical import Node
    from superfs.chukonu.sinks.commit import Output

Frame = Any
AHEAD = 2
"""Results of one task that wait to be taken."""


class Executor:
    def __init__(
        self,
        threads: int,
        budget_bytes: int,
        folder: str | None = None,
        processes: int | None = None,
    ) -> None:
        """`budget_bytes`: of memory; what does not fit goes to files in `folder`. `processes`: of
        Python functions, that are there before they are called; as many as threads if not said, and
        with 0 these run here."""
        self.threads = max(1, threads)
        self._processes = Processes(self.threads if processes is None else processes)
        self.budget = Budget(budget_bytes, self.threads)
        self.folder = folder
        self.last_run: Run | None = None
        """Of the job that was begun last, while it runs and after."""

    def close(self) -> None:
        """Nothing runs but while somebody takes results, and processes that wait for work."""
        self._processes.close()

    def cpu_seconds(self) -> float:
        """Of this process, and of those of its functions."""
        return time.process_time() + self._processes.cpu_seconds

    def job(self, plan: Node) -> Job:
        found = Job(self, self._processes.shipped(prune(plan)))
        self.last_run = found.run
        return found

    def frames(self, plan: Node) -> Iterator[Frame]:
        """In the order of partitions."""
        job = self.job(plan)
        yield from job.frames()

    def frame(self, plan: Node) -> Frame:
        job = self.job(plan)
        return together(list(job.frames()), job.output)

    def write(self, output: Output) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """(the records of its parts, statistics)."""
        job = self.job(output.plan)
        parts = job.parts()
        output.begin(parts)
        tasks = [output.task(number, part) for number, part in enumerate(parts)]
        return list(job.results(tasks)), job.run.statistics()

    def stream(self, tasks: Iterable[Callable[[], Iterator[Any]]]) -> Iterator[Any]:
        """What the tasks give, in order. As many run at once as there are threads; those whose turn
        has not come wait when they are a few results ahead."""
        todo: queue.SimpleQueue[_Feed | None] = queue.SimpleQueue()
        begun: list[threading.Thread] = []
        feeds: deque[_Feed] = deque()
        try:
            for task in tasks:
                feeds.append(_Feed(task))
                todo.put(feeds[-1])
                if len(begun) < self.threads:
                    begun.append(threading.Thread(target=_work, args=(todo,), daemon=True))
                    begun[-1].start()
                if len(feeds) > self.threads:
                    yield from feeds[0].results()
                    feeds.popleft()
            while feeds:
                yield from feeds[0].results()
                feeds.popleft()
        finally:
            for feed in feeds:
                feed.close()
            for _ in begun:
                todo.put(None)
            for thread in begun:
                if not sys.is_finalizing():  # then nobody runs any more
                    thread.join()


def _work(todo: queue.SimpleQueue[_Feed | None]) -> None:
    while (feed := todo.get()) is not None:
        feed.run()
        del feed


class _Feed:
    """What one task gives, from its thread to the one that takes it."""

    def __init__(self, task: Callable[[], Iterator[Any]]) -> None:
        self._task: Callable[[], Iterator[Any]] | None = task
        self._ready: deque[Any] = deque()
        self._done = self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def run(self) -> None:
        task, self._task = self._task, None
        try:
            for found in () if self._closed or task is None else task():
                with self._changed:
                    self._ready.append(found)
                    self._changed.notify_all()
                    del found
                    self._changed.wait_for(lambda: len(self._ready) < AHEAD or self._closed)
                    if self._closed:
                        break
        except BaseException as error:
            with self._changed:
                self._error = None if self._closed else error
        del task  # what it holds, files perhaps, goes before anybody sees that it is done
        with self._changed:
            self._done = True
            self._changed.notify_all()

    def results(self) -> Iterator[Any]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._done)
                if not self._ready:
                    break
                found = self._ready.popleft()
                self._changed.notify_all()
            yield found
            del found
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # its trace has this frame: together they would keep files for long

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._error = None
            self._ready.clear()
            self._changed.notify_all()
