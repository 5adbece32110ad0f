"""What a client does with segments that it was lent, without any daemon."""

from __future__ import annotations

import itertools
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from harness.waiting import wait_until
from superfs.client import lent
from superfs.client.checksums import matches
from superfs.client.data import Where, _placed
from superfs.client.dirty import DirtyExtents, overlay
from superfs.client.lent import BORROW_AT_BYTES, Borrowed, LentSegment, Placed, Placing
from superfs.client.payload import PlacedPayload
from superfs.client.wire import Reply
from superfs.core.errors import Code, FsError
from superfs.core.limits import KIB, MIB, PAGE_BYTES
from superfs.rpc.pending import Pending, completed
from superfs.v1.data_pb2 import DataRequest

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 16 * MIB
pytestmark = pytest.mark.usefixtures("no_descriptor_is_left")


class Lender:
    """A daemon's side: files."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self.asked = 0
        self.refuses = False
        self.late: list[Pending[LentSegment]] | None = None
        self.back: list[int] = []
        self.borrowed = Borrowed(self._lend, self.back.extend)
        self.borrowed.begin(4)

    def _lend(self) -> Pending[LentSegment]:
        self.asked += 1
        pending: Pending[LentSegment] = Pending()
        if self.refuses:
            pending.fail(FsError(Code.NO_SPACE))
        elif self.late is None:
            pending.complete(self.segment())
        else:
            self.late.append(pending)
        return pending

    def segment(self) -> LentSegment:
        fd = os.open(self._top / f"{self.asked}.seg", os.O_RDWR | os.O_CREAT)
        os.ftruncate(fd, SIZE)
        return LentSegment(self.asked, SIZE, fd, self)

    def lends(self, placed: Placed) -> bool:
        return placed.segment.link is self

    def shared_place(self, _data: memoryview) -> None:
        return None

    def write(self, size: int = MIB, fill: int = 7) -> Placed | None:
        return self.borrowed.write(memoryview(bytes([fill]) * size))

    def warm(self) -> None:
        for _ in range(BORROW_AT_BYTES // MIB):
            self.write()


@pytest.fixture
def lender(tmp_path: Path) -> Lender:
    return Lender(tmp_path)


WAYS = [Placing(still, drop) for still in (False, True) for drop in (False, True)]


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_what_is_written_lies_there_with_its_checksums(lender: Lender, how: Placing) -> None:
    lender.warm()
    data = os.urandom(MIB + 12_345)
    placed = lender.borrowed.write(memoryview(data), how)
    assert placed is not None
    assert placed.place % PAGE_BYTES == 0
    assert bytes(placed) == data
    assert placed[5:100] == data[5:100]
    assert len(placed) == len(data)
    assert matches(data, placed.crcs)


@pytest.mark.parametrize("still", [False, True])
def test_bytes_that_change_meanwhile_are_a_mixture(
    lender: Lender, monkeypatch: pytest.MonkeyPatch, still: bool
) -> None:
    lender.warm()
    data = bytearray(3 * MIB)
    write = os.pwritev

    def changed(fd: int, buffers: list[memoryview], offset: int, flags: int) -> int:
        data[MIB + 5] += 1
        return write(fd, buffers, offset, flags)

    monkeypatch.setattr(os, "pwritev", changed)
    placed = lender.borrowed.write(memoryview(data), Placing(still=still))
    assert placed is not None
    assert matches(bytes(placed), placed.crcs)


def test_bytes_that_are_still_are_not_read_back(
    lender: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    lender.warm()
    monkeypatch.setattr(os, "preadv", None)
    assert lender.borrowed.write(memoryview(bytes(3 * MIB)), Placing(still=True)) is not None


def test_what_the_disk_has_lost_is_not_taken_for_what_was_written(lender: Lender) -> None:
    lender.warm()
    placed = lender.borrowed.write(memoryview(os.urandom(MIB)), Placing(True, True))
    assert placed is not None
    os.pwrite(placed.segment._fd, bytes(4096), placed.place + 100_000)
    with pytest.raises(FsError) as caught:
        bytes(placed)
    assert caught.value.code is Code.IO
    with pytest.raises(FsError):
        placed[100_000:100_001]
    assert len(placed[:16]) == 16
    assert placed[5:5] == b""


def test_who_writes_little_borrows_nothing(lender: Lender) -> None:
    for _ in range(BORROW_AT_BYTES // MIB - 1):
        assert lender.write() is None
    assert lender.asked == 0
    assert lender.write() is not None
    assert lender.asked == 2, "one to write to, and the next one"


def test_a_daemon_that_lends_nothing_is_not_asked(tmp_path: Path) -> None:
    lender = Lender(tmp_path)
    lender.borrowed = Borrowed(lender._lend, lender.back.extend)
    lender.borrowed.begin(0)
    lender.warm()
    lender.warm()
    assert lender.asked == 0


def test_a_segment_that_is_late_is_waited_for_once(
    lender: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lent, "ARRIVES_S", 0.01)
    late: list[Pending[LentSegment]] = []
    lender.late = late
    lender.warm()
    assert lender.asked == 1, "one at a time"
    monkeypatch.setattr(lent, "ARRIVES_S", 60.0)
    assert lender.write() is None
    late[0].complete(lender.segment())
    assert lender.write() is not None


def test_a_segment_that_comes_soon_is_waited_for(lender: Lender) -> None:
    late: list[Pending[LentSegment]] = []
    lender.late = late
    for _ in range(BORROW_AT_BYTES // MIB - 1):
        lender.write()

    def lend() -> None:
        wait_until(lambda: late, "it is asked for")
        late[0].complete(lender.segment())

    daemon = threading.Thread(target=lend)
    daemon.start()
    assert lender.write() is not None
    daemon.join()


def test_a_refusal_is_taken_for_a_while(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lender.refuses = True
    lender.warm()
    for _ in range(10):
        assert lender.write() is None
    assert lender.asked == 1
    for turn in range(2, 12):
        now[0] += 6
        lender.write()
        lender.write()
        assert lender.asked == turn


def test_no_two_ranges_meet(lender: Lender) -> None:
    lender.warm()
    found = [p for size in (MIB, 128 * KIB, 300_001, 4096, 1) if (p := lender.write(size))]
    assert len(found) == 5
    for one, other in itertools.pairwise(found):
        assert other.place >= one.place + len(one) + PAGE_BYTES
        assert other.place % PAGE_BYTES == 0
    assert all(bytes(p) == b"\7" * len(p) for p in found)


def test_a_full_segment_goes_back_when_all_of_it_is_placed_or_forgotten(lender: Lender) -> None:
    lender.warm()
    found: list[Placed] = []
    placed = lender.write()
    while placed is not None and placed.segment.number == 1:
        found.append(placed)
        placed = lender.write()
    assert len(found) == 14, "and one that warming up has written"
    assert lender.back == [], "nothing of it is placed"
    for placed in found[1:]:
        placed.answered(completed(Reply()))
    failed: Pending[Reply] = Pending()
    failed.fail(FsError(Code.UNAVAILABLE))
    found[0].answered(failed)
    found[0].answered(completed(Reply(code=Code.NOT_FOUND)))
    lender.borrowed.tick()
    assert lender.back == [], "of one nobody knows: its bytes may be needed"
    assert bytes(found[0]) == b"\7" * MIB
    found.clear()
    del placed, failed
    lender.borrowed.tick()
    assert lender.back == [1]


def test_what_nobody_uses_goes_back(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> None:
    lender.warm()
    placed = lender.write()
    assert placed is not None
    placed.answered(completed(Reply()))
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lender.borrowed.tick()
    assert lender.back == []
    now[0] += lent.IDLE_S + 1
    lender.borrowed.tick()
    assert sorted(lender.back) == [1, 2], "and the one that was asked for ahead"
    assert lender.write() is None, "it begins anew"


def test_a_range_is_named_once_and_carried_from_then_on(lender: Lender) -> None:
    lender.warm()
    where = Where(5, 1, (1,))
    placed = lender.write(2 * MIB, 9)
    assert placed is not None
    first = PlacedPayload(lender, 1, where, 3, 4096, placed)
    again = PlacedPayload(lender, 2, where, 3, 4096, placed)
    assert first.has_place
    assert not again.has_place
    said = DataRequest.FromString(first.encode()).write
    assert (said.placed.place, said.placed.length) == (placed.place, 2 * MIB)
    assert (said.ino, said.chunk, said.offset) == (5, 3, 4096)
    carried = DataRequest.FromString(again.encode())
    assert [w.offset for w in carried.write_many.writes] == [4096, 4096 + MIB]
    assert b"".join(w.data for w in carried.write_many.writes) == b"\x09" * 2 * MIB
    placed.segment.link = None  # another connection
    assert not first.has_place
    assert DataRequest.FromString(first.encode()).WhichOneof("body") == "write_many"
    assert (first.way, again.way) == ("grpc", "grpc")


@pytest.mark.allow_log("not where they were written")
def test_bytes_that_cannot_be_read_back_are_refused_and_block_nobody(
    lender: Lender, tmp_path: Path
) -> None:
    lender.warm()
    placed = lender.write()
    assert placed is not None
    PlacedPayload(lender, 1, Where(5, 1, (1,)), 0, 0, placed)
    os.truncate(tmp_path / f"{placed.segment.number}.seg", PAGE_BYTES)
    again = PlacedPayload(lender, 2, Where(5, 1, (1,)), 0, 0, placed)
    assert DataRequest.FromString(again.encode()).WhichOneof("body") is None


def test_what_has_gone_another_way_may_be_needed_again(lender: Lender) -> None:
    """The first write was refused, and the second carried the bytes; the daemon may die yet."""
    lender.warm()
    placed = lender.write()
    assert placed is not None
    where = Where(5, 1, (1,))
    requests = [PlacedPayload(lender, tag, where, 0, 0, placed) for tag in (1, 2)]
    for request, code in zip(requests, (Code.STALE_DATA, Code.OK), strict=True):
        request.encode()
        _placed(placed, request, completed(Reply(code=code)))
    assert not placed.segment.is_settled
    requests[0].encode()
    _placed(placed, requests[0], completed(Reply()))
    assert placed.segment.is_settled


def test_who_leaves_gives_back_what_is_settled(lender: Lender) -> None:
    lender.warm()
    placed = lender.write()
    assert placed is not None
    placed.answered(completed(Reply()))
    assert lender.borrowed.leave() == [1, 2], "and the one that was asked for ahead"
    assert lender.write() is None
    assert lender.borrowed.leave() == []


def test_who_leaves_keeps_what_is_not_placed(lender: Lender) -> None:
    lender.warm()
    placed = lender.write()
    assert placed is not None
    assert lender.borrowed.leave() == [2]
    assert bytes(placed) == b"\7" * MIB


def test_a_writer_who_is_faster_than_the_disk_waits_for_it(
    lender: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lent, "UNCOMMITTED_MAX", 2 * lent.COMMIT_BYTES)
    borrowed = lender.borrowed
    assert borrowed.note(lent.COMMIT_BYTES, committing=False)
    assert not borrowed.note(lent.COMMIT_BYTES, committing=True)
    assert borrowed.may_place(lent.COMMIT_BYTES, committing=True)
    assert not borrowed.note(lent.COMMIT_BYTES, committing=True)
    assert not borrowed.may_place(1, committing=True)
    assert borrowed.may_place(1, committing=False), "the next sync covers all of it"
    assert borrowed.note(1, committing=False)


def test_what_is_written_over_before_it_was_sent(lender: Lender) -> None:
    lender.warm()
    model = bytearray(8 * MIB)
    dirty = DirtyExtents()
    for at, size, fill in (
        (0, MIB, 1), (2 * MIB, MIB, 2), (MIB // 2, 100, 3), (2 * MIB + 5, 2 * MIB, 4), (7, 9, 5),
    ):  # fmt: skip
        placed = lender.write(size, fill) if size >= 128 * KIB else None
        dirty.write(at, bytes([fill]) * size if placed is None else placed)
        model[at : at + size] = bytes([fill]) * size
    assert overlay(bytes(8 * MIB), 0, dirty.overlapping(0, 8 * MIB)) == model
    dirty.put_under([(6 * MIB, lender.write(MIB, 6) or b"")])
    model[6 * MIB : 7 * MIB] = b"\6" * MIB
    dirty.truncate(6 * MIB + 1000)
    del model[6 * MIB + 1000 :]
    assert overlay(bytes(len(model)), 0, dirty.overlapping(0, len(model))) == model
    assert dirty.memory_bytes <= dirty.bytes


def test_a_write_that_is_interrupted_leaves_nothing_behind(
    lender: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    lender.warm()
    assert lender.write() is not None
    segment = lender.borrowed._current
    assert segment is not None
    before = len(segment._open)

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lender.write()
    assert len(segment._open) == before
