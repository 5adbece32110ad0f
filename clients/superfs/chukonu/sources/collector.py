"""Python's collector of cycles, kept off while very many objects without cycles are made.

It looks at all objects of the process whenever there are a quarter more of them. While the entries
of a hundred thousand files are listed or read that is a third of all the work, for nothing. Objects
in cycles wait meanwhile, so it is given a turn now and then if threads never let go together.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TURN_EVERY = 256
"""Times that somebody let go while others held on."""
_lock = threading.Lock()
_inside = _overlaps = 0
_was_on = False


@contextlib.contextmanager
def collector_off() -> Iterator[None]:
    """In this process, whoever else is in it; it is as it was when the last one leaves."""
    global _inside, _was_on
    with _lock:
        if _inside == 0:
            _was_on = gc.isenabled()
            gc.disable()
        _inside += 1
    try:
        yield
    finally:
        if _let_go():
            gc.collect()


def _let_go() -> bool:
    """Whether it is time for a turn."""
    global _inside, _overlaps
    with _lock:
        _inside = max(0, _inside - 1)
        if _inside == 0:
            _overlaps = 0
            if _was_on:
                gc.enable()
            return False
        _overlaps += 1
        return _was_on and _overlaps % TURN_EVERY == 0


def _after_fork_in_child() -> None:
    """The threads that kept it off are not here; this one, if it did, may let go once more."""
    global _lock, _inside
    _lock = threading.Lock()
    if _inside and _was_on:
        gc.enable()
    _inside = 0


os.register_at_fork(after_in_child=_after_fork_in_child)
