"""Memory shared with data daemons on this host: what is written lies there, and they read it.

A pool of slots, each of one message's payload, in arenas (memfds sealed against becoming shorter,
allocated when they are made: nobody meets SIGBUS). A slot is a memoryview; it returns to the pool
by itself when the last reference to it, or to a part of it, is gone. What was sent from a slot
refers to it until it is answered and committed, so nobody writes into what a daemon may still
read; where nobody can know whether it was read, the slot is spoilt: never used again.

The page before each slot's bytes is free for whoever fills it: the mount has the kernel's header of
a write there, so that the kernel's copy of the bytes is the only one.
"""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import mmap
import os
import threading
import time
from collections import deque

from superfs.core.limits import BUFFER_BYTES_MAX, MESSAGE_DATA_BYTES_MAX

PAGE_BYTES = 4096
SLOT_BYTES = PAGE_BYTES + MESSAGE_DATA_BYTES_MAX
SLOTS_PER_ARENA = 8
ARENA_BYTES = SLOT_BYTES * SLOTS_PER_ARENA
ARENAS_MAX = 16
IDLE_S = 10.0

assert ARENA_BYTES <= BUFFER_BYTES_MAX

_keys = itertools.count(1)
_Slot = ctypes.c_ubyte * SLOT_BYTES


class Arena:
    """Closed when nobody refers to it any more."""

    fd = -1

    def __init__(self) -> None:
        """OSError when there is no memory for it."""
        self.key = next(_keys)
        self.free: deque[int] = deque()
        self.fd = os.memfd_create("superfs-writes", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.posix_fallocate(self.fd, 0, ARENA_BYTES)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        self.memory = mmap.mmap(self.fd, ARENA_BYTES, flags)
        self.free.extend(range(SLOTS_PER_ARENA))
        self.used_s = time.monotonic()

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)

    @property
    def idle(self) -> bool:
        return len(self.free) == SLOTS_PER_ARENA


class Slot(_Slot):  # type: ignore[misc, valid-type]
    """What a view of a slot refers to (`view.obj`)."""

    arena: Arena
    number: int
    spoilt: bool
    used: int  # what lies behind is nobody's

    def __del__(self) -> None:
        if not self.spoilt:
            self.arena.free.append(self.number)  # a deque: whatever lock is held here


def slot_of(data: object) -> Slot | None:
    """The slot that these bytes lie in, if they do."""
    if isinstance(data, memoryview) and isinstance(data.obj, Slot):
        return data.obj
    return None


def offset_of(data: memoryview, slot: Slot) -> int:
    """Of a part of a slot, in its arena."""
    return slot.number * SLOT_BYTES + _start_of(data, slot)


def _start_of(data: memoryview, slot: Slot) -> int:
    return ctypes.addressof(ctypes.c_ubyte.from_buffer(data)) - ctypes.addressof(slot)


def fill(data: memoryview) -> None:
    """These are all the bytes in their slot."""
    slot = slot_of(data)
    assert slot is not None
    slot.used = _start_of(data, slot) + len(data)


def lengthened(data: object, more: bytes | bytearray | memoryview) -> memoryview | None:
    """With `more` behind it, in the same slot, to stay there as it is; None: there is no room."""
    slot = slot_of(data)
    if slot is None or slot.used + len(more) > SLOT_BYTES:
        return None
    assert isinstance(data, memoryview)
    start = _start_of(data, slot)
    if start + len(data) != slot.used:
        return None
    whole = memoryview(slot).cast("B")
    whole[slot.used : slot.used + len(more)] = more
    slot.used += len(more)
    return whole[start : slot.used]


class SharedMemory:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arenas: list[Arena] = []

    def take(self) -> memoryview | None:
        """A free slot, its first page included; None: there is none, or no memory for one."""
        for arena in self._arenas:
            if arena.free:
                found = _slot_in(arena)
                if found is not None:
                    return found
        with self._lock:
            if len(self._arenas) >= ARENAS_MAX:
                return None
            try:
                arena = Arena()
            except OSError:
                return None
            self._arenas.append(arena)
        return _slot_in(arena)

    @property
    def free(self) -> int:
        """How many slots could be taken."""
        arenas = self._arenas
        made = sum(len(arena.free) for arena in arenas)
        return made + SLOTS_PER_ARENA * (ARENAS_MAX - len(arenas))

    def copy(self, data: bytes | bytearray | memoryview) -> memoryview | None:
        """These bytes, in a slot."""
        slot = self.take()
        if slot is None:
            return None
        part = slot[PAGE_BYTES : PAGE_BYTES + len(data)]
        part[:] = data
        fill(part)
        return part

    def tick(self) -> None:
        """Gives memory back that nobody has used for a while."""
        before = time.monotonic() - IDLE_S
        with self._lock:
            self._arenas = [a for a in self._arenas if not a.idle or a.used_s > before]


def _slot_in(arena: Arena) -> memoryview | None:
    try:
        number = arena.free.pop()
    except IndexError:
        return None
    arena.used_s = time.monotonic()
    slot = Slot.from_buffer(arena.memory, number * SLOT_BYTES)
    slot.arena, slot.number, slot.spoilt, slot.used = arena, number, False, SLOT_BYTES
    return memoryview(slot).cast("B")
