"""One open file in the cases that chance does not find: the model is in tests/property."""

from __future__ import annotations

import io
import os
from array import array
from typing import TYPE_CHECKING, Any, cast

import pytest

from harness.memclient import MemConnection, again, opened
from superfs.client import age
from superfs.client.aio import AsyncFile
from superfs.client.creating import fill
from superfs.client.file import OpenInode
from superfs.client.fileobj import RawFile
from superfs.client.handles import OpenFiles
from superfs.client.opening import Handle
from superfs.client.sending import WRITE_BYTES_MAX
from superfs.core.attrs import Set
from superfs.core.errors import Code, FsError
from superfs.core.limits import MIB
from superfs.core.namespace.outcome import Entry
from superfs.rpc.pending import Pending, run_sync

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.client.connection import Connection
    from superfs.client.data import Where
    from superfs.client.paths import Paths
    from superfs.client.started import StartedRead
    from superfs.client.wire import Reply
    from superfs.core.namespace.outcome import Outcome
    from superfs.core.namespace.txn import Ref


@pytest.fixture
def world() -> MemConnection:
    return MemConnection()


def test_synced_bytes_are_durable_before_a_spill_forgets_them(
    world: MemConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = opened(world)
    commits_at_spill: list[int] = []
    publish = world.meta.publish

    async def look(*args: Any, **options: Any) -> Outcome:  # noqa: ANN401
        if options.get("spill"):
            commits_at_spill.append(world.data.commits)
        outcome: Outcome = await publish(*args, **options)
        return outcome

    monkeypatch.setattr(world.meta, "publish", look, raising=False)
    run_sync(file.write(0, b"x" * 100))
    run_sync(file.fsync())
    run_sync(file.write(100, b"y" * 10_000))
    run_sync(file.flush())
    assert commits_at_spill == [1]
    fresh = opened(world, b"fresh")
    run_sync(fresh.write(0, b"z" * 10_000))
    run_sync(fresh.flush())
    assert commits_at_spill == [1, 1], "nothing was synced that could be lost"


def test_reader_of_a_file_that_another_client_makes_anew(
    world: MemConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = opened(world)
    run_sync(file.write(0, b"a" * 10_000))
    run_sync(file.flush())
    reader = again(world, file)
    assert run_sync(reader.read(0, 5)) == b"aaaaa"
    run_sync(file.truncate(0))
    run_sync(file.write(0, b"b" * 20_000))
    run_sync(file.flush())
    read = world.data.read

    async def as_datad(where: Where, offset: int, length: int) -> bytes:
        if (where.ino, where.data_generation) in world.data.reaped:
            raise FsError(Code.STALE_DATA, "gone")
        return await read(where, offset, length)

    monkeypatch.setattr(world.data, "read", as_datad)
    assert run_sync(reader.read(0, 30_000)) == b"b" * 20_000


def test_an_outage_that_is_over_is_not_read_again(
    world: MemConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked for ahead of the reader failed meanwhile."""
    file = opened(world)
    run_sync(file.write(0, b"x" * 5 * MIB))
    run_sync(file.flush())
    reader = again(world, file)
    away: list[int] = []
    start_read = world.data.start_read

    async def start(where: Where, offset: int, length: int) -> StartedRead:
        if not away:
            return await start_read(where, offset, length)
        failed: Pending[Reply] = Pending()
        failed.fail(FsError(Code.UNAVAILABLE, "away"))
        return [(length, failed)]

    monkeypatch.setattr(world.data, "start_read", start)
    assert run_sync(reader.read(0, MIB)) == b"x" * MIB
    away.append(1)
    with pytest.raises(FsError):
        run_sync(reader.read(MIB, MIB))
    away.clear()
    for place in range(MIB, 5 * MIB, MIB):
        assert run_sync(reader.read(place, MIB)) == b"x" * MIB


def test_a_large_write_is_sent_in_parts(
    world: MemConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = opened(world)
    held: list[int] = []
    push = file._push

    async def look() -> None:
        held.append(file._dirty.bytes)
        await push()

    monkeypatch.setattr(file, "_push", look)
    data = bytes(range(256)) * (5 * WRITE_BYTES_MAX // 256 // 2)
    assert run_sync(file.write(3, memoryview(data))) == len(data)
    assert held == [WRITE_BYTES_MAX, WRITE_BYTES_MAX]
    run_sync(file.flush())
    assert run_sync(again(world, file).read(0, len(data) + 9)) == bytes(3) + data


def test_close_that_fails_leaves_one_file_to_its_inode(
    world: MemConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes that wait must not go over what is written by whoever opens it again."""
    connection: Any = world
    files = OpenFiles(connection)
    attr = run_sync(world.new_file())
    released: list[int] = []

    async def release(refs: list[Ref]) -> None:
        released.extend(ref.ino for ref in refs)

    monkeypatch.setattr(world.meta, "release", release)
    first = run_sync(files.open(attr, write=True))
    run_sync(first.write(0, b"old" * 1000))
    world.meta.fail["publish"] = FsError(Code.UNAVAILABLE, "away")
    with pytest.raises(FsError):
        run_sync(files.close(first))
    second = run_sync(files.open(attr, write=True))
    assert second is first
    run_sync(second.truncate(0))
    run_sync(second.write(0, b"new"))
    run_sync(files.close(second))
    run_sync(files.release())
    assert released == [attr.ino, attr.ino], "as often as it was opened"
    assert not first.is_dirty
    assert run_sync(again(world, first).read(0, 10)) == b"new"


def test_what_a_failed_close_left_is_written_at_the_end(world: MemConnection) -> None:
    connection: Any = world
    files = OpenFiles(connection)
    attr = run_sync(world.new_file())
    file = run_sync(files.open(attr, write=True))
    run_sync(file.write(0, b"late"))
    world.meta.fail["publish"] = FsError(Code.UNAVAILABLE, "away")
    with pytest.raises(FsError):
        run_sync(files.close(file))
    run_sync(files.release())
    assert world.meta.held[attr.ino] == 1, "unlinked, it must stay until its bytes are there"
    run_sync(files.flush_all())
    run_sync(files.release())
    assert world.meta.held[attr.ino] == 0
    assert run_sync(again(world, file).read(0, 10)) == b"late"


class _Paths:
    """As far as a handle needs them."""

    def __init__(self, world: MemConnection) -> None:
        self.connection = cast("Connection", world)
        self.files = OpenFiles(self.connection)


@pytest.mark.allow_log("written bytes are lost")
def test_every_handle_is_told_of_lost_bytes_once(world: MemConnection) -> None:
    paths = cast("Paths", _Paths(world))
    attr = run_sync(world.new_file())
    handles = [
        Handle(paths, run_sync(paths.files.open(attr, write=True)), os.O_WRONLY) for _ in range(3)
    ]
    one, two, three = handles
    run_sync(one.write(0, b"one"))
    run_sync(two.write(3, b"two"))
    world.meta.fail["publish"] = FsError(Code.NO_SPACE, "full")
    for handle in (two, one):
        with pytest.raises(FsError) as caught:
            run_sync(handle.fsync())
        assert caught.value.code is Code.NO_SPACE
        run_sync(handle.fsync())
    with pytest.raises(FsError):
        run_sync(three.close())
    late = Handle(paths, run_sync(paths.files.open(attr, write=True)), os.O_WRONLY)
    for handle in (one, two, late):
        run_sync(handle.close())


async def test_async_file_refuses_what_it_was_not_opened_for(world: MemConnection) -> None:
    paths = cast("Paths", _Paths(world))
    attr = run_sync(world.new_file())

    def opened_for(flags: int) -> AsyncFile:
        return AsyncFile(Handle(paths, run_sync(paths.files.open(attr)), flags), "/file")

    reader, writer = opened_for(os.O_RDONLY), opened_for(os.O_WRONLY)
    assert await writer.write(memoryview(array("H", [1, 2]))) == 4
    for refused in (reader.write(b"x"), reader.truncate(0), writer.read(), writer.pread(1, 0)):
        with pytest.raises(io.UnsupportedOperation):
            await refused
    await writer.close()
    for late in (writer.write(b"x"), writer.flush(), writer.fsync()):
        with pytest.raises(ValueError, match="closed"):
            await late
    with pytest.raises(ValueError, match="whence"):
        reader.seek(0, 7)
    assert len(await reader.read()) == 4
    await reader.close()


@pytest.mark.parametrize("looked", [True, False])
def test_what_was_sent_before_a_truncation_was_heard_of(world: MemConnection, looked: bool) -> None:
    file = opened(world)
    run_sync(file.write(0, b"a" * 2 * MIB))
    run_sync(file.flush())
    run_sync(again(world, file).truncate(0))
    for number in range(3):
        run_sync(file.write(number * MIB, b"b" * MIB))  # what is full is sent
    if looked:
        run_sync(file.refresh())
    run_sync(file.flush())
    there = again(world, file)
    assert there.size == 3 * MIB
    assert run_sync(there.read(0, 3 * MIB)) == b"b" * 3 * MIB


def test_reading_to_the_end_asks_where_it_is(
    world: MemConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = cast("Paths", _Paths(world))
    attr = run_sync(world.new_file())
    raw = RawFile(Handle(paths, run_sync(paths.files.open(attr)), os.O_RDONLY), "/file", id)
    other = OpenInode(cast("Connection", world), attr, inline=b"")
    run_sync(other.write(0, b"of another client"))
    run_sync(other.flush())
    monkeypatch.setattr(age, "ATTR_AGE_S", -1.0)
    assert raw.readall() == b"of another client"
    assert raw.seek(0, os.SEEK_END) == len(b"of another client")
    raw.close()


def test_where_the_end_is_is_always_asked(world: MemConnection) -> None:
    paths = cast("Paths", _Paths(world))
    attr = run_sync(world.new_file())
    raw = RawFile(Handle(paths, run_sync(paths.files.open(attr)), os.O_RDONLY), "/file", id)
    other = OpenInode(cast("Connection", world), attr, inline=b"")
    run_sync(other.write(0, b"of another client"))
    run_sync(other.flush())
    assert raw.seek(0, os.SEEK_END) == len(b"of another client")
    raw.close()


def test_a_read_after_a_recall_asks(world: MemConnection) -> None:
    file = opened(world)
    run_sync(file.write(0, b"old"))
    run_sync(file.flush())
    assert run_sync(file.read(0, 10)) == b"old"
    other = again(world, file)
    run_sync(other.write(0, b"of another client"))
    run_sync(other.flush())
    file.recalled()
    assert file.read_now(0, 10) is None
    assert run_sync(file.read(0, 30)) == b"of another client"
    assert file.read_now(0, 30) == b"of another client"


@pytest.mark.parametrize("recalled", [False, True])
def test_what_was_read_ahead_of_another_clients_write(world: MemConnection, recalled: bool) -> None:
    """A change of our own that came later has the attributes, and hides theirs."""
    file = opened(world)
    run_sync(file.write(0, b"x" * 6 * MIB))
    run_sync(file.flush())
    reader = again(world, file)
    for place in (0, MIB):
        assert run_sync(reader.read(place, MIB)) == b"x" * MIB
    other = again(world, file)
    run_sync(other.write(2 * MIB, b"y" * MIB))
    run_sync(other.flush())
    if recalled:
        reader.recalled()
        run_sync(reader.setattr(int(Set.MODE), mode=0o600))
    else:  # who has no lease hears of it by the answer to what he writes
        run_sync(reader.write(0, b"z"))
        run_sync(reader.flush())
    assert run_sync(reader.read(2 * MIB, MIB)) == b"y" * MIB


def test_contents_are_of_the_version_that_was_published(
    world: MemConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another client's is heard of before the answer to what was written here."""
    file = opened(world)
    run_sync(file.write(0, b"ours"))
    other = again(world, file)
    publish = world.meta.publish

    async def overtaken(*args: Any, **options: Any) -> Outcome:  # noqa: ANN401
        outcome: Outcome = await publish(*args, **options)
        monkeypatch.undo()
        run_sync(other.write(0, b"theirs"))
        run_sync(other.flush())
        file.observe(other.attr)
        return outcome

    monkeypatch.setattr(world.meta, "publish", overtaken, raising=False)
    run_sync(file.flush())
    assert file.settled is None
    assert run_sync(file.read(0, 10)) == b"theirs"


@pytest.mark.allow_log("written bytes are lost")
def test_abandoned_bytes_do_not_come_later(world: MemConnection) -> None:
    file = opened(world)
    run_sync(file.write(0, b"old"))
    run_sync(file.abandon(lambda: False))
    assert file.is_dirty
    run_sync(file.abandon(lambda: True))
    other = again(world, file)
    run_sync(other.write(0, b"new"))
    run_sync(other.flush())
    run_sync(file.flush_aged())
    assert run_sync(again(world, file).read(0, 10)) == b"new"


@pytest.mark.parametrize("size", [0, 50])
def test_a_truncation_that_fails_loses_nothing(world: MemConnection, size: int) -> None:
    file = opened(world)
    run_sync(file.write(0, b"x" * 100))
    world.meta.fail["setattr"] = FsError(Code.UNAVAILABLE, "away")
    with pytest.raises(FsError):
        run_sync(file.truncate(size))
    run_sync(file.fsync())
    assert run_sync(again(world, file).read(0, 200)) == b"x" * 100


@pytest.mark.allow_log("written bytes are lost")
def test_who_waits_while_others_lose_the_bytes_is_told(world: MemConnection) -> None:
    """An fsync that found nothing to do any more would say that they are on disk."""
    file = opened(world)
    run_sync(file.write(0, b"x" * 100))
    gate: Pending[None] = Pending()
    world.meta.held_back["publish"] = gate
    background, syncing = file.flush_aged(), file.fsync()
    assert background.send(None) is gate
    waits = syncing.send(None)
    gate.fail(FsError(Code.IO, "provoked"))
    with pytest.raises(StopIteration):
        background.send(None)
    assert waits.done
    with pytest.raises(FsError, match="provoked"):
        syncing.send(None)


@pytest.mark.allow_log("written bytes are lost")
def test_a_copy_that_fails_writes_nothing_later(
    world: MemConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[OpenInode] = []
    monkeypatch.setattr(world.writeback, "note", noted.append)
    attr = run_sync(world.new_file())

    def pieces() -> Iterator[tuple[int, bytes]]:
        yield 0, b"x"
        raise OSError(5, "the source cannot be read")

    entry = Entry(b"file", attr=attr)
    with pytest.raises(OSError, match="cannot be read"):
        run_sync(fill(cast("Connection", world), entry, attr, pieces()))
    (file,) = noted
    assert not file.is_dirty
    assert world.meta.held[attr.ino] == 0
