"""Reads past gRPC at the client: places and their age, checksums, formats."""

from __future__ import annotations

import fcntl
import os
import random
import weakref
from typing import TYPE_CHECKING, Any, cast

import pytest
from crc32c import crc32c

from superfs.client.bypass import chunks_with
from superfs.client.checksums import joined, matches
from superfs.client.places import ENTRIES_MAX, Place, Places
from superfs.client.readers import Readers
from superfs.client.sharedmem import (
    ARENAS_MAX,
    PAGE_BYTES,
    SLOT_BYTES,
    SLOTS_PER_ARENA,
    SharedMemory,
    Slot,
    offset_of,
    slot_of,
)
from superfs.core import extents
from superfs.core.errors import FsError
from superfs.core.extents import Extent
from superfs.core.limits import BLOCK_BYTES, CHUNK_BYTES, CHUNKS_MAX, MIB
from superfs.data.records import block_crcs

if TYPE_CHECKING:
    from superfs.client.local import LocalLink

KEY = (7, 1, 0)


# ---- checksums -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 100, BLOCK_BYTES, 3 * BLOCK_BYTES, 100_000, MIB])
def test_what_was_written_matches_and_a_flipped_bit_does_not(size: int) -> None:
    data = bytearray(random.Random(size).randbytes(size))
    crcs = block_crcs(bytes(data))
    assert matches(bytes(data), crcs)
    for at in {0, size // 2, size - 1}:
        data[at] ^= 1
        assert not matches(bytes(data), crcs)
        data[at] ^= 1
    assert not matches(bytes(data[:-1]), crcs)
    assert not matches(b"", b"")
    assert not matches(bytes(data), crcs + b"1234")


def test_blocks_that_changed_places_do_not_match() -> None:
    a, b = (random.Random(n).randbytes(BLOCK_BYTES) for n in (1, 2))
    assert matches(a + b, block_crcs(a + b))
    assert not matches(b + a, block_crcs(a + b))


def test_joined_is_the_checksum_of_the_whole() -> None:
    data = random.Random(5).randbytes(9 * BLOCK_BYTES)
    assert joined(block_crcs(data)) == crc32c(data)


# ---- extents -------------------------------------------------------------------------------------


def test_extents_survive_the_wire() -> None:
    some = (
        Extent(0, 100, 3, 400, 100, 0, b"abcd"),
        Extent(50_000, 20_000, 1 << 40, 1 << 33, 2 * BLOCK_BYTES, 5, b"12345678"),
    )
    assert extents.parse(*extents.pack(some)) == some
    assert extents.parse(b"", b"") == ()


@pytest.mark.parametrize(
    "bad",
    [
        (Extent(0, 0, 1, 64, 10, 0, b"abcd"),),
        (Extent(0, 11, 1, 64, 10, 0, b"abcd"),),
        (Extent(0, 10, 1, 64, 10, 1, b"abcd"),),
        (Extent(0, 10, 1, 64, 10, 0, b"abc"),),
        (Extent(0, 10, 1, 64, 10, 0, b"abcdefgh"),),
        (Extent(CHUNK_BYTES - 5, 10, 1, 64, 10, 0, b"abcd"),),
        (Extent(0, 10, 1, 64, 10, 0, b"abcd"), Extent(9, 10, 1, 64, 10, 0, b"abcd")),
    ],
)
def test_extents_that_contradict_themselves(bad: tuple[Extent, ...]) -> None:
    with pytest.raises(FsError):
        extents.parse(*extents.pack(bad))
    with pytest.raises(FsError):
        extents.parse(b"x" * 33, b"")


def test_extents_of_many_files_stand_one_behind_the_other() -> None:
    a, b, c = (Extent(0, 10 + n, 3, 400 * n, 10 + n, 0, b"abc%d" % n) for n in range(3))
    behind = Extent(50, 9, 4, 0, 9, 0, b"wxyz")
    places, crcs = extents.pack((a, b, behind, c))
    found = extents.parse_many((1, 0, 2, extents.NOT_SAID, 1), places, crcs)
    assert found == [(a,), (), (b, behind), (), (c,)]


@pytest.mark.parametrize("counts", [(1,), (1, 2), (3, 0), (1, 1), (2, extents.NOT_SAID)])
def test_extents_that_are_not_as_many_as_they_should_be(counts: tuple[int, ...]) -> None:
    places, crcs = extents.pack((Extent(0, 10, 3, 400, 10, 0, b"abcd"),) * 3)
    with pytest.raises(FsError):
        extents.parse_many(counts, places, crcs)


# ---- places --------------------------------------------------------------------------------------


class Link:
    """Stands for the local link: the mark of every file."""

    def __init__(self) -> None:
        self.value = b"1"

    def is_current(self, mark: int, value: bytes) -> bool:
        return value == self.value


def place(link: Link, count: int = 1) -> Place:
    some = tuple(Extent(i, 1, 1, 64, 1, 0, b"abcd") for i in range(count))
    return Place(cast("LocalLink", link), 5, link.value, some, tuple(e.offset for e in some))


def test_a_place_is_good_until_the_mark_changes() -> None:
    places, link = Places(), Link()
    assert places.get(KEY) is None
    here = place(link)
    places.answered(places.ask(KEY[:2], range(64)), {KEY: here})
    assert places.get(KEY) is here
    link.value = b"2"
    assert places.get(KEY) is None
    link.value = b"1"
    assert places.get(KEY) is None, "it was forgotten"


def test_own_writes_on_their_way_are_seen() -> None:
    """Before they are answered the mark says nothing about them."""
    places, link = Places(), Link()
    places.answered(places.ask(KEY[:2], range(64)), {KEY: place(link)})
    before = places.ask(KEY[:2], range(64))
    other = places.ask((8, 1), [0])
    places.wrote(KEY[:2])
    assert places.get(KEY) is None
    places.answered(before, {KEY: place(link)})
    assert places.get(KEY) is None, "it was asked for before the write was sent"
    places.answered(other, {(8, 1, 0): place(link)})
    assert places.get((8, 1, 0)) is not None
    places.answered(places.ask(KEY[:2], range(64)), {KEY: place(link)})
    assert places.get(KEY) is not None


def test_who_wants_what_is_being_asked_waits_for_that_answer() -> None:
    places, link = Places(), Link()
    told: list[Place | None] = []

    def wants(chunk: int) -> bool:
        return places.wait((7, 1, chunk), lambda: told.append(places.get((7, 1, chunk))))

    assert not wants(0), "nobody has asked"
    question = places.ask(KEY[:2], [0, 1])
    assert wants(1)
    assert not wants(2), "that is another chunk"
    here = place(link)
    places.answered(question, {(7, 1, 1): here})
    assert told == [here]
    assert not wants(1), "it has been answered"


def test_nobody_waits_for_an_answer_that_an_own_write_has_overtaken() -> None:
    places, link = Places(), Link()
    told: list[Place | None] = []
    question = places.ask(KEY[:2], [0])
    assert places.wait(KEY, lambda: told.append(places.get(KEY)))
    places.wrote(KEY[:2])
    assert not places.is_asked(KEY)
    assert not places.wait(KEY, lambda: None)
    places.answered(question, {KEY: place(link)})
    assert told == [None], "who has waited asks himself"


def test_who_waited_is_not_shown_what_has_changed_since_it_was_asked() -> None:
    places, link = Places(), Link()
    told: list[Place | None] = []
    question = places.ask(KEY[:2], [0])
    here = place(link)
    link.value = b"2"  # somebody's write was answered
    assert places.wait(KEY, lambda: told.append(places.get(KEY)))
    places.answered(question, {KEY: here})
    assert told == [None]


def test_places_are_bounded() -> None:
    places, link = Places(), Link()
    for chunk in range(40):
        places.answered(
            places.ask(KEY[:2], range(64)), {(7, 1, chunk): place(link, ENTRIES_MAX // 10)}
        )
    known = [chunk for chunk in range(40) if places.get((7, 1, chunk)) is not None]
    assert known == list(range(31, 40))
    for _ in range(2):
        places.wrote(KEY[:2])
    assert not any(places.get((7, 1, chunk)) for chunk in range(40))


def test_a_small_read_is_worth_a_question_the_second_time() -> None:
    places = Places()
    assert [places.touch((7, 1)), places.touch((8, 1)), places.touch((7, 1))] == [
        False,
        False,
        True,
    ]


def test_which_chunks_are_asked_for() -> None:
    """Always this one first: what comes behind it may not be answered."""
    assert chunks_with(5, 4, 1) == [5, 6, 7, 8]
    assert chunks_with(5, 4, 3) == [5, 8, 11, 14]
    assert chunks_with(70, 64, 1) == [70, *range(64, 70), *range(71, 128)]
    around = chunks_with(200, 64, 3)
    assert around[0] == 200
    assert sorted(around) == list(range(194, 194 + 3 * 64, 3))
    assert max(chunks_with(CHUNKS_MAX - 1, 64, 1)) == CHUNKS_MAX - 1
    assert chunks_with(CHUNKS_MAX - 1, 4, 1) == [CHUNKS_MAX - 1]


# ---- threads -------------------------------------------------------------------------------------


def test_readers_finish_what_was_put() -> None:
    readers = Readers()
    done: list[Any] = []
    for i in range(100):
        readers.put(lambda i=i: done.append(i))  # type: ignore[misc]
    readers.close()
    readers.put(lambda: done.append(100))
    assert sorted(done) == list(range(101))


# ---- shared memory -------------------------------------------------------------------------------


def obj(view: memoryview) -> Slot:
    slot = slot_of(view)
    assert slot is not None
    return slot


def test_a_slot_returns_when_nobody_refers_to_it() -> None:
    memory = SharedMemory()
    slot = memory.take()
    assert slot is not None
    arena = obj(slot).arena
    part = memory.copy(b"x" * 1000)
    assert part is not None
    assert bytes(part) == b"x" * 1000
    owner = slot_of(part[10:20])
    assert owner is not None
    place = offset_of(part[10:20], owner)
    assert os.pread(arena.fd, 10, place) == b"x" * 10
    assert place == owner.number * SLOT_BYTES + PAGE_BYTES + 10
    assert len(arena.free) == SLOTS_PER_ARENA - 2
    del slot, owner, part
    assert len(arena.free) == SLOTS_PER_ARENA
    spoilt = memory.copy(b"y")
    assert spoilt is not None
    obj(spoilt).spoilt = True
    number = obj(spoilt).number
    del spoilt
    assert number not in arena.free


def test_shared_memory_is_bounded_and_sealed() -> None:
    memory = SharedMemory()
    slots = [memory.take() for _ in range(ARENAS_MAX * SLOTS_PER_ARENA + 3)]
    assert sum(slot is None for slot in slots) == 3
    first = slots[0]
    assert first is not None
    fd = obj(first).arena.fd
    assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)


def test_idle_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("superfs.client.sharedmem.IDLE_S", 0.0)
    memory = SharedMemory()
    slot = memory.take()
    assert slot is not None
    arena = weakref.ref(obj(slot).arena)
    memory.tick()
    assert arena() is not None
    del slot
    memory.tick()
    assert arena() is None
