"""Large pages for the pool's memory: what clients and the daemon copy from and to it is copied
faster. Once for each slab, some at a time, behind everybody's back; a slab that has them already is
passed in no time. Where the kernel has none to give, small ones it is."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

from superfs.core.limits import MIB
from superfs.rpc.window import HUGE_BYTES

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from superfs.data.kvcache.slab import Slab

STEP_BYTES = 16 * MIB
"""Some ten milliseconds, during which clients may wait for these pages."""
_NEVER = (errno.EINVAL, errno.ENOSYS, errno.EPERM)


async def gather(slab: Slab, threads: Executor) -> int:
    """How many bytes of it are in large pages then."""
    try:
        window = slab.window()
    except OSError:
        return 0
    loop, found = asyncio.get_running_loop(), 0
    running: asyncio.Future[None] | None = None
    try:
        for at in range(0, window.size, STEP_BYTES):
            size = min(STEP_BYTES, window.size - at) // HUGE_BYTES * HUGE_BYTES
            running = loop.run_in_executor(threads, window.gather, at, size)
            try:
                await asyncio.shield(running)
            except OSError as error:
                if error.errno in _NEVER:
                    break
            else:
                found += size
    finally:
        if running is not None:  # it goes on when this is cancelled
            await asyncio.wait([running])
        window.close()
    return found
