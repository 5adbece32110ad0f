"""Room that a data daemon has promised: others leave it free, and who has it finds it."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest

from harness import datastore
from harness.datastore import HOST, SMALL, capability, serving
from superfs.core.errors import Code, FsError
from superfs.core.limits import MIB, PROMISE_BYTES_MAX
from superfs.core.tokens import Grant
from superfs.data import segments
from superfs.data import store as store_module
from superfs.data.segments import Blob
from superfs.v1.data_pb2 import Promise, Write, WriteMany

if TYPE_CHECKING:
    from pathlib import Path

    from superfs.data.store import DataStore

SEGMENT = SMALL.segment_bytes


class Disk:
    def __init__(self, free: int, patch: pytest.MonkeyPatch) -> None:
        self.free = free
        for module in (segments, store_module):
            patch.setattr(module, "free_bytes", lambda _path: self.free)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(6 * SEGMENT, monkeypatch)


def blob(ino: int) -> Blob:
    return Blob(ino, 1, 0, 0, bytes(MIB))


def put(store: DataStore, disk: Disk, ino: int, promised_to: int = 0) -> None:
    made = store.segments.next_number
    store.write([blob(ino)], promised_to)
    disk.free -= (store.segments.next_number - made) * SEGMENT


def fill(store: DataStore, disk: Disk, promised_to: int = 0) -> int:
    """How many mebibytes go in. The disk loses a segment with each that is made."""
    for count in itertools.count():
        try:
            put(store, disk, count + 1, promised_to)
        except FsError as error:
            if error.code is Code.NO_SPACE:
                return count
            raise
    raise AssertionError("it is never full")


def test_others_leave_it_free_and_its_owner_finds_it(tmp_path: Path, disk: Disk) -> None:
    store = datastore.opened(tmp_path / "d")
    size = 2 * SEGMENT
    store.promises.make(7, size)
    others = fill(store, disk)
    assert others > 0
    assert store.room() >= size
    assert not store.promises.scarce
    for number in range(size // MIB - 1):  # heads take some of it
        put(store, disk, 1000 + number, 7)
    assert store.promises.scarce
    assert fill(store, disk) == 0
    store.close()


def test_what_is_not_there_is_not_promised(tmp_path: Path, disk: Disk) -> None:
    store = datastore.opened(tmp_path / "d")
    store.promises.make(7, 3 * SEGMENT)
    with pytest.raises(FsError, match="NO_SPACE"):
        store.promises.make(8, 4 * SEGMENT)
    assert store.promises.total == 3 * SEGMENT
    store.promises.make(7, 0)
    store.promises.make(8, 4 * SEGMENT)
    with pytest.raises(FsError, match="TOO_LARGE"):
        store.promises.make(8, PROMISE_BYTES_MAX + 1)
    store.fence(8, 99)
    assert store.promises.total == 0
    store.close()


def test_a_full_disk_takes_what_was_promised_and_no_more(tmp_path: Path, disk: Disk) -> None:
    """Somebody else has filled the disk meanwhile."""
    store = datastore.opened(tmp_path / "d")
    store.promises.make(7, 3 * MIB)
    store.segments.room_for_client()
    disk.free = 0
    assert store.segments.active is not None
    store.segments.spare = None
    assert fill(store, disk) == 0
    assert fill(store, disk, 7) == 3
    store.close()


def test_on_the_wire(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path / "d") as served:
            shown = capability(HOST)
            await served.ask(capability=shown, promise=Promise(bytes=1))
            assert served.daemon.store.promises.total == 1
            write = Write(ino=1, data_generation=1, data=b"x")
            for body in ({"write": write}, {"write_many": WriteMany(writes=[write])}):
                reply = await served.ask(capability=shown, promised=True, **body)
                assert (reply.code, reply.scarce) == (0, False)
            user = capability(Grant("user", "u", uid=1, session_id=9, inode=1, epoch=1))
            reply = await served.ask(capability=user, promise=Promise(bytes=1))
            assert reply.code == Code.FORBIDDEN

    datastore.make(tmp_path / "d")
    asyncio.run(main())
