"""Answers of datad that come later on a stream: failing, and behind a broken connection. What a
start says of the one before it."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from harness import datastore
from harness.datastore import DAEMON, Served, Stream, capability, run, session
from superfs.core.errors import Code, FsError
from superfs.core.tokens import Grant
from superfs.v1.data_pb2 import (
    Commit,
    DataReply,
    DataRequest,
    Read,
    ReadMany,
    Reap,
    ReapItem,
    Truncate,
    Usage,
    Write,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.allow_log("request failed")
def test_an_answer_that_fails_does_not_hold_up_those_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(served: Served) -> None:
        errors = [FsError(Code.DAMAGED, "index"), ZeroDivisionError()]

        async def finish(_cut: object) -> None:
            raise errors.pop(0)

        monkeypatch.setattr(served.daemon.store.cuts, "finish", finish)
        cut = Truncate(ino=1, data_generation=1, size=5)
        requests = [
            DataRequest(truncate=cut),
            DataRequest(truncate=cut),
            DataRequest(usage=Usage()),
        ]
        replies = await asyncio.wait_for(session(served, DAEMON, requests), 10)
        assert [reply.code for reply in replies] == [Code.DAMAGED, Code.INTERNAL, Code.OK]
        assert "index" not in replies[1].detail

    run(tmp_path, test)


def test_a_stream_that_breaks_while_answers_wait_ends(tmp_path: Path) -> None:
    class Broken(Stream):
        async def read(self) -> Any:  # noqa: ANN401
            if len(self.requests) < 4:
                await self.answered.wait()
                await asyncio.sleep(0)
            return await super().read()

        async def write(self, reply: DataReply) -> None:
            self.answered.set()
            raise ConnectionError

    async def test(served: Served) -> None:
        grant = Grant("host", "a mount", session_id=70, epoch=1)
        requests = [
            DataRequest(capability=capability(grant), commit=Commit()),
            *[DataRequest(write=Write(ino=1, data_generation=1, data=b"x"))] * 3,
        ]
        served.daemon.store.fence(1, 1)  # something to be synced: the first answer waits
        stream = Broken(grant, requests)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(served.daemon.service.Session(None, stream), 10)

    run(tmp_path, test)


def test_a_start_says_what_it_found_of_the_one_before(tmp_path: Path) -> None:
    store = datastore.opened(tmp_path / "d")
    for number in range(3):
        datastore.write(store, 1, number, b"x")
    first = store.boot_epoch
    datastore.kill(store)
    again = datastore.reopen(tmp_path / "d")
    assert [boot.survived for boot in again.boots] == [0, 3]
    assert again.boots[0].epoch == first != again.boot_epoch
    datastore.write(again, 1, 0, b"y")
    torn = again.segments.by_number[again.position.segment]
    datastore.kill(again)
    with open(torn.path, "r+b") as file:  # the disk never got the last append
        file.seek(64)
        file.write(bytes(100))
    last = datastore.reopen(tmp_path / "d")
    assert [boot.survived for boot in last.boots] == [0, 3, 3]
    last.close()


@pytest.mark.allow_log("damaged data")
def test_a_segment_that_is_gone_is_damage_that_is_told(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        store = served.daemon.store
        datastore.write(store, 1, 0, b"a" * 100)
        store.segments.seal()
        store.sync()
        store.segments._open.clear()
        store.segments.path_of(1).unlink()
        read = Read(ino=1, data_generation=1, length=100)
        grant = Grant("host", "a mount", session_id=70, epoch=1)
        right = capability(grant)
        assert (await served.ask(grant, capability=right, read=read)).code == Code.DAMAGED
        many = await served.ask(grant, capability=right, read_many=ReadMany(reads=[read]))
        assert many.reads[0].code == Code.DAMAGED
        count = store.world.metrics.get_sample_value("superfs_data_damaged_reads_total")
        assert count == 2

    run(tmp_path, test)


def test_nobody_waits_for_segments_that_are_unlinked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go, unlink = threading.Event(), os.unlink

    def slow(path: Any) -> None:  # noqa: ANN401
        assert may_go.wait(10)
        unlink(path)

    async def test(served: Served) -> None:
        store = served.daemon.store
        datastore.write(store, 1, 0, b"a" * 100)
        store.segments.seal()
        monkeypatch.setattr("superfs.data.store.os.unlink", slow)
        try:
            async with asyncio.timeout(5):
                reap = Reap(items=[ReapItem(ino=1, data_generation=1)])
                assert (await served.ask(reap=reap)).code == 0
                datastore.write(store, 2, 0, b"b" * 100)
                assert (await served.ask(commit=Commit())).code == 0, "a sync that began later"
            assert 1 in store.segments.by_number
        finally:
            may_go.set()

    run(tmp_path, test)
    assert not (tmp_path / "d" / "segments" / f"{1:016x}.seg").exists(), "before it ends it is done"
