"""The progress bar of a copy of a tree, on standard error and only where a person looks at it."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from superfs.client.progress import Progress


@contextlib.contextmanager
def bar(
    title: str, *, quiet: bool, count: str | None = None
) -> Iterator[Callable[[Progress], None]]:
    """Yields what to call with each Progress. `count`: a local tree whose files are counted in the
    background, so that the bar knows how far it has to go."""
    if quiet or not sys.stderr.isatty():
        yield _ignore
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    stopped = threading.Event()
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed} files"),
        TextColumn("{task.fields[mib]:.1f} MiB"),
        TextColumn("[red]{task.fields[errors]}[/]"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    ) as screen:
        task = screen.add_task(title, total=None, mib=0.0, errors="")
        counter = None
        if count is not None:
            counter = threading.Thread(
                target=_count,
                args=(count, stopped, lambda total: screen.update(task, total=total)),
                daemon=True,
            )
            counter.start()

        def advance(done: object) -> None:
            files, size = done.files, done.bytes_done  # type: ignore[attr-defined]
            failed = done.errors_total  # type: ignore[attr-defined]
            errors = f"{failed} errors" if failed else ""
            screen.update(task, completed=files, mib=size / 2**20, errors=errors)

        try:
            yield advance
        finally:
            stopped.set()
            if counter is not None:
                counter.join()


def _ignore(_done: Progress) -> None:
    pass


def _count(tree: str, stopped: threading.Event, tell: Callable[[int], None]) -> None:
    total = 0
    for _, _, files in os.walk(tree):
        total += len(files)
        if stopped.is_set():
            return
    tell(total)
