"""Segments that a data daemon on this host lends: large writes go straight to where they stay.

Bytes are written there by whoever writes, in as many threads and processes as there are; what goes
to the daemon is where they lie and the checksums of their blocks (`PlacedPayload`). The checksums
are of what can be read back, as everywhere: whoever changes his buffer meanwhile has stored some
mixture, and not damage. Of bytes that are still (`Placing`) it is enough to see that they were.

Each range is used once, whatever becomes of it: a daemon that does not know the segment any more is
sent the bytes, read back from here. So what was not placed must stay readable, and a segment is
given back when every range that was written is placed or forgotten.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crc32c import crc32c

from superfs.client.checksums import matches
from superfs.core.errors import Code, FsError
from superfs.core.extents import CRC_BYTES
from superfs.core.limits import BLOCK_BYTES, KIB, MIB, PAGE_BYTES
from superfs.core.pagecache import DropBehind

if TYPE_CHECKING:
    from collections.abc import Callable

    from superfs.client.wire import Reply
    from superfs.rpc.pending import Pending

STEP_BYTES = 256 * KIB
"""What is written, and read back while the processor still has it."""
STILL_BYTES = 1 * MIB
"""The same, of what is not read back: it is summed before and after."""
BORROW_AT_BYTES = 4 * MIB
"""Who has written so much in a row, of large writes, will write more."""
AHEAD_BYTES = 64 * MIB
"""The next segment is asked for when no more is left of this one."""
ARRIVES_S = 0.1
"""So long it is waited for: the other way would take longer."""
IDLE_S = 3.0
REFUSED_S, REFUSED_S_MAX = 0.05, 5.0
"""Until it is asked again, twice as long each time."""
COMMIT_BYTES = 32 * MIB
"""What is placed begins to be synced after so much of it."""
UNCOMMITTED_MAX = 1024 * MIB
"""What may be placed while a sync is under way: then a writer is faster than the disk, and goes the
way on which he waits for it."""

assert STEP_BYTES % BLOCK_BYTES == STILL_BYTES % BLOCK_BYTES == 0

_scratch = threading.local()


@dataclass(frozen=True, slots=True)
class Placing:
    """How somebody writes who may wait for a disk of this host. `still`: nobody means to change
    his bytes before the write returns, so that it is enough to sum them before and after; where
    that differs they are read back. Bytes that change and change back meanwhile may be stored as
    damage. `drop_behind`: it need not stay in the page cache."""

    still: bool = False
    drop_behind: bool = False


PLAIN = Placing()


class LentSegment:
    """Until nobody refers to it any more, its bytes can be read, whatever the daemon does."""

    def __init__(self, number: int, size: int, descriptor: int, link: object) -> None:
        self.number = number
        self.link = link
        self._size = size
        self._fd = descriptor
        self._end = PAGE_BYTES
        self._open: deque[int] = deque()  # one for each range that is not placed yet

    def __del__(self) -> None:
        os.close(self._fd)

    @property
    def left(self) -> int:
        return self._size - self._end

    @property
    def is_settled(self) -> bool:
        return not self._open

    def take(self, length: int) -> int | None:
        """A place of which nobody else knows; None: too little is left. One at a time."""
        place = self._end + PAGE_BYTES
        if place + length > self._size:
            return None
        self._end = (place + length + PAGE_BYTES - 1) & -PAGE_BYTES
        self._open.append(place)
        return place

    def settle(self) -> None:
        """May be called by a finalizer, whatever lock is held here."""
        self._open.pop()

    def write(self, data: memoryview, place: int, drop_behind: DropBehind, *, still: bool) -> bytes:
        """The checksums of its blocks. OSError."""
        sums = bytearray()
        step = STILL_BYTES if still else STEP_BYTES
        for start in range(0, len(data), step):
            part = data[start : start + step]
            found = _sums(part) if still else b""
            self._pwrite(part, place + start, drop_behind)
            if not still or not matches(part, found):
                found = self._stored_sums(place + start, len(part))
            sums += found
        return bytes(sums)

    def _stored_sums(self, place: int, length: int) -> bytes:
        sums = b""
        for start in range(0, length, STEP_BYTES):
            stored = _buffer()[: min(STEP_BYTES, length - start)]
            if os.preadv(self._fd, [stored], place + start) != len(stored):
                raise OSError("what was just written cannot be read")
            sums += _sums(stored)
        return sums

    def _pwrite(self, data: memoryview, place: int, drop_behind: DropBehind) -> None:
        done = 0
        while done < len(data):
            flags = drop_behind.flags(len(data) - done)
            try:
                done += os.pwritev(self._fd, [data[done:]], place + done, flags)
            except OSError as error:
                if not flags or not drop_behind.refused(error):
                    raise

    def read(self, place: int, length: int) -> bytes:
        try:
            data = os.pread(self._fd, length, place)
        except OSError as error:
            raise FsError(Code.IO, f"written bytes cannot be read back: {error}") from None
        if len(data) != length:
            raise FsError(Code.IO, "written bytes are not where they were written")
        return data


def _sums(data: memoryview) -> bytes:
    sums = [crc32c(data[at : at + BLOCK_BYTES]) for at in range(0, len(data), BLOCK_BYTES)]
    return struct.pack(f"<{len(sums)}I", *sums)


def _buffer() -> memoryview:
    found: memoryview | None = getattr(_scratch, "buffer", None)
    if found is None:
        found = _scratch.buffer = memoryview(bytearray(STEP_BYTES))
    return found


class Placed:
    """Bytes that lie in a lent segment. They are read only if they have to go another way."""

    __slots__ = ("_claimed", "_settled", "crcs", "length", "place", "segment")

    def __init__(self, segment: LentSegment, place: int, length: int, crcs: bytes) -> None:
        self.segment = segment
        self.place = place
        self.length = length
        self.crcs = crcs
        self._claimed = False
        self._settled = False

    def __len__(self) -> int:
        return self.length

    def __bytes__(self) -> bytes:
        return self._read(0, self.length)

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self.length)
        if stop <= start:
            return b""
        first = start // BLOCK_BYTES * BLOCK_BYTES
        end = min(self.length, -(-stop // BLOCK_BYTES) * BLOCK_BYTES)
        return self._read(first, end)[start - first : stop - first]

    def _read(self, start: int, end: int) -> bytes:
        """Whole blocks. They may come from a disk that has not taken them."""
        data = self.segment.read(self.place + start, end - start)
        low, high = start // BLOCK_BYTES, -(-end // BLOCK_BYTES)
        if not matches(data, self.crcs[CRC_BYTES * low : CRC_BYTES * high]):
            raise FsError(Code.IO, "written bytes cannot be read back: the disk has others there")
        return data

    def __del__(self) -> None:
        self._settle()

    def claim(self) -> bool:
        """Whether this is the first write of them: only that one may name the place."""
        claimed, self._claimed = self._claimed, True
        return not claimed

    def answered(self, pending: Pending[Reply]) -> None:
        """The write that named the place: where the answer says so, they count there. What has gone
        another way may be needed again, and has to be read here then."""
        if not pending.failed and not pending.result().code:
            self._settle()

    def _settle(self) -> None:
        if not self._settled:
            self._settled = True
            self.segment.settle()


class Borrowed:
    """What one data daemon has lent, over one connection to its local socket."""

    def __init__(
        self, ask: Callable[[], Pending[LentSegment]], give_back: Callable[[list[int]], None]
    ) -> None:
        self._ask = ask
        self._give_back = give_back
        self._lock = threading.Lock()
        self._current: LentSegment | None = None
        self._next: Pending[LentSegment] | None = None
        self._late: Pending[LentSegment] | None = None  # that nobody waits for any more
        self._full: list[LentSegment] = []  # that are to be given back
        self._wanted = 0  # bytes of large writes in a row
        self._used_s = 0.0
        self._ask_at_s = float("inf")
        self._patience_s = REFUSED_S
        self._uncommitted = 0
        self._passing, self._staying = DropBehind(), DropBehind(wanted=False)

    def begin(self, lent_max: int) -> None:
        """The daemon says how many it lends."""
        if lent_max:
            self._ask_at_s = 0.0

    def write(self, data: memoryview, how: Placing = PLAIN) -> Placed | None:
        """None: there is nothing to write to just now."""
        with self._lock:
            self._wanted += len(data)
            self._used_s = time.monotonic()
            segment, place = self._take(len(data))
            coming = self._next if place is None and self._next is not self._late else None
        self.return_settled()
        if coming is not None and not coming.wait(ARRIVES_S):
            self._late = coming
        elif coming is not None:
            with self._lock:
                segment, place = self._take(len(data))
        if segment is None or place is None:
            return None
        try:
            drop_behind = self._passing if how.drop_behind else self._staying
            crcs = segment.write(data, place, drop_behind, still=how.still)
        except OSError:  # a disk that fails says so to the daemon, and the daemon to us
            segment.settle()
            return None
        except BaseException:
            segment.settle()
            raise
        return Placed(segment, place, len(data), crcs)

    def _take(self, length: int) -> tuple[LentSegment | None, int | None]:
        """With the lock held. The next segment is asked for while there is one."""
        segment = self._current
        place = None if segment is None else segment.take(length)
        if place is None:
            if segment is not None:
                self._full.append(segment)
            self._current = segment = self._arrived()
            place = None if segment is None else segment.take(length)
        soon = segment is None or segment.left < AHEAD_BYTES
        wanted = self._wanted >= BORROW_AT_BYTES and time.monotonic() >= self._ask_at_s
        if soon and wanted and self._next is None:
            self._next = self._ask()
        return segment, place

    def _arrived(self) -> LentSegment | None:
        if self._next is None or not self._next.done:
            return None
        pending, self._next = self._next, None
        try:
            found = pending.result()
        except FsError:
            self._ask_at_s = time.monotonic() + self._patience_s
            self._patience_s = min(2 * self._patience_s, REFUSED_S_MAX)
            return None
        self._patience_s = REFUSED_S
        return found

    def may_place(self, size: int, *, committing: bool) -> bool:
        return not committing or self._uncommitted + size <= UNCOMMITTED_MAX

    def note(self, size: int, *, committing: bool) -> bool:
        """Of what was placed; whether it is time to have it synced."""
        with self._lock:
            self._uncommitted += size
            if self._uncommitted < COMMIT_BYTES or committing:
                return False
            self._uncommitted = 0
            return True

    def return_settled(self) -> None:
        if not self._full:
            return
        with self._lock:
            settled = [segment.number for segment in self._full if segment.is_settled]
            self._full = [segment for segment in self._full if not segment.is_settled]
        if settled:
            self._give_back(settled)

    def leave(self) -> list[int]:
        """Before the connection is closed: those that go back, since all that was written there is
        placed."""
        with self._lock:
            self._ask_at_s = float("inf")
            held = [self._current, self._arrived(), *self._full]
            self._current, self._full = None, []
        return [segment.number for segment in held if segment is not None and segment.is_settled]

    def close(self) -> None:
        """The connection has ended. What was written and not placed holds its segment itself."""
        with self._lock:
            self._current, self._next, self._full = None, None, []
            self._ask_at_s = float("inf")

    def tick(self) -> None:
        """What nobody has used for a while goes back."""
        with self._lock:
            if time.monotonic() - self._used_s > IDLE_S:
                self._wanted = 0
                if self._current is not None and self._current.is_settled:
                    self._full.append(self._current)
                    self._current = None
                arrived = self._arrived()
                if arrived is not None:
                    self._full.append(arrived)
        self.return_settled()
