"""Leases, as far as the connection is concerned: who is told of them, and how long they are good.

Whoever repeats answers without asking (the mount) is the `LeaseHolder` of its connection, given to
`Connection.open`. A connection without one never asks for leases. The rules are in
docs/decisions/0012-shared-leases.md.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from superfs.core.errors import FsError
    from superfs.v1 import meta_pb2


class LeaseHolder(Protocol):
    """Called in the reader threads of streams."""

    def extended(self, until: float) -> None:
        """Every lease that is held is good until then, by `lease_clock`."""

    def recalled(self, message: meta_pb2.Invalidate, acknowledge: Callable[[], None]) -> None:
        """`acknowledge`, from any thread, once nothing of it is repeated any more. Does not
        block."""

    def lost(self, inos: Collection[int], error: FsError, heard: Callable[[], None]) -> None:
        """What was done here to these inodes under exclusive leases is not so, and never will be:
        whoever has one open, or syncs it next, is told, once. `heard`, from any thread, when nobody
        is told otherwise any more. Does not block."""

    def lapsed(self) -> None:
        """The connection broke: what was pushed meanwhile is lost, so all leases are. Returns when
        nothing is repeated any more; the daemon hears of us again only then."""


def lease_clock() -> float:
    """Seconds, monotonic, and going on while the machine sleeps: a lease ends meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
