"""Threads that wait for disks, for whoever must not: started with the first task."""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("superfs.client")

THREADS = 4


class Readers:
    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def put(self, task: Callable[[], None]) -> None:
        """It must not raise. After `close` it is carried out here and now."""
        if len(self._threads) < THREADS and not self._closed:
            self._start()
        if self._closed:
            task()
        else:
            self._tasks.put(task)

    def _start(self) -> None:
        with self._lock:
            if len(self._threads) < THREADS and not self._closed:
                name = f"superfs reader {len(self._threads)}"
                thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def close(self) -> None:
        """Ends when what was put before is done."""
        with self._lock:
            self._closed = True
            threads = self._threads
        for _ in threads:
            self._tasks.put(None)
        for thread in threads:
            thread.join()
        while not self._tasks.empty():
            task = self._tasks.get()
            if task is not None:
                task()

    def _run(self) -> None:
        while True:
            task = self._tasks.get()
            if task is None:
                return
            try:
                task()
            except Exception:
                log.exception("a reader failed")
