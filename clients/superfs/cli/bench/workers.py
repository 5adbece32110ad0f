"""The processes that do the work, and the barrier that starts them together.

Real processes, each with one pipe: the parent names an act, everybody says "ready", all get one
moment to start at, and each reports when it began, when it ended, and its CPU time. A phase took
from the first begin to the last end.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from superfs.cli.bench import shuffled, smallfiles, transfers
from superfs.cli.bench.smallfiles import Part, WrongBytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from superfs.cli.bench.shapes import Job

ACTS: dict[str, Callable[[Part], int]] = {**smallfiles.ACTS, **transfers.ACTS, **shuffled.ACTS}
START_IN_S = 0.02
END_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    ops: int
    seconds: float
    cpu_s: float
    """Of the workers themselves, the kernel's work for them included."""

    @property
    def rate(self) -> float:
        return self.ops / self.seconds


@dataclass(frozen=True, slots=True)
class _Report:
    ops: int
    began: float
    ended: float
    cpu_s: float


class WorkerFailed(Exception):
    """Says what went wrong, and in which process."""


class Workers:
    def __init__(self, job: Job) -> None:
        self.job = job
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[SpawnProcess] = []
        for rank in range(job.procs):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_work, args=(theirs, job, rank), name=f"bench {rank}", daemon=True
            )
            self._pipes.append(ours)
            self._processes.append(process)
            process.start()
            theirs.close()

    def do(self, act: str) -> Outcome:
        for pipe in self._pipes:
            pipe.send(act)
        self._answers()
        start = time.monotonic() + START_IN_S
        for pipe in self._pipes:
            pipe.send(start)
        reports = [answer for answer in self._answers() if isinstance(answer, _Report)]
        seconds = max(r.ended for r in reports) - min(r.began for r in reports)
        cpu_s = sum(r.cpu_s for r in reports)
        return Outcome(sum(r.ops for r in reports), max(seconds, 1e-9), cpu_s)

    def _answers(self) -> list[object]:
        answers: list[object] = []
        for rank, pipe in enumerate(self._pipes):
            try:
                answer = pipe.recv()
            except EOFError:
                raise WorkerFailed(f"process {rank} has ended before its work was done") from None
            if isinstance(answer, Exception):
                raise answer
            answers.append(answer)
        return answers

    def close(self) -> None:
        """Also in the middle of an act: then they are ended."""
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process in self._processes:
            process.join(END_TIMEOUT_S)
            if process.is_alive():
                process.kill()
                process.join()
        for pipe in self._pipes:
            pipe.close()


def _work(pipe: Connection, job: Job, rank: int) -> None:
    # Ctrl-C goes to the whole group: the parent decides, and cleans up afterwards.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    part = Part.of(job, rank)
    while True:
        try:
            act = pipe.recv()
            if act is None:
                return
            pipe.send("ready")
            start = pipe.recv()
            if start is None:
                return
            pipe.send(_report(part, ACTS[act], start))
        except EOFError:
            return
        except (OSError, WrongBytes) as error:
            with contextlib.suppress(OSError):
                pipe.send(error)
        except Exception as error:
            pipe.send(WorkerFailed(f"process {rank}: {type(error).__name__}: {error}"))


def _report(part: Part, act: Callable[[Part], int], start: float) -> _Report:
    time.sleep(max(0.0, start - time.monotonic()))
    cpu = _cpu_s()
    began = time.monotonic()
    ops = act(part)
    return _Report(ops, began, time.monotonic(), _cpu_s() - cpu)


def _cpu_s() -> float:
    uses = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(use.ru_utime + use.ru_stime for use in uses)
