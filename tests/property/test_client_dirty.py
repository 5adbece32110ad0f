"""Dirty extents against a plain array of bytes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from superfs.client.dirty import DirtyExtents, Extent, covers, overlay
from superfs.client.sharedmem import SharedMemory, lengthened, slot_of
from superfs.core.limits import MIB

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE = 64

writes = st.lists(
    st.tuples(st.integers(0, SIZE), st.binary(min_size=0, max_size=24)), min_size=1, max_size=20
)


def model_of(sequence: Sequence[Extent]) -> list[int | None]:
    model: list[int | None] = [None] * (SIZE + 32)
    for offset, data in sequence:
        model[offset : offset + len(data)] = list(bytes(data))
    return model


def seen(extents: Sequence[Extent]) -> list[int | None]:
    return model_of(extents)


def check(dirty: DirtyExtents, model: list[int | None], *, joined: bool = True) -> None:
    extents = dirty.overlapping(0, len(model))
    assert seen(extents) == model
    assert dirty.bytes == sum(1 for b in model if b is not None)
    assert dirty.end == max((i + 1 for i, b in enumerate(model) if b is not None), default=0)
    for (start, data), (following, _) in itertools.pairwise(extents):
        touch = start + len(data) == following
        assert start + len(data) <= following
        assert not (touch and joined), "extents that touch are joined"


@given(writes, st.integers(1, 16), st.integers(0, 20))
def test_large_ones_are_kept_as_they_are(
    sequence: list[tuple[int, bytes]], large_bytes: int, taken: int
) -> None:
    dirty = DirtyExtents(large_bytes)
    given_: list[memoryview] = []
    back: list[Extent] = []
    for index, (offset, data) in enumerate(sequence):
        given_.append(memoryview(data).toreadonly())
        dirty.write(offset, given_[-1])
        if index == taken:
            back = dirty.take()
            check(dirty, model_of([]), joined=False)
        else:
            since = sequence[taken + 1 : index + 1] if index > taken else sequence[: index + 1]
            check(dirty, model_of(since), joined=False)
    dirty.put_under(back)
    check(dirty, model_of(sequence), joined=False)
    assert [bytes(view) for view in given_] == [data for _, data in sequence]


def test_a_large_one_is_not_copied() -> None:
    dirty = DirtyExtents(4)
    data = memoryview(bytearray(b"abcdef")).toreadonly()
    dirty.write(0, b"xy")
    dirty.write(2, data)
    dirty.write(8, b"z")
    found = dirty.take()
    assert found == [(0, b"xy"), (2, data), (8, b"z")]
    assert found[1][1] is data


@given(writes)
def test_last_write_wins(sequence: list[tuple[int, bytes]]) -> None:
    dirty = DirtyExtents()
    for index, (offset, data) in enumerate(sequence):
        dirty.write(offset, data)
        check(dirty, model_of(sequence[: index + 1]))


@given(writes, st.integers(0, SIZE + 20))
def test_truncate(sequence: list[tuple[int, bytes]], size: int) -> None:
    dirty = DirtyExtents()
    for offset, data in sequence:
        dirty.write(offset, data)
    dirty.truncate(size)
    model = model_of(sequence)
    model[size:] = [None] * len(model[size:])
    check(dirty, model)


@given(writes, writes)
def test_what_comes_back_goes_under_what_is_newer(
    older: list[tuple[int, bytes]], newer: list[tuple[int, bytes]]
) -> None:
    dirty = DirtyExtents()
    for offset, data in older:
        dirty.write(offset, data)
    taken = dirty.take()
    assert not dirty
    for offset, data in newer:
        dirty.write(offset, data)
    dirty.put_under(taken)
    check(dirty, model_of(older + newer))


@given(writes, st.integers(0, SIZE), st.integers(0, 40))
def test_overlay(sequence: list[tuple[int, bytes]], offset: int, length: int) -> None:
    dirty = DirtyExtents()
    for at, data in sequence:
        dirty.write(at, data)
    base = bytes(range(200, 200 + length))
    extents = dirty.overlapping(offset, length)
    model = model_of(sequence)[offset : offset + length]
    wanted = bytes(b if m is None else m for m, b in zip(model, base, strict=False))
    assert overlay(base, offset, extents)[: len(wanted)] == wanted
    assert covers(extents, offset, length) <= (None not in model)


@given(writes, st.lists(st.integers(0, 19)))
def test_large_ones_in_shared_memory(
    sequence: Sequence[tuple[int, bytes]], sent: list[int]
) -> None:
    """What comes behind one goes into its slot; what was taken to be sent never changes."""
    memory = SharedMemory()
    dirty, taken = DirtyExtents(large_bytes=8), []
    for number, (offset, data) in enumerate(sequence):
        large = len(data) >= 8
        dirty.write(offset, memory.copy(data) or data if large else data)
        if number in sent:
            extents = dirty.take()
            taken.append((extents, [bytes(part) for _, part in extents]))
            dirty.put_under(extents)
    check(dirty, model_of(sequence), joined=False)
    for extents, before in taken:
        assert [
            bytes(part)[: len(was)] for (_, part), was in zip(extents, before, strict=True)
        ] == before


def test_the_end_of_a_large_write_lies_behind_it() -> None:
    memory = SharedMemory()
    dirty = DirtyExtents()
    start = memory.copy(bytes(MIB - 32))
    assert start is not None
    dirty.write(0, start)
    dirty.write(MIB - 32, b"x" * 32)
    ((offset, data),) = dirty.take()
    assert (offset, bytes(data)) == (0, bytes(MIB - 32) + b"x" * 32)
    assert slot_of(data) is slot_of(start)
    assert lengthened(data, b"y") is None, "the slot is full"
    assert lengthened(start, b"y") is None, "what is behind it is somebody's"
    assert lengthened(start[:100], b"y") is None
