"""Sees to it that nothing stays dirty for long: flushes what has aged, in the background, and what
a writer has too much of."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Protocol

from superfs.core.errors import FsError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from superfs.rpc.background import Background

LOOK_S = 0.25


class Aging(Protocol):
    @property
    def is_dirty(self) -> bool: ...
    def aged(self, now_s: float) -> bool: ...
    def flush_aged(self) -> Coroutine[Any, Any, None]: ...


class Writeback:
    def __init__(self, background: Background) -> None:
        self._background = background
        self._dirty: dict[int, Aging] = {}  # by id(); holds what nobody else may hold any more
        self._flushing: set[int] = set()
        self._armed = False

    def note(self, file: Aging) -> None:
        """`file` has become dirty."""
        self._dirty[id(file)] = file
        if not self._armed:
            self._armed = True
            self._background.call_later(LOOK_S, self._look)

    def hasten(self, file: Aging) -> None:
        """Flushes `file` beside whoever writes to it, unless that is being done."""
        if id(file) not in self._flushing:
            with contextlib.suppress(FsError):  # closed meanwhile
                self._flush(id(file), file)

    def _flush(self, key: int, file: Aging) -> None:
        self._flushing.add(key)
        done = self._background.spawn(file.flush_aged())
        if not done.on_done(lambda: self._flushing.discard(key)):
            self._flushing.discard(key)

    def _look(self) -> None:
        """In the background thread."""
        self._armed = False
        now_s = time.monotonic()
        for key, file in list(self._dirty.items()):
            if not file.is_dirty:
                # Noted again by the write that makes it dirty again: that one comes after this.
                del self._dirty[key]
                if file.is_dirty:
                    self._dirty[key] = file
            elif file.aged(now_s) and key not in self._flushing:
                self._flush(key, file)
        if self._dirty and not self._armed:
            self._armed = True
            with contextlib.suppress(FsError):  # closed meanwhile
                self._background.call_later(LOOK_S, self._look)
