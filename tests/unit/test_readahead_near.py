"""A sequential reader near the disk: who reads, and what is known before it is read."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

import pytest

from superfs.client.data import Where
from superfs.client.errands import Errand
from superfs.client.readahead import PIECE_BYTES, WINDOW_PIECES_MAX, Readahead
from superfs.client.readers import Readers
from superfs.client.wire import Reply
from superfs.core.limits import CHUNK_BYTES
from superfs.rpc.bridge import drive
from superfs.rpc.pending import completed, run_sync

if TYPE_CHECKING:
    from superfs.client.data import DataClient
    from superfs.client.started import StartedRead

SIZE = 200 * PIECE_BYTES
WHERE = Where(7, 1, (1,))


class Data:
    """Stands for the data client."""

    def __init__(self) -> None:
        self.learned: list[int] = []
        self.near = False
        self.in_memory = False
        self.readers = Readers()
        self.by: list[int] = []

    def has_room_to_read(self, length: int) -> bool:
        return True

    def read_now(
        self, where: Where, offset: int, length: int, *, seek: bool = False
    ) -> bytes | None:
        return None

    def errand(self, where: Where, offset: int, length: int) -> Errand[bytes | None] | None:
        if not self.near:
            return None

        def work() -> bytes:
            self.by.append(threading.get_ident())
            return bytes(length)

        return Errand(work, self.readers, lambda: bytes(length) if self.in_memory else None)

    def read_here(self, where: Where, offset: int, length: int) -> bytes | None:
        errand = self.errand(where, offset, length)
        if errand is None:
            return None
        errand.wait()
        return errand.result()

    async def read(self, where: Where, offset: int, length: int) -> bytes:
        return bytes(length)

    def start_read_now(self, where: Where, offset: int, length: int) -> StartedRead:
        return [(length, completed(Reply(data=bytes(length))))]

    async def start_read(self, where: Where, offset: int, length: int) -> StartedRead:
        return self.start_read_now(where, offset, length)

    def learn(self, where: Where, chunk: int) -> None:
        self.learned.append(chunk)


def read(ahead: Readahead, first: int, count: int) -> None:
    for index in range(first, first + count):
        run_sync(ahead.read(WHERE, SIZE, index * PIECE_BYTES, PIECE_BYTES))


@pytest.mark.parametrize("after", [1, 20])
def test_near_the_disk_whoever_waits_reads_by_himself(after: int) -> None:
    """Also once pieces were on their way, before it was known to be near."""
    data = Data()
    ahead = Readahead(cast("DataClient", data))
    read(ahead, 0, after)
    data.near = True
    read(ahead, after, WINDOW_PIECES_MAX + 20)
    assert len(data.by) >= 20
    assert set(data.by) == {threading.get_ident()}
    read_to = (after + WINDOW_PIECES_MAX + 20) * PIECE_BYTES
    assert data.learned == sorted(set(data.learned)), "each once, before it is read"
    assert data.learned[-1] > read_to // CHUNK_BYTES


def test_who_may_wait_for_a_disk_is_told_without_a_coroutine() -> None:
    """Not while pieces are on their way, which hold what comes next."""
    data = Data()
    ahead = Readahead(cast("DataClient", data))
    assert ahead.read_here(WHERE, SIZE, 0, PIECE_BYTES) is None
    read(ahead, 0, 4)  # from afar: pieces are on their way
    data.near = True
    assert ahead.read_here(WHERE, SIZE, 4 * PIECE_BYTES, PIECE_BYTES) is None
    read(ahead, 4, WINDOW_PIECES_MAX + 4)
    data.by.clear()
    data.learned.clear()
    for index in range(60, 100):
        found = ahead.read_here(WHERE, SIZE, index * PIECE_BYTES, PIECE_BYTES)
        assert found == bytes(PIECE_BYTES)
    assert data.by == [threading.get_ident()] * 40
    assert data.learned == sorted(set(data.learned)), "each once, before it is read"
    assert data.learned[-1] > 100 * PIECE_BYTES // CHUNK_BYTES


async def test_who_must_not_wait_has_it_read_by_another_thread() -> None:
    data = Data()
    data.near = True
    ahead = Readahead(cast("DataClient", data))
    for index in range(3):
        piece = await drive(ahead.read(WHERE, SIZE, index * PIECE_BYTES, PIECE_BYTES))
        assert len(piece) == PIECE_BYTES
    data.readers.close()
    assert len(data.by) == 3
    assert threading.get_ident() not in data.by


async def test_who_must_not_wait_gets_at_once_what_is_in_memory() -> None:
    data = Data()
    data.near = data.in_memory = True
    ahead = Readahead(cast("DataClient", data))
    assert await drive(ahead.read(WHERE, SIZE, 0, PIECE_BYTES)) == bytes(PIECE_BYTES)
    data.readers.close()
    assert data.by == []


def test_whoever_may_wait_does_not_ask_what_is_in_memory_first() -> None:
    data = Data()
    data.near = data.in_memory = True
    read(Readahead(cast("DataClient", data)), 0, 3)
    assert data.by == [threading.get_ident()] * 3


def test_what_goes_wrong_near_is_read_as_ever() -> None:
    data = Data()
    data.near = True
    ahead = Readahead(cast("DataClient", data))
    nothing = Errand[bytes | None](lambda: None, data.readers, lambda: None)
    data.errand = lambda *_: nothing  # type: ignore[method-assign]
    read(ahead, 0, 20)
