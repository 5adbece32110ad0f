"""One job on one directory, phase by phase: the directories it needs, its workers, and taking away
again what it made.

    with Run(job) as run:
        for phase in run.phases():
            outcome = run.do(phase)
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

from superfs.cli.bench import caches
from superfs.cli.bench.shapes import DROP, DROP_IF
from superfs.cli.bench.workers import Workers
from superfs.cli.output import EXIT_USAGE, CliError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from superfs.cli.bench.shapes import Job, Phase
    from superfs.cli.bench.workers import Outcome


class Run:
    def __init__(self, job: Job, *, cold: bool = True) -> None:
        """`cold`: the caches may be dropped, where that is possible at all."""
        self.job = job
        self._drops = cold and not caches.why_not()
        self._made: set[str] = set()
        job.top.mkdir()
        try:
            for name in _directories(job):
                (job.top / name).mkdir()
            self._workers = Workers(job)
        except BaseException:
            self._clean()
            raise

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_error: object) -> None:
        try:
            self._workers.close()
        finally:
            self._clean()

    def phases(self) -> list[Phase]:
        return [p for p in self.job.shape.phases if self._drops or not p.needs_drop]

    def do(
        self,
        phase: Phase,
        watching: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> Outcome:
        """`watching` is entered around the timed part only."""
        for step in phase.before:
            if step not in (DROP, DROP_IF):
                self._prepare(step)
            elif self._drops:
                caches.drop()
        with watching():
            return self._workers.do(phase.act)

    def _prepare(self, act: str) -> None:
        """What makes files is done once."""
        if act in ("seq-write", "dataset"):
            if act in self._made:
                return
            self._made.add(act)
        self._workers.do(act)

    def _clean(self) -> None:
        shutil.rmtree(self.job.top)


def _directories(job: Job) -> list[str]:
    if job.shape.shared:
        return ["all"]
    return [f"p{rank}" for rank in range(job.procs)]


@contextlib.contextmanager
def target(directory: Path) -> Iterator[Path]:
    """The empty directory to work in; made, and removed again, where there is none."""
    made = not directory.exists()
    if made:
        try:
            directory.mkdir()
        except FileNotFoundError:
            raise CliError(
                f"{directory.parent} does not exist", hint="make it first", status=EXIT_USAGE
            ) from None
    elif not directory.is_dir():
        raise CliError(f"{directory} is not a directory", status=EXIT_USAGE)
    elif os.listdir(directory):
        raise CliError(
            f"{directory} is not empty",
            hint="name an empty directory, or one that does not exist yet",
            status=EXIT_USAGE,
        )
    try:
        yield directory
    finally:
        if made:
            with contextlib.suppress(OSError):
                directory.rmdir()
