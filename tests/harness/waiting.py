"""Waiting for a condition with a deadline. Tests never sleep for timing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T],
    what: str | Callable[[], str],
    *,
    timeout_s: float = 20.0,
    pause_s: float = 0.02,
) -> T:
    """Asks `condition` again and again until it answers something true, and returns that."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            said = what if isinstance(what, str) else what()
            raise AssertionError(f"after {timeout_s:g} s still not: {said}")
        time.sleep(pause_s)
