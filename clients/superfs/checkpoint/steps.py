"""The steps of a save and a load whose interruption matters, named for tests.

A test sets `hook` in the process that it wants to see fail there; otherwise a step is one call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

hook: Callable[[str], None] | None = None


def reached(name: str) -> None:
    if hook is not None:
        hook(name)
