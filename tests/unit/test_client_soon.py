"""One open file, for whoever must not wait: what is had or sent at once, and what is told later."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from harness.memclient import ROOT_REF, MemConnection, again, opened
from superfs.client.sending import HELD_BYTES_MAX, UNPUBLISHED_BYTES_MAX
from superfs.client.sharedmem import SharedMemory
from superfs.core.errors import Code, FsError
from superfs.core.limits import MIB
from superfs.rpc.pending import run_sync

if TYPE_CHECKING:
    from superfs.client.file import OpenInode


@pytest.fixture
def world() -> MemConnection:
    return MemConnection()


def test_reads_for_whoever_does_not_wait(world: MemConnection) -> None:
    file = opened(world)
    data = os.urandom(3 * MIB + 1000)
    run_sync(file.write(0, data))
    run_sync(file.flush())
    reader = again(world, file)
    told: list[bytes | None] = []
    assert not reader.read_soon(MIB - 10, 20, told.append), "in two pieces"
    assert not reader.read_soon(len(data), 20, told.append), "nothing is there"
    for offset, length in ((0, MIB), (MIB, MIB), (2 * MIB, MIB), (3 * MIB, MIB), (5, 7)):
        assert reader.read_soon(offset, length, told.append)
        assert told.pop() == data[offset : offset + length]
    assert not told
    run_sync(reader.write(5, b"new"))
    assert not reader.read_soon(0, 100, told.append), "something of it is dirty"
    run_sync(reader.flush())
    world.data.lose_reads = True
    assert reader.read_soon(MIB + 5, 10, told.append)
    assert told == [None], "whoever asks in the ordinary way gets the error"


def test_pieces_that_have_arrived_are_had_at_once(world: MemConnection) -> None:
    file = opened(world)
    data = os.urandom(12 * MIB)
    run_sync(file.write(0, data))
    run_sync(file.flush())
    reader = again(world, file)
    assert reader.read_now(0, MIB) is None
    for piece in range(2):
        assert run_sync(reader.read(piece * MIB, MIB)) == data[piece * MIB :][:MIB]
    for piece in range(2, 12):
        assert reader.read_now(piece * MIB, MIB) == data[piece * MIB :][:MIB]
    assert reader.read_now(100, 10) is None, "dropped behind the reader"
    run_sync(reader.write(11 * MIB, b"new"))
    assert reader.read_now(11 * MIB, 10) is None


def streaming(world: MemConnection) -> tuple[OpenInode, SharedMemory]:
    """A file on data daemons, written in pieces out of shared memory."""
    file = opened(world)
    run_sync(file.write(0, bytes(MIB)))
    run_sync(file.flush())
    world.data.gathers = True
    return file, SharedMemory()


def piece(memory: SharedMemory, number: int) -> memoryview:
    part = memory.copy(bytes([number]) * MIB)
    assert part is not None
    return part


def test_a_stream_of_large_writes_goes_a_chunk_at_a_time(world: MemConnection) -> None:
    file, memory = streaming(world)
    for number in range(12):
        assert file.write_now(number * MIB, piece(memory, number))
        assert len(file._dirty) == (0 if number == 0 else number % 4)
        assert run_sync(file.read(number * MIB, 3)) == bytes([number]) * 3
    assert world.data.together == [1, 4, 4]
    run_sync(file.flush())
    contents = run_sync(again(world, file).read(0, 12 * MIB))
    assert contents == b"".join(bytes([number]) * MIB for number in range(12))


def test_small_writes_are_not_gathered_for_longer(world: MemConnection) -> None:
    file, memory = streaming(world)
    assert file.write_now(0, piece(memory, 1))
    for number in range(1, 256):
        assert file.write_now(number * 2 * 4096, bytes(4096))
    assert not file.write_now(256 * 2 * 4096, bytes(4096)), "it is time to send"
    run_sync(file.write(256 * 2 * 4096, bytes(4096)))
    assert not len(file._dirty)


def test_what_cannot_be_sent_is_held_up_to_a_limit(world: MemConnection) -> None:
    """Nothing is sent while there is no room, or while somebody publishes."""
    for busy in (True, False):
        file, memory = streaming(world)
        world.data.is_busy = busy
        assert busy or file._turn.acquire_nowait()
        held = 0
        while file.write_now(held * MIB, piece(memory, held)):
            held += 1
        assert held * MIB == HELD_BYTES_MAX
        assert len(file._dirty) == held
        world.data.is_busy = False
        if not busy:
            writing = file.write(held * MIB, bytes(MIB))
            assert not writing.send(None).done, "whoever may wait does so now"
            writing.close()
            file._turn.release()
        run_sync(file.flush())
        assert run_sync(again(world, file).read((held - 1) * MIB, 1)) == bytes([held - 1])
        run_sync(world.meta.unlink(ROOT_REF, b"file"))


def test_publishing_is_left_to_the_background(world: MemConnection) -> None:
    file, memory = streaming(world)
    number = 0
    while not world.writeback.hastened:
        assert file.write_now(number * MIB, piece(memory, number))
        number += 1
    assert number * MIB > UNPUBLISHED_BYTES_MAX
    assert run_sync(world.now(file.attr)).size == MIB
    for more in range(8):  # it has not come to it yet: what follows is held
        assert file.write_now((number + more) * MIB, piece(memory, more))
    assert file._unpublished_bytes <= UNPUBLISHED_BYTES_MAX + 3 * MIB
    run_sync(file.flush_aged())
    assert run_sync(world.now(file.attr)).size == (number + 8) * MIB


def test_a_writer_who_waits_publishes_beside_too(world: MemConnection) -> None:
    """And waits for it when twice as much is unpublished."""
    file = opened(world)
    run_sync(file.write(0, bytes(MIB)))
    run_sync(file.flush())
    for number in range(UNPUBLISHED_BYTES_MAX // MIB):
        assert not world.writeback.hastened
        run_sync(file.write(number * MIB, bytes(MIB)))
    assert world.writeback.hastened == 1
    while file._unpublished_bytes:
        number += 1
        run_sync(file.write(number * MIB, bytes(MIB)))
    assert number * MIB == 2 * UNPUBLISHED_BYTES_MAX
    assert run_sync(world.now(file.attr)).size == (number + 1) * MIB


@pytest.mark.allow_log("written bytes are lost")
def test_a_large_write_in_shared_memory_is_sent_as_it_is(world: MemConnection) -> None:
    file, memory = opened(world), SharedMemory()
    model = bytearray()

    def shared(turn: int) -> memoryview:
        part = memory.copy(bytes([turn]) * MIB)
        assert part is not None
        return part

    def put(turn: int, offset: int) -> None:
        model[offset : offset + MIB] = bytes([turn]) * MIB

    assert not file.write_now(0, shared(1)), "the file is inline"
    run_sync(file.write(0, shared(1)))
    put(1, 0)
    run_sync(file.flush())
    assert file.write_now(MIB, shared(2))
    assert file.write_now(MIB + 5, shared(3))
    put(2, MIB)
    put(3, MIB + 5)
    assert not len(file._dirty), "it was not kept here first"
    assert file.is_dirty
    assert run_sync(file.read(0, len(model))) == model
    assert file.write_now(3, b"small")
    model[3:8] = b"small"
    assert file.write_now(0, shared(4)), "what was written before goes with it"
    put(4, 0)
    assert not len(file._dirty)
    run_sync(file.flush())
    assert run_sync(again(world, file).read(0, len(model))) == model
    assert not file.is_dirty
    world.data.lose.append(FsError(Code.STALE_DATA))
    assert file.write_now(0, shared(5))
    put(5, 0)
    run_sync(file.flush())
    assert run_sync(again(world, file).read(0, len(model))) == model, "a lost race is run again"
    world.data.lose.append(FsError(Code.NO_SPACE))
    assert file.write_now(0, shared(6))
    with pytest.raises(FsError, match="NO_SPACE"):
        run_sync(file.flush())
    assert file.losses == 1
