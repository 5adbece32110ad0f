"""Contents of new files that wait to be sent with those of others: read from here until then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from superfs.client.data import Where
from superfs.client.gathering import GatheringData
from superfs.client.sharedmem import slot_of
from superfs.core.errors import Code, FsError
from superfs.core.limits import CHUNK_BYTES, KIB, MIB, REQUESTS_PER_MESSAGE_MAX
from superfs.rpc.background import Background
from superfs.rpc.pending import run_sync
from superfs.v1.data_pb2 import DataReply, DataRequest
from unit.test_client_datastream import Client, Datad

if TYPE_CHECKING:
    from collections.abc import Iterator

    from superfs.client.datastream import DataStream

BODY = bytes(range(256)) * 64


class Promising(Datad):
    """Keeps what is written by file; promises room, or not."""

    def __init__(self) -> None:
        super().__init__()
        self.requests_max = REQUESTS_PER_MESSAGE_MAX
        self.files: dict[int, bytes] = {}
        self.promises: list[int] = []
        self.promise_code = Code.OK
        self.scarce = False

    def answer(self, request: DataRequest) -> DataReply:
        if request.HasField("promise"):
            self.promises.append(request.promise.bytes)
            epoch = self.boots[-1].epoch
            return DataReply(tag=request.tag, boot_epoch=epoch, code=self.promise_code)
        if self.refuse is Code.OK:
            for write in request.write_many.writes:
                self.files[write.ino] = write.data
            if request.HasField("write"):
                self.files[request.write.ino] = request.write.data or b"by place"
        reply = super().answer(request)
        if request.HasField("write") or request.HasField("write_many"):
            assert request.promised or not self.scarce
            reply.scarce = self.scarce and request.promised
        return reply


class Kit(Client):
    """As a connection that keeps contents of new files."""

    datad: Promising
    data: GatheringData

    def __init__(self) -> None:
        super().__init__(Promising())
        self.background = Background("test gathering")
        self.data = GatheringData(self)

    def promised(self) -> None:
        assert not self.data.may_keep(1, 1)
        run_sync(self.data.commit((1,)))  # behind the promise
        assert self.data.may_keep(1, 1)

    def keep(self, ino: int, data: bytes = BODY) -> Where:
        where = Where(ino, 1, (1,))
        assert self.data.keep(where, [(0, data)])
        return where

    def close(self) -> None:
        self.background.close()
        self.stream.close()


@pytest.fixture
def kit() -> Iterator[Kit]:
    kit = Kit()
    yield kit
    kit.close()


@pytest.fixture
def near(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> Kit:
    """The daemon reads our memory."""
    shares: Any = property(lambda _: True)
    monkeypatch.setattr(type(kit.stream), "shares_memory", shares)

    def place(_: DataStream, data: memoryview) -> tuple[int, int] | None:
        return (1, 0) if slot_of(data) is not None else None

    monkeypatch.setattr(type(kit.stream), "shared_place", place)
    return kit


def test_many_files_are_one_message(kit: Kit) -> None:
    kit.promised()
    sent = len(kit.datad.messages)
    for ino in range(1, 41):
        kit.keep(ino)
    assert len(kit.datad.messages) == sent
    run_sync(kit.data.send(range(1, 41)), 10)
    assert kit.datad.files == dict.fromkeys(range(1, 41), BODY)
    assert len(kit.datad.messages) == sent + 1
    assert not kit.data._kept


def test_by_place_many_files_are_one_message(near: Kit) -> None:
    near.promised()
    sent = len(near.datad.messages)
    for ino in range(1, 2 * REQUESTS_PER_MESSAGE_MAX + 1):
        near.keep(ino)
    run_sync(near.data.send(), 10)
    assert len(near.datad.files) == 2 * REQUESTS_PER_MESSAGE_MAX
    assert set(near.datad.files.values()) == {b"by place"}
    assert near.datad.messages[sent:] == [REQUESTS_PER_MESSAGE_MAX] * 2


def test_every_read_finds_it_here(kit: Kit) -> None:
    kit.promised()
    where = Where(5, 1, (1,))
    assert kit.data.keep(where, [(4, b"abc"), (9, b"z")])
    whole = b"\0\0\0\0abc\0\0z\0\0"
    assert kit.data.read_now(where, 0, 12) == whole
    assert run_sync(kit.data.read(where, 3, 5), 10) == whole[3:8]
    started = kit.data.start_read_now(where, 5, 4)
    assert started is not None
    assert started[0][1].result().data == whole[5:9]
    assert run_sync(kit.data.read_many([(where, 10)]), 10) == [whole[:10]]
    assert kit.data.errand(where, 0, 4) is None
    assert kit.data.read_here(where, 0, 4) is None
    other = Where(5, 2, (1,))
    assert kit.data.read_now(other, 0, 4) is None


def test_a_later_write_comes_later(kit: Kit) -> None:
    kit.promised()
    where = kit.keep(5)
    assert kit.data.start_writes_now(where, [(0, b"new")]) is None
    run_sync(kit.data.write(where, 0, b"new"), 10)
    assert kit.datad.appends[-1] == b"new"
    assert kit.datad.files[5] == b"new"
    assert not kit.data._kept


def test_a_commit_covers_it(kit: Kit) -> None:
    kit.promised()
    kit.keep(5)
    run_sync(kit.data.commit((1,), 5), 10)
    assert kit.datad.files == {5: BODY}
    assert kit.stream.kept_bytes == 0


def test_nothing_is_kept_without_a_promise(kit: Kit) -> None:
    kit.datad.promise_code = Code.NO_SPACE
    assert not kit.data.may_keep(1, 1)
    run_sync(kit.data.commit((1,)))
    assert not kit.data.may_keep(1, 1)
    assert not kit.data.keep(Where(5, 1, (1,)), [(0, BODY)])
    assert len(kit.datad.promises) == 1, "it is not asked for again at once"


def test_where_room_is_scarce_nothing_more_is_kept(kit: Kit) -> None:
    kit.promised()
    kit.keep(5)
    kit.datad.scarce = True
    run_sync(kit.data.send(), 10)
    assert not kit.data.may_keep(1, 1)


def test_a_promise_ends_with_its_stream(kit: Kit) -> None:
    kit.promised()
    kit.stream.reconnects += 1
    assert not kit.data.may_keep(1, 1)


def test_what_is_not_used_is_given_back(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    kit.promised()
    monkeypatch.setattr("superfs.client.gathering.IDLE_S", -1.0)
    kit.data.tick()
    run_sync(kit.data.commit((1,)))
    assert kit.datad.promises[-1] == 0
    assert not kit.data.may_keep(1, 1)


def test_limits(kit: Kit) -> None:
    kit.promised()
    assert not kit.data.may_keep(MIB + 1, MIB + 1)
    assert not kit.data.may_keep(1, CHUNK_BYTES + 1)
    for ino in range(1, 65):
        kit.keep(ino, bytes(MIB))
    assert not kit.data.may_keep(64 * KIB, 64 * KIB)


def test_what_is_gone_is_never_sent(kit: Kit) -> None:
    kit.promised()
    kit.keep(5)
    kit.keep(6)
    assert kit.data.drop(5)
    run_sync(kit.data.send((5, 6)), 10)
    assert kit.datad.files == {6: BODY}
    assert not kit.data.drop(6)


@pytest.mark.allow_log("written bytes are lost")
def test_who_waits_hears_what_refused_it(kit: Kit) -> None:
    kit.promised()
    kit.keep(5)
    kit.datad.refuse = Code.SESSION_EXPIRED
    for _ in range(2):
        with pytest.raises(FsError, match="SESSION_EXPIRED"):
            run_sync(kit.data.send((5,)), 10)
    kit.data.drop_all((5,))
    run_sync(kit.data.send((5,)), 10)
