"""A small read of a place on this host that its disk has been told to bring.

For whoever must not wait and has other things to do: `look` says from time to time whether the
bytes are in the page cache by now. A fast disk takes less time for them than threads need to hand a
read over to each other and back.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from superfs.client.checksums import matches
from superfs.core.extents import CRC_BYTES
from superfs.core.limits import BLOCK_BYTES, KIB

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.client.local import Descriptor
    from superfs.core.extents import Extent

SOUGHT_BYTES_MAX = 64 * KIB


class Sought:
    """[start, end) of the chunk, inside one extent. `came`: told how many bytes, when they did."""

    __slots__ = ("_came", "_crcs", "_descriptor", "_length", "_memory", "_place", "_skip")

    def __init__(
        self,
        extent: Extent,
        descriptor: Descriptor,
        start: int,
        end: int,
        came: Callable[[int], None],
    ) -> None:
        first = extent.skip + start - extent.offset
        block, blocks = first // BLOCK_BYTES, -(-(first + end - start) // BLOCK_BYTES)
        base = block * BLOCK_BYTES
        self._place = extent.place + base
        self._skip, self._length = first - base, end - start
        self._memory = bytearray(min(blocks * BLOCK_BYTES, extent.blocks_bytes) - base)
        self._crcs = extent.crcs[block * CRC_BYTES : blocks * CRC_BYTES]
        self._descriptor = descriptor
        self._came = came

    def seek(self) -> None:
        """Without waiting for it."""
        with suppress(OSError):
            os.posix_fadvise(
                self._descriptor.fd, self._place, len(self._memory), os.POSIX_FADV_WILLNEED
            )

    def look(self) -> bytes | None:
        """None: not yet, or they are not what they should be. Whoever gives up reads them in
        another way, which tells."""
        memory = memoryview(self._memory)
        try:
            if os.preadv(self._descriptor.fd, [memory], self._place, os.RWF_NOWAIT) != len(memory):
                return None
        except OSError:
            return None
        if not matches(memory, self._crcs):
            return None
        self._came(self._length)
        return bytes(memory[self._skip : self._skip + self._length])
