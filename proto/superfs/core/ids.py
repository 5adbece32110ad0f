"""Numbers that name things, and how they are made.

An inode number has 64 bits: the slot in the high 12, one bit "directory", 51 bits below.

    63        52 51 50                                                  0
    | slot (12)  | d | directory: keyed blake2b of its birth | file: counter |

* A *slot* is the unit of placement: the cluster map says which metadata daemon owns it. Every
  key in a metadata daemon's store starts with its slot, so a slot is one contiguous range.
* A *directory's* number is predictable from (birth parent's number, name, version). The version
  is one whose number is free: 0 nearly always, n where n directories born there were moved away.
* A *file's* number is a counter of the slot of its birth directory, and is never reused.
* A file that a client makes by itself, under an exclusive lease, has a number of its session's
  *range*: the highest bit of the low 51, the range (26), a counter of the session (24). Its
  generation is
  `DELEGATED_GENERATION`, for the number is never used again. A directory made so has a predictable
  number and a generation from those that the session has reserved, all above GENERATION_HALF.
* What a mount shows that is no inode of the namespace (blocks of a KVCache pool) has a number of
  range 0, which is no session's. Only that mount and its kernel know it.
* The *group* of a directory is its entries and the inodes of its single-link files. `Place` is
  the number a record is filed under: the directory that names the file, or the inode itself for
  directories and for files with several links.
* (number, generation) is unique for ever; a directory number can come back with a new generation.
"""

from __future__ import annotations

import hashlib
from typing import NewType

InodeId = NewType("InodeId", int)
Place = NewType("Place", int)
Generation = NewType("Generation", int)
DataGeneration = NewType("DataGeneration", int)
ChunkIndex = NewType("ChunkIndex", int)
NodeId = NewType("NodeId", int)
ChainId = NewType("ChainId", int)
SessionId = NewType("SessionId", int)
Slot = NewType("Slot", int)

SLOT_BITS = 12
SLOTS = 1 << SLOT_BITS
SLOT_SHIFT = 64 - SLOT_BITS
DIRECTORY_BIT = 1 << (SLOT_SHIFT - 1)
LOW_MASK = DIRECTORY_BIT - 1
ID_MAX = (1 << 64) - 1

ROOT = InodeId(DIRECTORY_BIT | 1)
"""The root directory: slot 0. It has no birth, so its low bits are fixed."""
ROOT_GENERATION = Generation(1)

FIRST_DATA_GENERATION = DataGeneration(1)
"""What a client writes data under for a reserved number, before the file is created. Data daemons
know (number, data generation): no file is ever given this one later."""

RANGE_BITS, RANGE_COUNTER_BITS = 26, 24
RANGE_BIT = 1 << (RANGE_BITS + RANGE_COUNTER_BITS)
RANGES_MAX = (1 << RANGE_BITS) - 1
RANGE_FILES_MAX = (1 << RANGE_COUNTER_BITS) - 1
VIRTUAL_MASK = DIRECTORY_BIT | RANGE_BIT | RANGES_MAX << RANGE_COUNTER_BITS
VIRTUAL_MAX = (1 << (SLOT_BITS + RANGE_COUNTER_BITS)) - 1
DELEGATED_GENERATION = Generation(1)
GENERATION_HALF = 1 << 31
"""Generations below are counted by slot, those from here on for the whole cluster."""

_PERSON = b"superfs-dirid"


def slot_of(ino: int) -> Slot:
    return Slot(ino >> SLOT_SHIFT)


def is_directory_id(ino: int) -> bool:
    return bool(ino & DIRECTORY_BIT)


def directory_id(parent: int, name: bytes, version: int = 0, *, hash_bits: int = 63) -> InodeId:
    """The predictable number of a directory born as `name` in `parent`.

    `hash_bits` truncates the hash (tests provoke collisions with it); clients use the default.
    """
    digest = hashlib.blake2b(
        name + version.to_bytes(4, "little"),
        digest_size=8,
        key=parent.to_bytes(8, "little"),
        person=_PERSON,
    ).digest()
    value = int.from_bytes(digest, "little") & ((1 << hash_bits) - 1)
    slot, low = value >> 51, value & LOW_MASK
    return InodeId(slot << SLOT_SHIFT | DIRECTORY_BIT | low)


def file_id(slot: int, counter: int) -> InodeId:
    assert 0 <= slot < SLOTS, slot
    assert 0 < counter < RANGE_BIT, counter
    return InodeId(slot << SLOT_SHIFT | counter)


def delegated_file_id(slot: int, range_: int, counter: int) -> InodeId:
    assert 0 <= slot < SLOTS, slot
    assert 0 < range_ <= RANGES_MAX, range_
    assert 0 < counter <= RANGE_FILES_MAX, counter
    return InodeId(slot << SLOT_SHIFT | RANGE_BIT | range_ << RANGE_COUNTER_BITS | counter)


def range_of(ino: int) -> tuple[int, int]:
    """(range, counter) of a file that a client has numbered; (0, 0) of every other inode."""
    if ino & DIRECTORY_BIT or not ino & RANGE_BIT:
        return 0, 0
    return ino >> RANGE_COUNTER_BITS & RANGES_MAX, ino & RANGE_FILES_MAX


def virtual_id(counter: int) -> int:
    """Of what only a mount knows."""
    assert 0 <= counter <= VIRTUAL_MAX, counter
    slot, low = counter >> RANGE_COUNTER_BITS, counter & RANGE_FILES_MAX
    return slot << SLOT_SHIFT | RANGE_BIT | low


def is_virtual(ino: int) -> bool:
    return ino & VIRTUAL_MASK == RANGE_BIT
